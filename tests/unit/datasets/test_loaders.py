"""The three training sets and the prepared format, on a small synthetic corpus."""

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets import clips
from datasets.audio import features
from datasets.augment import ColorJitter, PlacementJitter
from datasets.clips import load_manifest, load_pose_range, mouth_boxes, verify
from datasets.errors import DataError
from datasets.fomm import FommData, FommDataConfig
from datasets.headpose import HeadPoseData, HeadPoseDataConfig
from datasets.motionfield import MotionFieldData, MotionFieldDataConfig
from datasets.pose import moved_with_picture, project, render_boxes
from datasets.sampling import at_most, choices, shuffled
from datasets.synthetic import make_corpus
from modules.face_points import lip_points


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    make_corpus(root, clips=6, seed=3, speakers=3, duration_s=1.6, size=64, workers=1)
    return root


def same(left, right):
    for a, b in zip(left, right, strict=True):
        equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        if not equal:
            return False
    return True


def datasets_of(root, seed=5):
    return [
        FommData(FommDataConfig(str(root), repeats=4), seed=seed, size=64),
        HeadPoseData(HeadPoseDataConfig(str(root), window=16), seed=seed, size=64),
        MotionFieldData(MotionFieldDataConfig(str(root)), seed=seed, size=64, window=32),
    ]


def test_prepared_clip_reads_back(corpus):
    clips = load_manifest(corpus)
    assert [clip.row.id for clip in clips] == sorted(clip.row.id for clip in clips) and len(clips) == 6
    assert {clip.row.split for clip in clips} == {"train", "val", "test"}
    clip = clips[0]
    assert clip.read_frames([0, 39]).shape == (2, 64, 64, 3)
    assert clip.features().shape == (40, 4, 41) and clip.pose().shape == (40, 6) and clip.mouth().shape == (40, 4)
    assert len(clip.pcm()) == 40 * 640 + 81
    np.testing.assert_array_equal(features(clip.pcm()), clip.features())  # the sound gives exactly these features
    assert list(verify(clip)) == []


def test_verify_names_a_damaged_file(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    clip = load_manifest(tmp_path / "copy")[0]
    pose = clip.pose()
    np.save(clip.folder / "pose.npy", pose + 1)
    assert any("pose.npy" in problem for problem in verify(clip))
    (clip.folder / "frames.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"frames\.zip"):
        clip.read_frames([0])


def test_the_places_of_frames_are_read_from_the_zips_directory_alone(corpus, monkeypatch):
    """On a network disk every read is a wait; a clip has hundreds of frames."""
    clip = load_manifest(corpus)[0]
    path = clip.folder / "frames.zip"
    with zipfile.ZipFile(path) as archive:
        wanted = [archive.read(name) for name in sorted(archive.namelist())]
    whole, reads = path.read_bytes(), []

    class Counted(io.BytesIO):
        def read(self, *size: int) -> bytes:
            reads.append(size)
            return super().read(*size)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, mode: Counted(whole))
        places = clips._frame_places.__wrapped__(path)
    assert len(reads) == 2 < len(places)
    assert [whole[start : start + length] for start, length in places.tolist()] == wanted
    np.testing.assert_array_equal(places, clips._places_by_zipfile(path))


def test_a_zip_that_was_packed_anew_is_read_as_well(corpus, tmp_path):
    """Stored, but in another order, with a comment and longer entries."""
    shutil.copytree(corpus, tmp_path / "copy")
    clip = load_manifest(tmp_path / "copy")[0]
    expected = clip.read_frames(range(5))
    path = clip.folder / "frames.zip"
    with zipfile.ZipFile(path) as archive:
        pictures = {name: archive.read(name) for name in archive.namelist()}
    for change in ("order", "comment", "extra"):
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(pictures, reverse=change == "order"):
                entry = zipfile.ZipInfo(name)
                entry.extra = b"xx\x02\x00yy" if change == "extra" else b""
                archive.writestr(entry, pictures[name])
            archive.comment = b"anew" if change == "comment" else b""
        clips._frame_places.cache_clear()
        np.testing.assert_array_equal(clip.read_frames(range(5)), expected)


def test_another_kind_of_zip_is_refused(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    clip = load_manifest(tmp_path / "copy")[0]
    with zipfile.ZipFile(clip.folder / "frames.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000000.jpg", b"0" * 1000)
    with pytest.raises(DataError, match="not a stored zip"):
        clip.read_frames([0])


def test_pictures_of_stage_one_travel_as_bytes(corpus):
    data = FommData(FommDataConfig(str(corpus), augment=False), seed=0, size=64)
    assert data[3].source_CHW.dtype == data[3].driving_CHW.dtype == torch.uint8
    floats = data[3].floats().source_CHW
    assert floats.dtype == torch.float32 and torch.equal(floats, data[3].source_CHW.float().div_(255))


def test_missing_corpus_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"datasets\.prepare"):
        load_manifest(tmp_path)


def test_an_epoch_holds_every_item_once_and_epochs_differ():
    first, second = ([shuffled(1, n, 50) for n in range(start, start + 50)] for start in (0, 50))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert choices(1, 7).random() != choices(1, 8).random()


@pytest.mark.parametrize("stage", range(3))
def test_items_depend_on_seed_and_number_only(corpus, stage):
    one, other = datasets_of(corpus)[stage], datasets_of(corpus)[stage]
    for n in (0, 3, len(one) + 2, 10 * len(one)):
        assert same(one[n], other[n])
    reseeded = datasets_of(corpus, seed=6)[stage]
    assert not all(same(one[n][:1], reseeded[n][:1]) for n in range(4))


def test_workers_do_not_change_the_batches(corpus):
    data = FommData(FommDataConfig(str(corpus), repeats=4), seed=0, size=64)
    alone = list(DataLoader(data, batch_size=4, sampler=range(8)))
    shared = list(DataLoader(data, batch_size=4, sampler=range(8), num_workers=2))
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert alone[1].index.tolist() == [4, 5, 6, 7]


def test_splits_do_not_mix(corpus):
    held_out = {clip.index for clip in load_manifest(corpus, "val")}
    data = FommData(FommDataConfig(str(corpus), repeats=10), seed=0, size=64)
    assert held_out.isdisjoint(data[n].clip for n in range(len(data)))


def test_validation_pairs_are_plain_frames(corpus):
    data = FommData(FommDataConfig(str(corpus), augment=False, repeats=1), seed=0, size=64)
    pair = data[0].floats()
    clip = load_manifest(corpus)[pair.clip]
    frames = torch.from_numpy(clip.read_frames(range(clip.frames))).permute(0, 3, 1, 2) / 255
    numbers = [int((frames == picture).flatten(1).all(dim=1).nonzero()[0]) for picture in pair[:2]]
    assert numbers == sorted(numbers)
    box = mouth_boxes(clip.mouth()[numbers])
    np.testing.assert_allclose(box, torch.stack([pair.source_mouth_4, pair.driving_mouth_4]), atol=1e-6)


def test_more_drawn_frames_set_closed_mouths_against_open_ones(corpus):
    def differences(drawn: int) -> np.ndarray:
        data = FommData(FommDataConfig(str(corpus), augment=False, repeats=40, drawn=drawn), seed=0, size=64)
        boxes_P24 = np.stack([[data[n].source_mouth_4, data[n].driving_mouth_4] for n in range(60)])
        openings_P2 = (boxes_P24[..., 3] - boxes_P24[..., 1]) - (boxes_P24[..., 2] - boxes_P24[..., 0]) / 1.5
        return np.abs(np.diff(openings_P2)).mean()

    assert differences(5) > 1.5 * differences(2)


def test_mirrored_pairs_mirror_the_mouth(corpus):
    """Among augmented items a mirrored one has its mouth box mirrored with it: a mouth is darker red than its chin."""
    data = FommData(FommDataConfig(str(corpus), repeats=40), seed=0, size=64)
    plain = FommData(FommDataConfig(str(corpus), repeats=40, augment=False), seed=0, size=64)
    flipped = 0
    for n in range(60):
        a, b = data[n].source_mouth_4, plain[n].source_mouth_4
        if torch.allclose(a, b[[2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1.0]), atol=1e-6):
            flipped += 1
            jittered, wanted = data[n].floats().source_CHW, plain[n].floats().source_CHW
            same_way = (jittered - wanted).abs().mean()
            mirrored = (jittered - wanted.flip(-1)).abs().mean()
            assert mirrored < same_way
    assert 5 < flipped < 30  # about a quarter


def with_eyes(corpus, folder):
    """A copy of a corpus whose left eyes in the picture open with the frame number; right ones stay half open."""
    shutil.copytree(corpus, folder)
    for clip in load_manifest(folder):
        opening_T = np.arange(clip.frames) / clip.frames * 10
        left = np.stack(
            [np.full_like(opening_T, 90), np.full_like(opening_T, 100), np.full_like(opening_T, 30), opening_T]
        )
        right = left.copy()
        right[0], right[3] = 170, 5
        np.save(clip.folder / "eyes.npy", np.stack([left.T, right.T], axis=1).astype(np.float32))
    return folder


def test_a_corpus_without_eyes_has_unknown_ones(corpus, tmp_path):
    assert np.isnan(load_manifest(corpus)[0].eyes()).all()
    assert (FommData(FommDataConfig(str(corpus)), 0, 64)[0].source_eyes_24 == 0).all()
    clip = load_manifest(with_eyes(corpus, tmp_path / "eyes"))[0]
    assert clip.eyes().shape == (clip.frames, 2, 4) and np.isfinite(clip.eyes()).all()


def test_pairs_by_eyes_set_closed_ones_against_open_ones(corpus, tmp_path):
    folder = str(with_eyes(corpus, tmp_path / "eyes"))

    def differences(by_eyes: float) -> float:
        data = FommData(FommDataConfig(folder, augment=False, repeats=40, drawn=5, by_eyes=by_eyes), 0, 64)
        boxes_P24 = np.stack([[data[n].source_eyes_24[0], data[n].driving_eyes_24[0]] for n in range(60)])
        return np.abs(np.diff(boxes_P24[..., 3] - boxes_P24[..., 1])).mean()

    assert differences(1.0) > 1.3 * differences(0.0)


def test_mirrored_pairs_exchange_the_eyes(corpus, tmp_path):
    folder = str(with_eyes(corpus, tmp_path / "eyes"))
    data = FommData(FommDataConfig(folder, repeats=40), 0, 64)
    plain = FommData(FommDataConfig(folder, repeats=40, augment=False), 0, 64)
    mirror = torch.tensor([-1, 1, -1, 1.0])
    flipped = sum(
        torch.allclose(data[n].source_eyes_24, plain[n].source_eyes_24[[1, 0]][:, [2, 1, 0, 3]] * mirror, atol=1e-6)
        for n in range(60)
    )
    assert 5 < flipped < 30  # about a quarter, as mouths
    assert all(data[n].source_eyes_24[0, 0] < data[n].source_eyes_24[1, 0] for n in range(60))  # left stays left


def test_jitter_treats_a_pair_alike_and_keeps_its_bounds():
    grey = np.full((2, 8, 8, 3), 100, np.uint8)
    random = np.random.default_rng(0)
    means = []
    for _ in range(50):
        jittered = ColorJitter()(grey, random)
        assert np.array_equal(jittered[0], jittered[1])
        means.append(jittered.mean())
    assert 88 <= min(means) < 95 and 105 < max(means) <= 112  # brightness +-10 %; the rest leaves a grey picture alone


def test_moved_faces_keep_their_mouths():
    box_14 = np.array([[-0.25, 0.1, 0.2, 0.6]])
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    points_42 = lip_points(torch.from_numpy(box_14), torch.zeros(1))[0].numpy()
    for x, y in np.rint((points_42 + 1) * 64 - 0.5).astype(int):
        picture[0, y - 2 : y + 3, x - 2 : x + 3] = 255
    place = PlacementJitter(turn=30, scale=0.2, shift=0.1)
    turns = []
    for n in range(20):
        moved, moved_14, turn = place(picture, box_14, np.random.default_rng(n))
        wanted_42 = lip_points(torch.from_numpy(moved_14), torch.tensor([turn]))[0].numpy()
        turns.append(turn)
        for x, y in (wanted_42 + 1) * 64 - 0.5:
            window = moved[0, round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5, 0].astype(float)
            down, across = np.mgrid[-4:5, -4:5]
            assert window.max() > 200, (n, turn)
            found = (across * window).sum() / window.sum() + round(x), (down * window).sum() / window.sum() + round(y)
            assert found == pytest.approx((x, y), abs=1)
    assert np.radians(-30) <= min(turns) < -0.2 and 0.2 < max(turns) <= np.radians(30)
    unknown = place(picture, np.zeros((1, 4)), np.random.default_rng(0))[1]
    assert (unknown == 0).all()
    assert PlacementJitter()(picture, box_14, np.random.default_rng(0))[0] is picture


def test_pairs_carry_the_turn_of_their_faces(corpus):
    plain, placed = (
        FommData(FommDataConfig(str(corpus), placement=place), seed=0, size=64)
        for place in (PlacementJitter(), PlacementJitter(turn=30))
    )
    assert plain[0].turn == 0 and 0 < abs(placed[0].turn) <= np.radians(30)
    assert not torch.equal(plain[0].source_CHW, placed[0].source_CHW)


def test_head_poses_move_with_their_pictures(corpus):
    """Where a head's middle and its edges lie in the picture, before and after."""
    pose_16 = np.array([[0.0, 0.0, 0.3, 20.0, -10.0, 300.0]], np.float32)
    points_mm = np.array([[0, 0, 0], [75, 75, 0], [-75, 75, 0]], np.float64)
    for scale, x, y in ((1.0, 0.1, -0.2), (0.7, 0.0, 0.0), (1.3, -0.15, 0.05)):
        moved_16 = moved_with_picture(pose_16, np.array([x - scale, y - scale, x + scale, y + scale]))
        before, after = (project(points_mm, pose[0]) / 128 - 1 for pose in (pose_16, moved_16))
        np.testing.assert_allclose(after, before * scale + (x, y), atol=1e-4)
    assert np.array_equal(moved_with_picture(pose_16, np.array([-1.0, -1.0, 1.0, 1.0])), pose_16)

    still, placed = (
        HeadPoseData(HeadPoseDataConfig(str(corpus), window=16, augment=True, placement=place), seed=0, size=64)
        for place in (PlacementJitter(), PlacementJitter(scale=0.3, shift=0.1))
    )
    a, b = still[0], placed[0]
    assert torch.equal(a.pose_TP[:, :3], b.pose_TP[:, :3])
    assert not torch.equal(a.pose_TP[:, 3:], b.pose_TP[:, 3:]) and not torch.equal(a.image_CHW, b.image_CHW)
    with pytest.raises(ValueError, match=r"placement.turn must be 0"):
        HeadPoseDataConfig(str(corpus), augment=True, placement=PlacementJitter(turn=3))
    with pytest.raises(ValueError, match=r"placement needs augment: true"):
        HeadPoseDataConfig(str(corpus), placement=PlacementJitter(shift=0.1))


def test_headpose_rows_start_at_the_picture(corpus):
    data = HeadPoseData(HeadPoseDataConfig(str(corpus), window=16, random_start=False), seed=0, size=64)
    item = data[0]
    clip = load_manifest(corpus)[item.clip]
    assert item.pose_TP.shape == (17, 6) and item.audio_TAF.shape == (16, 4, 41)
    np.testing.assert_allclose(load_pose_range(corpus).denormalise(item.pose_TP), clip.pose()[:17], atol=1e-3)
    np.testing.assert_array_equal(item.audio_TAF, clip.features()[:16])
    np.testing.assert_allclose(item.image_CHW.permute(1, 2, 0) * 255, clip.read_frames([0])[0], atol=1e-3)
    assert item.valid_T.all()


def test_headpose_pads_a_short_clip(corpus):
    item = HeadPoseData(HeadPoseDataConfig(str(corpus), window=64), seed=0, size=64)[1]
    assert item.valid_T.sum() == 39  # 40 frames: 40 sounds, but pose row 40 does not exist
    assert (item.audio_TAF[40:] == 0).all() and (item.audio_TAF[39] != 0).any()
    assert (item.pose_TP[40:] == item.pose_TP[39]).all()


def test_motionfield_window_is_aligned(corpus):
    data = MotionFieldData(MotionFieldDataConfig(str(corpus)), seed=0, size=64, window=32)
    item = data[2]
    clip = load_manifest(corpus)[item.clip]
    window = slice(item.start, item.start + 32)
    np.testing.assert_array_equal(item.frames_TCHW.permute(0, 2, 3, 1), clip.read_frames(range(40))[window])
    np.testing.assert_array_equal(item.audio_TAF, clip.features()[window])
    np.testing.assert_array_equal(item.head_T, render_boxes(clip.pose()[window]))
    poses = MotionFieldData(MotionFieldDataConfig(str(corpus)), seed=0, size=64, window=32, boxes=False)[2]
    np.testing.assert_array_equal(poses.head_T, clip.pose()[window])
    np.testing.assert_array_equal(poses.reference_head, clip.pose()[item.reference])
    assert item.head_T.dtype == torch.uint8 and item.frames_TCHW.dtype == torch.uint8 and item.valid_T.all()


@pytest.mark.parametrize("padding", ["edge", "zeros"])
def test_motionfield_pads_at_the_end(corpus, padding):
    item = MotionFieldData(MotionFieldDataConfig(str(corpus)), seed=0, size=64, window=48, audio_padding=padding)[0]
    assert item.start == 0 and item.valid_T.tolist() == [True] * 40 + [False] * 8
    assert (item.audio_TAF[39] != 0).any()
    assert (item.audio_TAF[40:] == (0 if padding == "zeros" else item.audio_TAF[39])).all()
    for field in (item.head_T, item.frames_TCHW, item.mouth_T4):
        assert (field[40:] == field[39]).all()


def test_batches_collate_by_default(corpus):
    batch = next(
        iter(DataLoader(MotionFieldData(MotionFieldDataConfig(str(corpus)), seed=0, size=64, window=32), batch_size=2))
    )
    assert batch.frames_TCHW.shape == (2, 32, 3, 64, 64) and batch.start.shape == (2,)


def test_training_needs_none_of_the_preparing_libraries():
    """A GPU machine has numpy, cv2 and torch; the loaders import without the rest."""
    missing = [
        "av",
        "soundfile",
        "soxr",
        "pyworld",
        "python_speech_features",
        "scipy",
        "librosa",
        "c2pa",
        "tqdm",
        "yaml",
    ]
    block = f"import sys; sys.modules.update(dict.fromkeys({missing}))"
    code = f"{block}; import datasets.fomm, datasets.headpose, datasets.motionfield"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_at_most_so_many_clips_of_a_speaker_are_kept_spread_evenly() -> None:
    nine = [SimpleNamespace(row=SimpleNamespace(id=f"{who}{n}", identity=who)) for n in range(5) for who in "ab"][:9]
    ids = [clip.row.id for clip in at_most(nine, 2)]
    assert ids == ["a0", "b0", "a2", "b2"]
    assert at_most(nine, 0) == nine and at_most(nine, 9) == nine
