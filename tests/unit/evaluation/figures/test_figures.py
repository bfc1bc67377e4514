"""Figures: what is computed for them, and which of them are drawn from an evaluation that holds only a part."""

from pathlib import Path

import numpy as np
import pytest

from datasets.clips import load_manifest, load_pose_range
from datasets.media.image import read_image
from datasets.media.video_reader import frames_of
from datasets.media.video_writer import VideoWriter
from datasets.pose import RELEASED_RANGE
from datasets.provenance import read_marks
from datasets.synthetic import make_corpus
from evaluation import EvaluationError
from evaluation.figures import __main__ as figures
from evaluation.figures import strips
from evaluation.figures.__main__ import TRUTH

random = np.random.default_rng(0)


def plain(grey: int, frames: int = 5, size: int = 64) -> np.ndarray:
    return np.full((frames, size, size, 3), grey, np.uint8)


# ---- strips


def test_strips_show_the_rows_in_order():
    picture = strips.strips({"dark": plain(40, 3), "bright": plain(200, 3)}, ["a", "b", "c"])
    tile = strips.enlarged(plain(40))
    right_half = picture[:, -2 * tile.shape[2] - 2 * strips.GAP :]  # two columns
    dark, bright = (np.argwhere((right_half == grey).all(2))[:, 0] for grey in (40, 200))
    assert len(dark) and dark.max() < bright.min()
    assert all((right_half == grey).all(2).sum() >= 2 * tile.shape[1] * tile.shape[2] for grey in (40, 200))


def test_side_by_side_stops_with_the_shortest_and_keeps_time():
    ramp = np.stack([np.full((64, 64, 3), 10 * t, np.uint8) for t in range(20)])
    frames = np.concatenate(list(strips.side_by_side({"one": ramp, "two": plain(99, 12)})))
    assert len(frames) == 12
    for t in (1, 11):
        below = frames[t, -192 - strips.GAP : -strips.GAP]  # without titles
        assert (below[:, :192] == 10 * t).all() and (below[:, 192 + strips.GAP : -strips.GAP] == 99).all()


def test_side_by_side_shows_every_tile_of_several_rows():
    tiles = {f"tile {number}": plain(20 + 10 * number, 2) for number in range(11)}
    frame = next(strips.side_by_side(tiles))[1]
    assert all((frame == 20 + 10 * number).all(2).sum() >= 192**2 for number in range(11))


def test_names_fit_into_the_tile():
    assert strips.lettering("wrong-audio-generated", 20, 100).shape[1] <= 100
    assert strips.lettering("still", 20, 100).shape[0] > strips.lettering("wrong-audio-generated", 20, 100).shape[0]


def test_differences_by_hand():
    frames = np.stack([np.full((2, 2, 3), grey, np.uint8) for grey in (10, 13, 3, 203)])
    assert [int(d[0, 0, 0]) for d in strips.differences(frames, 8)] == [24, 80, 255]


def test_mouths_follow_the_generated_head():
    """A head 20 mm further right shows its mouth further right by focal length / depth, not where the true one is."""
    true = np.tile(np.float32([0, 0, 0, 0, 0, 250]), (4, 1))
    moved = true + np.float32([0, 0, 0, 20, 0, 0])
    mouth = np.tile(np.float32([130, 180, 40, 5]), (4, 1))
    mouth[2] = np.nan
    np.testing.assert_allclose(strips.mouth_centres(mouth, true, true), [[130, 180]] * 4, atol=1e-3)
    centre = strips.mouth_centres(mouth, true, moved)
    np.testing.assert_allclose(centre, [[130 + 20 * 233.333 / 250, 180]] * 4, atol=1e-3)
    frames = plain(0, 4, 128)
    frames[:, 88:92, 72:76] = 255  # at (74, 90) of 128 pixels: (148, 180) of 256
    views = strips.mouths(frames, centre, mouth)
    y, x = np.argwhere(views[0, ..., 0] > 200).mean(0) / strips.TILE
    assert abs(x - 0.5) < 0.03 and abs(y - 0.5) < 0.03


def test_a_mouth_at_the_edge_stays_inside_the_frame():
    mouth = np.tile(np.float32([250, 250, 40, 5]), (2, 1))
    views = strips.mouths(plain(77, 2, 128), np.float32([[250, 250], [-10, 5]]), mouth)
    assert views.shape == (2, strips.TILE, strips.TILE, 3) and (views == 77).all()


# ---- head motion in one dimension


def along(direction: np.ndarray, curve: np.ndarray) -> np.ndarray:
    return RELEASED_RANGE.denormalise(curve[:, None] * direction)


def test_principal_motion_recovers_a_known_curve():
    curve = np.sin(np.arange(100) / 7)
    direction = np.array([0.6, 0, 0, -0.8, 0, 0])
    across = np.array([0.8, 0, 0, 0.6, 0, 0])
    curves, share = figures.in_one_dimension(
        {TRUTH: along(direction, curve), "full": along(direction, 0.5 * curve), "l1": along(across, curve)},
        RELEASED_RANGE,
    )
    assert share > 0.999
    np.testing.assert_allclose(curves[TRUTH], -(curve - curve.mean()), atol=1e-4)  # the largest part, tx, is positive
    np.testing.assert_allclose(curves["full"], -(0.5 * curve - curve.mean()), atol=1e-4)
    assert np.ptp(curves["l1"]) < 1e-4  # what moves across the truth's direction shows nothing


def test_principal_motion_is_fitted_on_the_truth_alone():
    curve = np.sin(np.arange(50) / 5)
    true = along(np.array([1.0, 0, 0, 0, 0, 0]), curve)
    alone, _ = figures.in_one_dimension({TRUTH: true}, RELEASED_RANGE)
    wild = along(np.array([0, 1.0, 0, 0, 0, 0]), 50 * curve)
    with_wild, _ = figures.in_one_dimension({TRUTH: true, "full": wild}, RELEASED_RANGE)
    np.testing.assert_array_equal(alone[TRUTH], with_wild[TRUTH])


def test_liveliest_second():
    curve = np.zeros(100)
    curve[60:80] = np.sin(np.arange(20))
    start, stop = figures.liveliest(curve)
    assert stop - start == 25 and start <= 60 and stop >= 80
    assert figures.liveliest(np.arange(10.0)) == (0, 10)
    assert figures.liveliest(np.zeros(1)) == (0, 1)


def test_variants_that_move_alike_share_a_panel():
    a, b = np.arange(5.0), np.ones(5)
    names = [names for names, _ in figures._different({TRUTH: a, "full": b, "gt-head": a, "one-stage": b})]
    assert names == [[TRUTH, "gt-head"], ["full", "one-stage"]]
    one, two = (figures.plot_curves(curves, 0.5, np.zeros(5)) for curves in ({TRUTH: a, "l1": a}, {TRUTH: a, "l1": b}))
    assert one.shape[0] < two.shape[0] and one.shape[1] == two.shape[1] == figures.PLOT_WIDTH


def test_mouths_are_ordered_by_the_true_opening():
    views = {"full": np.stack([np.full((192, 192, 3), 20 + 20 * t, np.uint8) for t in range(6)])}
    picture = figures.fig8(views, np.array([3.0, 1, np.nan, 5, 2, 4]), columns=3)
    columns = picture[-40, -3 * (192 + strips.GAP) :: 192 + strips.GAP, 0]  # below the row's name
    assert columns.tolist() == [40, 20, 80]  # frames 1 (closed), 0 and 3 (widest); never frame 2


def test_difference_rows_tell_their_mean(monkeypatch):
    named = {}
    monkeypatch.setattr(figures, "strips", lambda rows, headings: named.update(rows))
    figures.fig10({"full": np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in (0, 4, 10)])}, gain=8)
    assert list(named) == ["full\nmean 5.00"]
    assert named["full\nmean 5.00"][:, 0, 0, 0].tolist() == [32, 48]


# ---- the command's parts


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


def test_all_figures_of_a_whole_evaluation(corpus, tmp_path):
    clip = load_manifest(corpus)[0]
    evaluate(tmp_path, clip, ("full", "no-jacobian", "one-stage"), ("full", "l1", "no-set"))
    (tmp_path / "out").mkdir()
    evaluated = figures.read_clip(tmp_path, clip)
    sentences = list(figures.draw_clip(evaluated, load_pose_range(corpus), tmp_path / "out"))
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
    sentences = list(figures.draw_clip(figures.read_clip(tmp_path, clip), load_pose_range(corpus), tmp_path / "out"))
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
        figures.read_clip(tmp_path, second)
    assert [clip.row.id for clip in figures.chosen_clips(corpus, None, tmp_path)] == [first.row.id]
    with pytest.raises(EvaluationError, match=r"--clips nobody: not in"):
        figures.chosen_clips(corpus, ["nobody"], tmp_path)


def test_identities_with_one_audio(corpus, tmp_path, small_weights):
    from engine.checkpoint import save_weights

    save_weights(tmp_path / "small.safetensors", small_weights(64))
    clips = figures.one_of_each(load_manifest(corpus), 2)
    assert len({clip.row.identity for clip in clips}) == 2
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "somebody.mp4").touch()  # of an earlier run
    videos = figures.speak_alike([tmp_path / "small.safetensors"], clips, clips[0].folder / "audio.wav", folder, "cpu")
    assert list(figures.draw_identities(videos, tmp_path)) == [str(tmp_path / "fig6.png"), str(tmp_path / "fig6.mp4")]
    assert len(list(frames_of(tmp_path / "fig6.mp4"))) == clips[0].frames
    picture = read_image(tmp_path / "fig6.png")
    assert picture.shape[0] > 2 * 192 and picture.shape[1] > 9 * 192  # two rows; the reference and eight frames
