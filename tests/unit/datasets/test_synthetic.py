"""The synthetic corpus: what is stored is what was drawn."""

import shutil

import numpy as np
import pytest

from datasets.clips import load_manifest
from datasets.errors import DataError
from datasets.pose import project
from datasets.synthetic import SKULL_CENTRE_MM, SyntheticConfig, make_corpus, make_if_absent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    make_corpus(root, clips=3, seed=1, duration_s=2.0, size=128, workers=1)
    return root


def test_same_seed_same_files(corpus, tmp_path):
    make_corpus(tmp_path, clips=3, seed=1, duration_s=2.0, size=128, workers=2)
    assert (tmp_path / "manifest.csv").read_bytes() == (corpus / "manifest.csv").read_bytes()  # checksums are inside


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"size": 64}, {"duration_s": 1.0}, {"clips": 2}, {"clips": 6, "speakers": 2}]
)
def test_drawings_of_other_settings_do_not_mix(corpus, tmp_path, other):
    """More clips of the same people may be added."""
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    settings = {"clips": 4, "speakers": 3, "seed": 1, "duration_s": 2.0, "size": 128, "workers": 1}
    with pytest.raises(DataError, match=r"person00\d_0000\d was not drawn with these settings"):
        make_corpus(root, **settings | other)
    assert len(list((root / "clips").iterdir())) == 3
    if "seed" in other:
        make_corpus(root, **settings)
        assert len(load_manifest(root)) == 4


def test_another_seed_other_people(corpus, tmp_path):
    make_corpus(tmp_path, clips=1, seed=2, duration_s=1.0, size=128, workers=1)
    assert load_manifest(tmp_path)[0].row.sha256 != load_manifest(corpus)[0].row.sha256


def test_loudness_drives_the_mouth_and_is_heard(corpus):
    for clip in load_manifest(corpus):
        truth = np.load(clip.folder / "truth.npz")
        energy_T = clip.features()[:, 0, 0]  # the first 25 ms of a frame
        level_T = np.log(truth["loudness_T"] + 0.03)
        in_step, late, early = (np.corrcoef(np.roll(energy_T, lag), level_T)[0, 1] for lag in (0, 3, -3))
        assert in_step > 0.5 and in_step > max(late, early) + 0.1
        assert truth["opening_T"].max() > 5 and truth["opening_T"].min() < 1


def test_the_head_is_drawn_where_the_pose_says(corpus):
    """The picture changes between frames around the projected skull, and hardly away from it."""
    clip = load_manifest(corpus)[0]
    frames, pose = clip.read_frames(range(clip.frames)).astype(float), clip.pose()
    still = np.abs(frames - frames.mean(axis=0)).mean(axis=(0, 3))
    x, y = project(SKULL_CENTRE_MM[None], pose.mean(axis=0))[0] / 2
    rows, columns = np.mgrid[:128, :128]
    near = np.hypot(columns - x, rows - y) < 45
    assert still[near].mean() > 2 * still[rows < 10].mean()


def test_the_mouth_is_drawn_where_the_truth_says(corpus):
    """Lips are redder than the cheeks beside them."""
    clip = load_manifest(corpus)[0]
    frames, mouth = clip.read_frames(range(clip.frames)).astype(int), clip.mouth()
    redness = frames[..., 0] - frames[..., 1]
    for t in range(0, clip.frames, 7):
        x, y, width, _ = mouth[t] / 2
        lips = redness[t, int(y - 2) : int(y + 3), int(x - width / 4) : int(x + width / 4)].mean()
        chin = redness[t, int(y + width / 2) : int(y + width / 2 + 3), int(x - 5) : int(x + 5)].mean()
        assert lips > chin


def test_drawings_go_only_into_an_absent_or_empty_folder(tmp_path, caplog):
    small = SyntheticConfig(clips=1, speakers=1, duration_s=0.3, size=32)
    mistyped = tmp_path / "raw"
    mistyped.mkdir()
    (mistyped / "video.mp4").touch()
    with pytest.raises(DataError, match="is no prepared corpus"):
        make_if_absent(mistyped, small)
    assert [path.name for path in mistyped.iterdir()] == ["video.mp4"]
    with pytest.raises(DataError, match="is no prepared corpus"):
        make_if_absent(mistyped / "video.mp4", small)
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".drawing").touch()  # as a killed run leaves it
    (tmp_path / "begun" / "clips").mkdir()
    for name in ("absent", "empty", "begun"):
        make_if_absent(tmp_path / name, small)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["clips", "manifest.csv", "pose_range.json"]
        assert any(
            record.levelname == "WARNING" and str(tmp_path / name) in record.message for record in caplog.records
        )
    make_if_absent(mistyped, None)
