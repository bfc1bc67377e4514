"""The figures of one evaluated clip, and of several identities with one sound: drawn, written, marked as synthetic.

Letters: T video frame (25 fps), P pose value (rad, mm), H W C picture (RGB, uint8).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.clips import Clip
from datasets.files import read_npz
from datasets.media.image import read_image, resize_square, write_png
from datasets.media.streams import FPS
from datasets.media.video_writer import VideoWriter
from datasets.pose import PoseRange
from datasets.provenance import png_marks
from evaluation import EvaluationError
from evaluation.figures.curves import TRUTH, in_one_dimension, liveliest, plot_curves
from evaluation.figures.strips import (
    differences,
    equally_spaced,
    mouth_centres,
    mouths,
    side_by_side,
    stacked,
    strips,
)
from evaluation.rows import ROWS
from evaluation.scores.liveliness import loudness
from evaluation.videos.truth import read_video

MAX_FRAMES = 250  # of a clip that are drawn: ten seconds, so that eleven variants fit into a GB
COLUMNS = 8  # frames in a strip
GAIN = 8  # Fig. 10: how much differences of frames are amplified
COMPARED = {  # figure -> the rows that the paper compares in it, beside the truth
    "fig8": ("full", "no-jacobian"),
    "fig9": ("full", "l1", "no-set"),
    "fig10": ("one-stage", "full"),
}


@dataclass(frozen=True)
class Evaluated:
    """One clip as it was filmed and as the variants made it; all cut to T frames."""

    clip: Clip
    frames: dict[str, np.ndarray]  # variant -> [T, H, W, 3], the truth first
    poses: dict[str, np.ndarray]  # variant -> [T, 6] rad and mm, the truth first
    mouth_T4: np.ndarray  # true mouths of `Clip.mouth`
    loudness_T: np.ndarray  # of the sound, dB of full scale
    notes: tuple[str, ...]  # what the reader should know, a sentence each


# ---- the figures


def fig5(frames: Mapping[str, np.ndarray], columns: int = COLUMNS) -> np.ndarray:
    """Comparison strips (Fig. 5): one row for each entry [T, H, W, 3], equally spaced frames -> [H, W, 3]."""
    at = equally_spaced(_length(frames), columns)
    return strips({name: video[at] for name, video in frames.items()}, _times(at))


def fig6(references: Mapping[str, np.ndarray], frames: Mapping[str, np.ndarray], columns: int = COLUMNS) -> np.ndarray:
    """Several identities with one audio (Fig. 6): the reference picture [H, W, 3], then equally spaced frames."""
    at = equally_spaced(_length(frames), columns)
    rows = {name: np.concatenate([references[name][None], video[at]]) for name, video in frames.items()}
    return strips(rows, ["reference", *_times(at)])


def fig7(
    poses: Mapping[str, np.ndarray],
    loudness_T: np.ndarray,
    pose_range: PoseRange,
    frames: Mapping[str, np.ndarray],
    columns: int = COLUMNS,
) -> np.ndarray:
    """Head motion in one dimension (Fig. 7), below it frames of the second in which the true head moves most.

    Args:
        poses: name -> [T, 6] rad and mm, with TRUTH. frames: name -> [T, H, W, 3] of what is shown below.
    """
    curves, share = in_one_dimension(poses, pose_range)
    start, stop = liveliest(curves[TRUTH])
    if not frames:
        return plot_curves(curves, share, loudness_T, (start, stop))
    at = start + equally_spaced(stop - start, columns)
    shown_HWC = strips({name: video[at] for name, video in frames.items()}, _times(at))
    return stacked([plot_curves(curves, share, loudness_T, (start, stop), shown_HWC.shape[1]), shown_HWC])


def fig8(views: Mapping[str, np.ndarray], opening_T: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Enlarged mouths [T, H, W, 3] with and without Jacobians (Fig. 8), ordered by the opening of the true mouth.

    Args:
        opening_T: of the true mouth, in any unit. Frames where it is NaN are not shown, unless it is NaN everywhere.
    """
    order = np.argsort(opening_T)[: np.isfinite(opening_T).sum()]
    if len(order) == 0:
        order = np.arange(len(opening_T))
    at = order[equally_spaced(len(order), columns)]
    headings = _times(at)
    if np.isfinite(opening_T).any():
        headings[0] += " (closed)"
        headings[-1] += " (widest)"
    return strips({name: view[at] for name, view in views.items()}, headings)


def fig9(poses: Mapping[str, np.ndarray], loudness_T: np.ndarray, pose_range: PoseRange) -> np.ndarray:
    """Ablations of the head motion predictor (Fig. 9): poses with TRUTH -> curves in one dimension."""
    return plot_curves(*in_one_dimension(poses, pose_range), loudness_T)


def fig10(frames: Mapping[str, np.ndarray], gain: float = GAIN, columns: int = COLUMNS) -> np.ndarray:
    """Differences of consecutive frames (Fig. 10), amplified; a row's name tells its mean difference, of 255."""
    at = equally_spaced(_length(frames) - 1, columns)
    rows = {}
    for name, video in frames.items():
        shown = differences(video, 1).mean()
        rows[f"{name}\nmean {shown:.2f}"] = np.stack([differences(video[t : t + 2], gain)[0] for t in at])
    return strips(rows, [f"{t / FPS:.2f} s  x{gain:g}" for t in at])


def _length(frames: Mapping[str, np.ndarray]) -> int:
    return min(len(video) for video in frames.values())


def _times(at: np.ndarray) -> list[str]:
    return [f"{t / FPS:.2f} s" for t in at]


# ---- reading and writing


def read_clip(evaluation: Path, clip: Clip, variants: Iterable[str] = tuple(ROWS)) -> Evaluated:
    """What was evaluated of one clip, cut to the shortest video or motion and to MAX_FRAMES.

    Raises:
        DataError: a file cannot be read. EvaluationError: nothing of this clip is there.
    """
    length = min(clip.frames, MAX_FRAMES)
    videos, poses, size = {}, {}, None
    for variant in variants:
        path = evaluation / "videos" / variant / f"{clip.row.id}.mp4"
        if path.is_file():
            videos[variant] = read_video(path, size)[:length]
            size = videos[variant].shape[2]
        path = evaluation / "motion" / variant / f"{clip.row.id}.npz"
        if path.is_file() and "head_pose" in (arrays := read_npz(path, "motion")):
            poses[variant] = arrays["head_pose"]
    if not videos and not poses:
        raise EvaluationError(
            f"{evaluation} holds neither videos/VARIANT/{clip.row.id}.mp4 nor motion/VARIANT/{clip.row.id}.npz; "
            "evaluate this clip with evaluate.py, or name another with --clips"
        )
    lengths = {name: len(array) for arrays in (poses, videos) for name, array in arrays.items()}
    shortest = min(lengths, key=lengths.__getitem__)
    notes = []
    if lengths[shortest] < length:
        length = lengths[shortest]
        notes.append(f"{clip.row.id}: drawn as far as {shortest} goes, {length} of {clip.frames} frames")
    elif length < clip.frames:
        notes.append(f"{clip.row.id}: the first {length} of {clip.frames} frames are drawn")
    truth_THWC = clip.read_frames(range(length), size)
    return Evaluated(
        clip=clip,
        frames={TRUTH: truth_THWC} | {name: video[:length] for name, video in videos.items()},
        poses={TRUTH: clip.pose()[:length]} | {name: pose[:length] for name, pose in poses.items()},
        mouth_T4=clip.mouth()[:length],
        loudness_T=loudness(clip.pcm(), length),
        notes=tuple(notes),
    )


def draw_clip(evaluated: Evaluated, pose_range: PoseRange, output: Path) -> Iterator[str]:
    """Write every figure that can be drawn of a clip; yields a sentence for each file and for what is missing."""
    clip, frames, poses = evaluated.clip, evaluated.frames, evaluated.poses
    sound = clip.folder / "audio.wav"
    yield from evaluated.notes

    def picture(figure: str, image_HWC: np.ndarray) -> str:
        path = output / f"{figure}_{clip.row.id}.png"
        write_png(path, image_HWC, png_marks())
        return str(path)

    def video(figure: str, tiles: Mapping[str, np.ndarray]) -> str:
        return write_side_by_side(output / f"{figure}_{clip.row.id}.mp4", tiles, sound)

    if len(frames) > 1:
        yield picture("fig5", fig5(frames))
        yield video("fig5", frames)
    else:
        yield f"fig5 of {clip.row.id} not drawn: no variant has a video"

    if len(poses) > 1:
        shown = {name: frames[name] for name in (TRUTH, "full") if name in frames}
        yield picture("fig7", fig7(poses, evaluated.loudness_T, pose_range, shown))
    else:
        yield f"fig7 of {clip.row.id} not drawn: no variant has head poses"

    yield from _missing("fig8", clip, frames)
    if set(COMPARED["fig8"]) <= frames.keys():
        views = {name: enlarged_mouths(evaluated, name) for name in (TRUTH, *COMPARED["fig8"])}
        yield picture("fig8", fig8(views, evaluated.mouth_T4[:, 3]))
        yield video("fig8", views)

    yield from _missing("fig9", clip, poses)
    full, *ablations = COMPARED["fig9"]
    if poses.keys() & set(ablations):
        moved = {name: poses[name] for name in (TRUTH, full, *ablations) if name in poses}
        yield picture("fig9", fig9(moved, evaluated.loudness_T, pose_range))

    yield from _missing("fig10", clip, frames)
    if set(COMPARED["fig10"]) <= frames.keys():
        compared = {name: frames[name] for name in (TRUTH, *COMPARED["fig10"])}
        if _length(compared) > 1:
            yield picture("fig10", fig10(compared))
            yield video("fig10", {f"{name}, x{GAIN}": differences(shown, GAIN) for name, shown in compared.items()})


def _missing(figure: str, clip: Clip, variants: Mapping[str, np.ndarray]) -> Iterator[str]:
    missing = [name for name in COMPARED[figure] if name not in variants]
    if missing:
        yield f"{figure} of {clip.row.id}: {' and '.join(missing)} missing"


def enlarged_mouths(evaluated: Evaluated, variant: str) -> np.ndarray:
    """The mouth of each frame of a variant, [T, TILE, TILE, 3]."""
    true_TP = evaluated.poses[TRUTH]
    centre_T2 = mouth_centres(evaluated.mouth_T4, true_TP, evaluated.poses.get(variant, true_TP))
    return mouths(evaluated.frames[variant], centre_T2, evaluated.mouth_T4)


def write_side_by_side(path: Path, tiles: Mapping[str, np.ndarray], sound: Path) -> str:
    """A marked video of named tiles [T, H, W, 3] with the sound of a file; returns its name."""
    with VideoWriter(path, sound=sound) as writer:
        for batch_NHWC in side_by_side(tiles):
            writer.write(batch_NHWC)
    return str(path)


def draw_identities(paths: list[Path], output: Path) -> Iterator[str]:
    """Write Fig. 6 from videos IDENTITY.mp4, all with one sound, and references IDENTITY.png beside them, if any."""
    size, frames, references = None, {}, {}
    for path in paths:
        frames[path.stem] = read_video(path, size)[:MAX_FRAMES]
        size = frames[path.stem].shape[2]
        image = path.with_suffix(".png")
        references[path.stem] = resize_square(read_image(image), size) if image.is_file() else frames[path.stem][0]
    length = _length(frames)
    frames = {name: video[:length] for name, video in frames.items()}
    write_png(output / "fig6.png", fig6(references, frames), png_marks())
    yield str(output / "fig6.png")
    yield write_side_by_side(output / "fig6.mp4", frames, paths[0])
