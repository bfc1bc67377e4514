"""Measure Audio2Head, or any other system's videos, by one documented protocol (docs/EVALUATION.md).

    python evaluate.py --config config/evaluate_grid.yaml --checkpoint runs/fomm runs/head runs/field \\
        --data data/grid --output results/grid
    python evaluate.py --generated VIDEOS --reference data/grid --output results/others    # or --reference VIDEOS
    torchrun --nproc_per_node 4 evaluate.py ...                                            # the clips shared among GPUs

The first form makes every clip of the split from its first frame and sound, with the variants of Table 2 and Sec. 5.4
and with floors that any claim must beat. The second matches files by stem. The same command continues after an
interruption.

    OUTPUT/results.md, results.json, plots/      tables, every number, distributions over clips
    OUTPUT/videos/ROW/CLIP.mp4, motion/ROW/CLIP.npz
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from animation.models import check_carried
from animation.options import AnimationOptions, OptionError
from animation.weights import TRAINED_BY, read_weights
from datasets.clips import MANIFEST, Clip, load_manifest, load_pose_range
from datasets.errors import DataError
from datasets.face import mesh
from datasets.face.mesh import EstimatorError
from datasets.files import make_folder
from datasets.pose import RELEASED_RANGE, PoseRange
from datasets.synthetic import SyntheticConfig, make_if_absent
from engine.checkpoint import CheckpointError
from engine.command import LOCK, Place, clean_exit, from_torchrun, only_one
from engine.config import ConfigError, CountOrNone, load, to_dict
from evaluation import EvaluationError
from evaluation.protocol import Evaluation, Videos
from evaluation.report import BootstrapConfig, summarise, write_reports
from evaluation.rows import FOR_GIVEN, GIVEN, ROWS, TRUTH, Row, RowName, VariantPaths
from evaluation.scores.networks import NetworkPaths, load_networks
from evaluation.store import Store
from evaluation.videos.generated import Generated
from evaluation.videos.given import Given, match, usable
from evaluation.videos.truth import Item, PreparedItem

USER_ERRORS = (CheckpointError, ConfigError, DataError, EstimatorError, EvaluationError, OptionError)
WAIT_S = 0.2  # between looks for the corpus that rank 0 draws


@dataclass(frozen=True)
class FramedOptions(AnimationOptions):
    """The options of inference.py, for clips that are framed already: no face is searched in them.

    `size` is that of the true frames that the generated ones are held against: the networks' own, or pixels.
    """

    crop: Literal["none"] = "none"
    face: Literal[0] = 0
    view: Literal["whole"] = "whole"
    background: Literal["white"] = "white"
    size: int | Literal["native"] = "native"


@dataclass(frozen=True)
class Config:
    """What is evaluated, and how."""

    split: str = "test"  # train, val or test
    max_clips: CountOrNone = 0  # at most so many, spread evenly over the manifest, sorted by speaker (0: all)
    rows: tuple[RowName, ...] = tuple(ROWS)  # of the table, beside the true videos, which are always in it
    variants: VariantPaths = VariantPaths()  # checkpoints of the ablations
    # How the videos of all rows are generated, as for inference.py: what is not said is as --checkpoint carries it.
    animation: FramedOptions = FramedOptions()
    networks: NetworkPaths = NetworkPaths()  # files of published networks that measure
    # Folder with the words of clips, SPEAKER/STEM.align as of GRID: whether lips close at p, b and m.
    alignments: str = ""
    landmarks: bool = True  # look for faces in all videos, if `make pose-tools` has been run
    bootstrap: BootstrapConfig = BootstrapConfig()
    synthetic: SyntheticConfig | None = None  # draw this corpus if --data holds none

    def __post_init__(self) -> None:
        if doubled := [row for row in self.rows if self.rows.count(row) > 1]:
            raise ValueError(f"rows names {doubled[0]} twice; name it once")


@dataclass
class Subject:
    """What is evaluated: the videos, and the clips that they are held against."""

    videos: Videos
    items: list[Item]
    rows: list[Row]  # the truth first
    missing_rows: dict[str, str]  # row -> why it is left out
    pose_range: PoseRange
    data: str  # what the data are, in words
    notes: list[str]  # what the reader should know about them, a sentence each


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(*USER_ERRORS), ExitStack() as alone:
        carried = read_weights(arguments.checkpoint, tensors=False).configs.get("animation", {})
        check_carried(carried, ", ".join(map(str, arguments.checkpoint)))
        config = load(Config, arguments.config, arguments.overrides, below={"animation": carried})
        place = from_torchrun()
        if place.rank == 0:
            alone.enter_context(only_one(make_folder(arguments.output) / LOCK, "evaluation"))
        subject = (given if arguments.generated else generated)(arguments, config, place)
        networks = load_networks(config.networks, subject.videos.device)
        look = config.landmarks and mesh.available()
        store = Store(arguments.output)
        evaluation = Evaluation(
            subject.videos, subject.rows, subject.items, networks, subject.pose_range, look, store, place
        )
        results = evaluation.run()
        if place.rank == 0:
            summaries = summarise(evaluation, results, config.bootstrap)
            write_reports(
                arguments.output, summaries, subject.missing_rows, results, facts(config, subject, evaluation)
            )
            print((arguments.output / "results.md").read_text(encoding="utf-8"))
            print(arguments.output / "results.json")


def generated(arguments: argparse.Namespace, config: Config, place: Place) -> Subject:
    """Videos to be generated from a prepared corpus."""
    draw_or_wait(arguments.data, config.synthetic, place)
    clips = load_manifest(arguments.data, config.split)
    items: list[Item] = [PreparedItem(clip, config.alignments) for clip in spread(clips, config.max_clips)]
    rows, missing_rows = choose_rows(config.rows, items, config.variants)
    videos = Generated(rows, arguments.checkpoint, config.variants, config.animation, place.local_rank)
    data = f"split {config.split} of {arguments.data}, {videos.size}x{videos.size}"
    return Subject(videos, items, rows, missing_rows, load_pose_range(arguments.data), data, [])


def given(arguments: argparse.Namespace, config: Config, place: Place) -> Subject:
    """Given videos, matched with references by stem."""
    matches = usable(match(arguments.generated, arguments.reference, config.split))
    rows, missing_rows = choose_rows(FOR_GIVEN, matches.items, config.variants)
    rows.insert(1, GIVEN)
    videos = Given(matches, arguments.checkpoint, config.animation, place.local_rank)
    prepared = (arguments.reference / MANIFEST).is_file()
    pose_range = load_pose_range(arguments.reference) if prepared else RELEASED_RANGE
    data = f"videos of {arguments.generated}, references of {arguments.reference}"
    return Subject(videos, matches.items, rows, missing_rows, pose_range, data, matches.notes())


def draw_or_wait(root: Path, synthetic: SyntheticConfig | None, place: Place) -> None:
    """Where a synthetic corpus is wanted and absent, rank 0 draws it and the other ranks wait for its manifest."""
    if place.rank == 0:
        make_if_absent(root, synthetic)
    while synthetic is not None and not (root / MANIFEST).is_file():
        time.sleep(WAIT_S)


def spread(clips: list[Clip], most: int) -> list[Clip]:
    """At most `most` clips, evenly over the list; 0: all."""
    if not most or most >= len(clips):
        return clips
    return [clips[number * len(clips) // most] for number in range(most)]


def choose_rows(names: Sequence[str], items: list[Item], variants: VariantPaths) -> tuple[list[Row], dict[str, str]]:
    """The truth and the named rows, as far as they can be made -> (rows, row -> why it cannot)."""
    rows, missing = [TRUTH], {}
    one_identity = len({item.identity for item in items}) < 2
    for row in (ROWS[name] for name in names):
        if row.replaces is not None and not getattr(variants, row.key):
            missing[row.name] = f"needs variants.{row.key}=RUN of {TRAINED_BY[row.replaces]}"
        elif row.needs_other and one_identity:
            missing[row.name] = "needs clips of two identities"
        else:
            rows.append(row)
    return rows, missing


def facts(config: Config, subject: Subject, evaluation: Evaluation) -> dict[str, Any]:
    """What results.json says beside the numbers."""
    return {
        "config": to_dict(config),
        "data": subject.data,
        "identities": len({item.identity for item in subject.items}),
        "weights_sha256": subject.videos.weights,
        "networks_sha256": evaluation.networks.digests,
        "networks_missing": evaluation.networks.missing,
        "landmarks": evaluation.landmarks,
        "notes": subject.notes,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, help="a file of config/ (without one: the defaults)")
    add("--checkpoint", type=Path, nargs="+", default=[], help="weights as for inference.py; several are merged")
    add("--data", type=Path, help="a prepared corpus (docs/DATA.md)")
    add("--generated", type=Path, help="videos of another system")
    add("--reference", type=Path, help="the true videos of the same stems, or a prepared corpus")
    add("--output", type=Path, required=True, help="folder for results; the same command continues it")
    add("overrides", nargs="*", metavar="key=value", help="e.g. max_clips=50 networks.syncnet=FILE")
    arguments = parser.parse_intermixed_args()
    for path in [path for path in arguments.checkpoint if "=" in path.name and not path.exists()]:
        arguments.checkpoint.remove(path)  # key=value behind the checkpoints, which argparse took for one more
        arguments.overrides.append(str(path))
    if arguments.generated is not None:
        if arguments.reference is None or arguments.data is not None:
            parser.error("--generated goes with --reference, without --data")
    elif arguments.data is None or not arguments.checkpoint:
        parser.error("give --checkpoint and --data, or --generated and --reference")
    return arguments


if __name__ == "__main__":
    main()
