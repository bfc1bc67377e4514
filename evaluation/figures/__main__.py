"""The paper's figures (Figs. 5-10) from what evaluate.py leaves.

    python -m evaluation.figures --evaluation results/vox --data data/vox --output results/figures
    python -m evaluation.figures --checkpoint FOMM HEADPOSE MOTION --data data/vox --output results/figures
    python -m evaluation.figures --same-audio DIR --output results/figures      # Fig. 6 from DIR/IDENTITY.mp4

The first command draws for each chosen clip, where the variants it needs have been evaluated:

    fig5_CLIP.png .mp4    truth and variants at equally spaced times; side by side with sound
    fig7_CLIP.png         head motion in one dimension; frames of the second in which the true head moves most
    fig8_CLIP.png .mp4    mouths with and without Jacobians, from closed to widest in the true video
    fig9_CLIP.png         head motion of the head motion predictor's ablations
    fig10_CLIP.png .mp4   differences of consecutive frames, amplified

The second and third draw fig6.png and .mp4: several identities speak one clip's sound. All pictures and videos are
marked as synthetic. Of long clips the first ten seconds are drawn.
"""

import argparse
from pathlib import Path

from animation.generate import Animator
from animation.job import Job
from animation.models import load_models
from animation.options import AnimationOptions, OptionError
from datasets.clips import Clip, load_manifest, load_pose_range
from datasets.errors import DataError
from datasets.files import make_folder
from datasets.media.image import write_png
from engine.checkpoint import CheckpointError
from engine.command import clean_exit
from engine.config import ConfigError
from evaluation import EvaluationError
from evaluation.figures.draw import draw_clip, draw_identities, read_clip
from evaluation.rows import ROWS

CLIPS = 3  # drawn when none is named
IDENTITIES = 4  # rows of Fig. 6 when no other number is asked for
COUNTS_WITH = {  # option -> those of which one must be given, or it would be ignored
    "data": ("evaluation", "checkpoint"),
    "clips": ("evaluation", "checkpoint"),
    "variants": ("evaluation",),
    "identities": ("checkpoint",),
    "device": ("checkpoint",),
}


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(DataError, EvaluationError, CheckpointError, ConfigError, OptionError):
        make_folder(arguments.output)
        if arguments.evaluation is not None:
            pose_range = load_pose_range(arguments.data)
            for clip in chosen_clips(arguments.data, arguments.clips, arguments.evaluation):
                evaluated = read_clip(arguments.evaluation, clip, arguments.variants or tuple(ROWS))
                for sentence in draw_clip(evaluated, pose_range, arguments.output):
                    print(sentence, flush=True)
        identities = videos_in(arguments.same_audio) if arguments.same_audio is not None else []
        if arguments.checkpoint is not None:
            heard = chosen_clips(arguments.data, arguments.clips, arguments.evaluation)[0]
            sources = one_of_each(load_manifest(arguments.data), arguments.identities or IDENTITIES)
            sound, folder = heard.folder / "audio.wav", arguments.output / "fig6"
            identities = speak_alike(arguments.checkpoint, sources, sound, folder, arguments.device or "auto")
        if identities:
            for sentence in draw_identities(identities, arguments.output):
                print(sentence, flush=True)


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


def one_of_each(clips: list[Clip], count: int) -> list[Clip]:
    """The first clip of up to `count` identities, those outside the training split first."""
    firsts: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: clip.row.split == "train"):
        firsts.setdefault(clip.row.identity, clip)
    return list(firsts.values())[:count]


def speak_alike(checkpoints: list[Path], sources: list[Clip], sound: Path, folder: Path, device: str) -> list[Path]:
    """Make folder/IDENTITY.mp4, and the .png it starts from, of the first frame of each clip with one sound.

    Returns: the videos.

    Raises:
        CheckpointError, DataError, OptionError: as inference.py.
    """
    options = AnimationOptions(device=device, crop="none", size="native")
    animator = Animator(load_models(checkpoints, options.chosen_device()), options)
    make_folder(folder)
    videos = [folder / f"{clip.row.identity}.mp4" for clip in sources]
    for clip, video in zip(sources, videos, strict=True):
        write_png(video.with_suffix(".png"), clip.read_frames([0])[0])
        animator.animate(Job(video.with_suffix(".png"), video, sound))
    return videos


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
    parser.add_argument("--variants", nargs="+", choices=tuple(ROWS), help="default: all that are there")
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="weights as for inference.py: make and draw Fig. 6")
    parser.add_argument(
        "--identities", type=int, help=f"for --checkpoint: rows of Fig. 6, held-out ones first (default {IDENTITIES})"
    )
    parser.add_argument("--device", help="for --checkpoint: auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--same-audio", type=Path, metavar="DIR", help="IDENTITY.mp4 with one sound: draw Fig. 6")
    arguments = parser.parse_args()
    if not (arguments.evaluation or arguments.checkpoint or arguments.same_audio):
        parser.error("give --evaluation, --checkpoint or --same-audio")
    if (arguments.evaluation or arguments.checkpoint) and arguments.data is None:
        parser.error("--evaluation and --checkpoint need --data, the prepared corpus")
    if arguments.checkpoint and arguments.same_audio:
        parser.error("--checkpoint makes the videos of Fig. 6, --same-audio names those made before; give one")
    if arguments.same_audio and arguments.output.resolve() == arguments.same_audio.resolve():
        parser.error("--output is --same-audio, where fig6.mp4 would count as an identity; name another")
    for name, others in COUNTS_WITH.items():
        if getattr(arguments, name) is not None and not any(getattr(arguments, other) for other in others):
            needed = " or ".join(f"--{other}" for other in others)
            parser.error(f"--{name} counts only with {needed}; give it too, or leave --{name} out")
    if arguments.identities is not None and arguments.identities < 1:
        parser.error("--identities must be at least 1")
    return arguments


if __name__ == "__main__":
    main()
