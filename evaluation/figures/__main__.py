"""The paper's figures (Figs. 5-10) from what evaluate.py leaves.

    python -m evaluation.figures --evaluation results/evaluation --data data/vox --output results/figures
    python -m evaluation.figures --data data/vox --checkpoint FOMM HEADPOSE MOTION --identities 4 --output results/figures
    python -m evaluation.figures --same-audio DIR --output results/figures      # Fig. 6 from DIR/IDENTITY.mp4

The first command draws for each chosen clip, where the variants it needs have been evaluated:

    fig5_CLIP.png .mp4    truth and variants at equally spaced times; side by side with sound
    fig7_CLIP.png         head motion in one dimension; frames of the second in which the true head moves most
    fig8_CLIP.png .mp4    mouths with and without Jacobians, from closed to widest in the true video
    fig9_CLIP.png         head motion of the head motion predictor's ablations
    fig10_CLIP.png .mp4   differences of consecutive frames, amplified

The second and third draw fig6.png and .mp4: several identities speak one clip's sound. Pictures and videos are marked as
synthetic. Long clips are drawn as far as MAX_FRAMES.

Letters: T video frame (25 fps), P pose value (rad, mm), H W C picture (RGB, uint8).
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from animation.generate import Animator, Job
from animation.models import load_models
from animation.options import AnimationOptions, OptionError
from datasets.clips import Clip, load_manifest, load_pose_range
from datasets.errors import DataError
from datasets.files import read_npz
from datasets.media.image import write_png
from datasets.media.streams import FPS
from datasets.media.video_writer import VideoWriter
from datasets.pose import PoseRange
from datasets.provenance import png_marks
from engine.checkpoint import CheckpointError
from engine.command import clean_exit
from engine.config import ConfigError
from evaluation import EvaluationError
from evaluation.figures.strips import (
    differences,
    equally_spaced,
    mouth_centres,
    mouths,
    side_by_side,
    stacked,
    strips,
)
from evaluation.rows import RowName
from evaluation.scores.motion_error import loudness
from evaluation.videos.truth import read_video

TRUTH = "truth"
VARIANTS: tuple[str, ...] = get_args(RowName)
MAX_FRAMES = 250  # of a clip that are drawn: ten seconds, so that eleven variants fit into a GB
COLUMNS = 8  # frames in a strip
CLIPS = 3  # drawn when none is named
GAIN = 8  # Fig. 10: how much differences of frames are amplified
BOX_S = 1.0  # Fig. 7: the time from which frames are shown
PLOT_DPI, PLOT_WIDTH = 110, 1400  # pixels
COLOURS = dict(zip(VARIANTS, ("C0", "C2", "C9", "C3", "C4", "C1", "C5", "C6", "C8", "navy", "olive"), strict=True))


@dataclass(frozen=True)
class Evaluated:
    """One clip as it was filmed and as the variants made it; all cut to T frames.

    Attributes:
        frames: variant -> [T, H, W, 3], the truth first.
        poses: variant -> [T, 6] rad and mm, the truth first.
        mouth_T4: true mouths of `Clip.mouth`.
        loudness_T: of the sound, dB of full scale.
        notes: what the reader should know, a sentence each.
    """

    clip: Clip
    frames: dict[str, np.ndarray]
    poses: dict[str, np.ndarray]
    mouth_T4: np.ndarray
    loudness_T: np.ndarray
    notes: tuple[str, ...]


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
        opening_T: of the true mouth, any unit, NaN where unknown: these frames are not shown, unless it is known nowhere.
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


# ---- head motion in one dimension


def in_one_dimension(poses: Mapping[str, np.ndarray], pose_range: PoseRange) -> tuple[dict[str, np.ndarray], float]:
    """Head motions along the direction in which the true head moves most (Sec. 5.3: "by PCA").

    The paper does not say how rad and mm were weighed; here each axis is scaled by the corpus's range, as the networks
    see it. The direction and the origin are the truth's alone, and the direction's largest part is positive.

    Args:
        poses: name -> [T, 6] rad and mm, with TRUTH.

    Returns: name -> [T] in units of half a pose range; the share of the truth's variance along this direction.
    """
    scaled = {name: pose_range.normalise(pose_TP).astype(np.float64) for name, pose_TP in poses.items()}
    mean_P = scaled[TRUTH].mean(0)
    _, strength, directions = np.linalg.svd(scaled[TRUTH] - mean_P, full_matrices=False)
    direction_P = directions[0] * np.sign(directions[0][np.abs(directions[0]).argmax()])
    share = float(strength[0] ** 2 / max((strength**2).sum(), 1e-12))
    return {name: (pose_TP - mean_P) @ direction_P for name, pose_TP in scaled.items()}, share


def liveliest(curve_T: np.ndarray) -> tuple[int, int]:
    """First and last + 1 frame of the second in which a curve covers the most distance; all of a shorter one."""
    length = min(round(BOX_S * FPS), len(curve_T))
    steps_T = np.abs(np.diff(curve_T))
    covered = np.convolve(steps_T, np.ones(max(1, length - 1)), "valid") if len(steps_T) else np.zeros(1)
    start = int(covered.argmax())
    return start, start + length


def plot_curves(
    curves: Mapping[str, np.ndarray],
    share: float,
    loudness_T: np.ndarray,
    box: tuple[int, int] | None = None,
    width: int = PLOT_WIDTH,
) -> np.ndarray:
    """A panel for each different motion with the truth in grey behind it, at the top the sound's level -> [H, W, 3].

    Variants that move alike (those that share head poses) share a panel, whose title names them all.

    Args:
        curves: name -> [T], with TRUTH. box: frames to be marked. width: of the picture, pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _different(curves)
    figure = Figure(figsize=(width / PLOT_DPI, 1.5 + 1.7 * len(panels)), dpi=PLOT_DPI, layout="constrained")
    figure.suptitle(f"Head motion along the true motion's first principal component ({share:.0%} of its variance)")
    plots = figure.subplots(len(panels) + 1, sharex=True, height_ratios=[0.6] + [1] * len(panels))
    time_T = np.arange(len(loudness_T)) / FPS
    plots[0].fill_between(time_T, loudness_T, loudness_T.min(), color="0.6", linewidth=0)
    plots[0].set_ylabel("sound, dB")
    for plot, (names, curve_T) in zip(plots[1:], panels, strict=True):
        true = TRUTH in names
        if not true:
            plot.plot(time_T, curves[TRUTH], color="0.6", linewidth=1.4)
        colour = "black" if true else COLOURS.get(names[0], "C0")
        plot.plot(time_T, curve_T, color=colour, linewidth=2)
        plot.set_title(" = ".join(names) + ("" if true else "   (grey: truth)"), loc="left", color=colour)
        plot.set_ylabel("scaled pose")
        plot.sharey(plots[1])
    if box is not None:
        for plot in plots:
            plot.axvspan(box[0] / FPS, (box[1] - 1) / FPS, color="tab:blue", alpha=0.15, linewidth=0)
    plots[-1].set_xlabel("time, s")
    plots[-1].set_xlim(0, max(time_T[-1], 1 / FPS))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _different(curves: Mapping[str, np.ndarray]) -> list[tuple[list[str], np.ndarray]]:
    """Names that share one curve, and that curve, in the order given."""
    groups: list[tuple[list[str], np.ndarray]] = []
    for name, curve_T in curves.items():
        for names, other_T in groups:
            if np.allclose(curve_T, other_T, atol=1e-4):
                names.append(name)
                break
        else:
            groups.append(([name], curve_T))
    return groups


# ---- reading and writing


def read_clip(evaluation: Path, clip: Clip, variants: Iterable[str] = VARIANTS) -> Evaluated:
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
    lengths = {name: len(found) for found in (poses, videos) for name, found in found.items()}
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

    yield from _missing("fig8", clip, ("full", "no-jacobian"), frames)
    if {"full", "no-jacobian"} <= frames.keys():
        views = {name: enlarged_mouths(evaluated, name) for name in (TRUTH, "full", "no-jacobian")}
        yield picture("fig8", fig8(views, evaluated.mouth_T4[:, 3]))
        yield video("fig8", views)

    ablations = {name: poses[name] for name in (TRUTH, "full", "l1", "no-set") if name in poses}
    yield from _missing("fig9", clip, ("full", "l1", "no-set"), poses)
    if {"l1", "no-set"} & ablations.keys():
        yield picture("fig9", fig9(ablations, evaluated.loudness_T, pose_range))

    compared = {name: frames[name] for name in (TRUTH, "one-stage", "full") if name in frames}
    yield from _missing("fig10", clip, ("one-stage", "full"), frames)
    if {"one-stage", "full"} <= compared.keys() and _length(compared) > 1:
        yield picture("fig10", fig10(compared))
        yield video("fig10", {f"{name}, x{GAIN}": differences(found, GAIN) for name, found in compared.items()})


def _missing(figure: str, clip: Clip, wanted: tuple[str, ...], found: Mapping[str, np.ndarray]) -> Iterator[str]:
    missing = [name for name in wanted if name not in found]
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


# ---- several identities with one audio


def speak_alike(checkpoints: list[Path], sources: list[Clip], sound: Path, folder: Path, device: str) -> list[Path]:
    """Make folder/IDENTITY.mp4, and the .png it starts from, of the first frame of each clip with one sound.

    Returns: the videos.

    Raises:
        CheckpointError, DataError, OptionError: as inference.py.
    """
    options = AnimationOptions(device=device, crop="none")
    animator = Animator(load_models(checkpoints, options.chosen_device()), options)
    folder.mkdir(parents=True, exist_ok=True)
    videos = [folder / f"{clip.row.identity}.mp4" for clip in sources]
    for clip, video in zip(sources, videos, strict=True):
        write_png(video.with_suffix(".png"), clip.read_frames([0])[0])
        animator.animate(Job(video.with_suffix(".png"), video, sound))
    return videos


def draw_identities(paths: list[Path], output: Path) -> Iterator[str]:
    """Write Fig. 6 from videos IDENTITY.mp4, which have one sound, and the references IDENTITY.png beside them, if any."""
    from datasets.media.image import read_image, resize_square

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


def one_of_each(clips: list[Clip], count: int) -> list[Clip]:
    """The first clip of up to `count` identities, those outside the training split first."""
    firsts: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: clip.row.split == "train"):
        firsts.setdefault(clip.row.identity, clip)
    return list(firsts.values())[:count]


# ---- the command


def _length(frames: Mapping[str, np.ndarray]) -> int:
    return min(len(video) for video in frames.values())


def _times(at: np.ndarray) -> list[str]:
    return [f"{t / FPS:.2f} s" for t in at]


def chosen_clips(data: Path, names: list[str] | None, evaluation: Path | None) -> list[Clip]:
    """The named clips; or those of up to CLIPS identities, of what was evaluated.

    Raises:
        EvaluationError: a clip is not in the corpus, or nothing was evaluated.
    """
    clips = {clip.row.id: clip for clip in load_manifest(data)}
    if names is not None:
        unknown = [name for name in names if name not in clips]
        if unknown:
            raise EvaluationError(f"--clips {' '.join(unknown)}: not in {data}; see its manifest.csv for ids")
        return [clips[name] for name in names]
    if evaluation is None:
        return one_of_each(list(clips.values()), CLIPS)
    made = [*evaluation.glob("videos/*/*.mp4"), *evaluation.glob("motion/*/*.npz")]
    evaluated = [clips[name] for name in sorted({path.stem for path in made}) if name in clips]
    if not evaluated:
        raise EvaluationError(
            f"{evaluation} holds no videos/VARIANT/CLIP.mp4 of a clip of {data}; run evaluate.py first, on this corpus"
        )
    return one_of_each(evaluated, CLIPS)


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(DataError, EvaluationError, CheckpointError, ConfigError, OptionError):
        arguments.output.mkdir(parents=True, exist_ok=True)
        if arguments.evaluation is not None:
            pose_range = load_pose_range(arguments.data)
            for clip in chosen_clips(arguments.data, arguments.clips, arguments.evaluation):
                evaluated = read_clip(arguments.evaluation, clip, arguments.variants)
                for sentence in draw_clip(evaluated, pose_range, arguments.output):
                    print(sentence, flush=True)
        identities = videos_in(arguments.same_audio) if arguments.same_audio is not None else []
        if arguments.checkpoint is not None:
            heard = chosen_clips(arguments.data, arguments.clips, arguments.evaluation)[0]
            sources = one_of_each(load_manifest(arguments.data), arguments.identities)
            sound, folder = heard.folder / "audio.wav", arguments.output / "fig6"
            identities = speak_alike(arguments.checkpoint, sources, sound, folder, arguments.device)
        if identities:
            for sentence in draw_identities(identities, arguments.output):
                print(sentence, flush=True)


def videos_in(folder: Path) -> list[Path]:
    """Raises EvaluationError if there are none."""
    paths = sorted(folder.glob("*.mp4"))
    if not paths:
        raise EvaluationError(f"{folder} holds no IDENTITY.mp4; make some with inference.py, all with one --audio")
    return paths


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--evaluation", type=Path, help="the --output of evaluate.py")
    parser.add_argument("--data", type=Path, help="the prepared corpus that was evaluated")
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--clips", nargs="+", metavar="ID", help=f"default: one clip each of {CLIPS} identities")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="default: all that are there")
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="weights as for inference.py: make and draw Fig. 6")
    parser.add_argument("--identities", type=int, default=4, help="rows of Fig. 6, held-out ones first (default 4)")
    parser.add_argument("--device", default="auto", help="for --checkpoint: auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--same-audio", type=Path, metavar="DIR", help="IDENTITY.mp4 with one sound: draw Fig. 6")
    arguments = parser.parse_args()
    if not (arguments.evaluation or arguments.checkpoint or arguments.same_audio):
        parser.error("give --evaluation, --checkpoint or --same-audio")
    if (arguments.evaluation or arguments.checkpoint) and arguments.data is None:
        parser.error("--evaluation and --checkpoint need --data, the prepared corpus")
    if arguments.checkpoint and arguments.same_audio:
        parser.error("--checkpoint makes the videos of Fig. 6, --same-audio names those made before; give one")
    if arguments.identities < 1:
        parser.error("--identities must be at least 1")
    return arguments


if __name__ == "__main__":
    main()
