"""What is drawn, and which figures are drawn from an evaluation that holds only a part."""

from pathlib import Path

import numpy as np
import pytest

from datasets.clips import load_manifest, load_pose_range
from datasets.media.image import read_image
from datasets.media.video_reader import frames_of
from datasets.media.video_writer import VideoWriter
from datasets.provenance import read_marks
from datasets.synthetic import make_corpus
from engine.checkpoint import save_weights
from evaluation import EvaluationError
from evaluation.figures import __main__ as command
from evaluation.figures import draw, strips
from tests.in_process import status_of

random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root, clips=2, seed=0, speakers=2, duration_s=0.6, size=64, workers=1)
    return root


def evaluate(folder: Path, clip, videos=(), motions=(), frames: int = 10) -> None:
    """What evaluate.py leaves."""
    for name in videos:
        path = folder / "videos" / name / f"{clip.row.id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(path, sound=clip.folder / "audio.wav") as writer:
            writer.write(clip.read_frames(range(frames)))
    for name in motions:
        path = folder / "motion" / name / f"{clip.row.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        pose = clip.pose()[:frames] + random.normal(0, 0.01, (frames, 6))
        np.savez(path, head_pose=pose.astype(np.float32), position=np.zeros((frames, 10, 2), np.float32))


def test_mouths_are_ordered_by_the_true_opening():
    views = {"full": np.stack([np.full((192, 192, 3), 20 + 20 * t, np.uint8) for t in range(6)])}
    picture = draw.fig8(views, np.array([3.0, 1, np.nan, 5, 2, 4]), columns=3)
    columns = picture[-40, -3 * (192 + strips.GAP) :: 192 + strips.GAP, 0]  # below the row's name
    assert columns.tolist() == [40, 20, 80]  # frames 1 (closed), 0 and 3 (widest); never frame 2


def test_difference_rows_tell_their_mean(monkeypatch):
    named = {}
    monkeypatch.setattr(draw, "strips", lambda rows, headings: named.update(rows))
    draw.fig10({"full": np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in (0, 4, 10)])}, gain=8)
    assert list(named) == ["full\nmean 5.00"]
    assert named["full\nmean 5.00"][:, 0, 0, 0].tolist() == [32, 48]


def test_all_figures_of_a_whole_evaluation(corpus, tmp_path):
    clip = load_manifest(corpus)[0]
    evaluate(tmp_path, clip, ("full", "no-jacobian", "one-stage"), ("full", "l1", "no-set"))
    (tmp_path / "out").mkdir()
    evaluated = draw.read_clip(tmp_path, clip)
    sentences = list(draw.draw_clip(evaluated, load_pose_range(corpus), tmp_path / "out"))
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    kinds = ("fig10.mp4", "fig10.png", "fig5.mp4", "fig5.png", "fig7.png", "fig8.mp4", "fig8.png", "fig9.png")
    assert made == sorted(kind.replace(".", f"_{clip.row.id}.") for kind in kinds)
    assert sentences[0] == f"{clip.row.id}: drawn as far as full goes, 10 of {clip.frames} frames"
    for path in (tmp_path / "out").iterdir():
        assert any("trainedAlgorithmicMedia" in mark for mark in read_marks(path)), path
    assert len(list(frames_of(tmp_path / "out" / f"fig5_{clip.row.id}.mp4"))) == 10
    picture = read_image(tmp_path / "out" / f"fig5_{clip.row.id}.png")
    assert picture.shape[0] > 4 * 192 and picture.shape[1] > 8 * 192  # truth and three variants; eight frames


def test_what_is_missing_is_said_and_not_drawn(corpus, tmp_path):
    clip = load_manifest(corpus)[0]
    evaluate(tmp_path, clip, ("full",), ("full",))
    (tmp_path / "out").mkdir()
    sentences = list(draw.draw_clip(draw.read_clip(tmp_path, clip), load_pose_range(corpus), tmp_path / "out"))
    for sentence in (
        "fig8 of ID: no-jacobian missing",
        "fig9 of ID: l1 and no-set missing",
        "fig10 of ID: one-stage missing",
    ):
        assert sentence.replace("ID", clip.row.id) in sentences
    made = {path.name.split("_")[0] for path in (tmp_path / "out").iterdir()}
    assert made == {"fig5", "fig7"}


def test_a_clip_that_was_not_evaluated_is_named(corpus, tmp_path):
    first, second = load_manifest(corpus)
    evaluate(tmp_path, first, motions=("full",))
    with pytest.raises(EvaluationError, match=second.row.id):
        draw.read_clip(tmp_path, second)
    assert [clip.row.id for clip in command.chosen_clips(corpus, None, tmp_path)] == [first.row.id]
    with pytest.raises(EvaluationError, match=r"--clips nobody: not in"):
        command.chosen_clips(corpus, ["nobody"], tmp_path)


def test_identities_with_one_audio(corpus, tmp_path, small_weights):
    save_weights(tmp_path / "small.safetensors", small_weights(64))
    clips = command.one_of_each(load_manifest(corpus), 2)
    assert len({clip.row.identity for clip in clips}) == 2
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "somebody.mp4").touch()  # of an earlier run
    videos = command.speak_alike([tmp_path / "small.safetensors"], clips, clips[0].folder / "audio.wav", folder, "cpu")
    assert list(draw.draw_identities(videos, tmp_path)) == [str(tmp_path / "fig6.png"), str(tmp_path / "fig6.mp4")]
    assert len(list(frames_of(tmp_path / "fig6.mp4"))) == clips[0].frames
    picture = read_image(tmp_path / "fig6.png")
    assert picture.shape[0] > 2 * 192 and picture.shape[1] > 9 * 192  # two rows; the reference and eight frames


@pytest.mark.parametrize(
    ("given", "ignored", "needed"),
    [
        ("--evaluation e --data d", "--identities 4", "--checkpoint"),
        ("--evaluation e --data d", "--device cpu", "--checkpoint"),
        ("--checkpoint c --data d", "--variants full", "--evaluation"),
        ("--same-audio s", "--clips a", "--evaluation or --checkpoint"),
        ("--same-audio s", "--data d", "--evaluation or --checkpoint"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(given, ignored, needed, tmp_path, capsys):
    assert status_of(command.main, *given.split(), *ignored.split(), "--output", tmp_path / "out") == 2
    assert f"{ignored.split()[0]} counts only with {needed}; give it too" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_are_not_drawn_among_the_videos_that_they_are_of(tmp_path, capsys):
    assert status_of(command.main, "--same-audio", tmp_path, "--output", tmp_path / "." / "") == 2
    assert "--output is --same-audio" in capsys.readouterr().err
