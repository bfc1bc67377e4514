"""Measure Audio2Head, or any other system's videos, by one documented protocol (docs/EVALUATION.md).

    python evaluate.py --config config/evaluate_grid.yaml --checkpoint runs/fomm runs/head runs/field \\
        --data data/grid --output results/grid
    python evaluate.py --generated VIDEOS --reference data/grid --output results/others    # or --reference VIDEOS
    torchrun --nproc_per_node 4 evaluate.py ...                                            # the clips shared among GPUs

The first form makes every clip of the split from its first frame and sound, with the variants of Table 2 and Sec. 5.4 and
floors that any claim must beat; the second matches files by stem. The same command continues after an interruption.

    OUTPUT/results.md, results.json, plots/      tables, every number, distributions over clips
    OUTPUT/videos/ROW/CLIP.mp4, motion/ROW/CLIP.npz
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from animation.options import AnimationOptions, OptionError, Precision
from animation.weights import TRAINED_BY
from datasets.clips import MANIFEST, Clip, load_manifest, load_pose_range
from datasets.errors import DataError
from datasets.face import mesh as landmarks
from datasets.face.mesh import EstimatorError
from datasets.pose import RELEASED_RANGE
from datasets.synthetic import SyntheticConfig, make_if_absent
from engine.checkpoint import CheckpointError
from engine.command import clean_exit
from engine.config import ConfigError, load, to_dict
from evaluation.errors import EvaluationError
from evaluation.foreign import Folder
from evaluation.matching import match
from evaluation.networks import NetworkPaths, load_networks
from evaluation.report import BootstrapConfig, summarise, write_reports
from evaluation.rows import FOREIGN_FLOORS, GENERATED, ROWS, TRUTH, Row, RowName
from evaluation.run import Evaluation
from evaluation.store import Store
from evaluation.studio import Studio, VariantPaths
from evaluation.truth import Item, PreparedItem

USER_ERRORS = (CheckpointError, ConfigError, DataError, EstimatorError, EvaluationError, OptionError)


@dataclass(frozen=True)
class Config:
    """Attributes:
    split: train, val or test.
    max_clips: at most so many clips, spread evenly over the manifest, which is sorted by speaker (0: all).
    rows: of the table, beside the true videos, which are always in it.
    variants: checkpoints of the ablations.
    device, precision, batch_size: as in `inference.py`.
    keypoint_mode, head_motion_scale, expression_scale: as in `inference.py`.
    networks: files of published networks that measure.
    landmarks: look for faces in all videos, if `make pose-tools` has been run.
    synthetic: draw this corpus if --data holds none.
    """

    split: str = "test"
    max_clips: int = 0
    rows: tuple[RowName, ...] = tuple(ROWS)
    variants: VariantPaths = VariantPaths()
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int = 0
    keypoint_mode: Literal["absolute", "relative"] = "absolute"
    head_motion_scale: float = 1.0
    expression_scale: float = 1.0
    networks: NetworkPaths = NetworkPaths()
    landmarks: bool = True
    bootstrap: BootstrapConfig = BootstrapConfig()
    synthetic: SyntheticConfig | None = None


def main() -> None:
    arguments = parse_arguments()
    with clean_exit(*USER_ERRORS):
        config = load(Config, arguments.config, arguments.overrides)
        evaluation, facts, missing_rows = (foreign if arguments.generated else ours)(arguments, config)
        results = evaluation.run()
        if evaluation.rank == 0:
            summaries = summarise(evaluation, results, config.bootstrap)
            write_reports(arguments.output, summaries, missing_rows, results, facts)
            print((arguments.output / "results.md").read_text(encoding="utf-8"))
            print(arguments.output / "results.json")


def ours(arguments: argparse.Namespace, config: Config) -> tuple[Evaluation, dict[str, Any], dict[str, str]]:
    """Videos to be generated from a prepared corpus -> (evaluation, facts for results.json, row -> why it is left out)."""
    rank, ranks, local_rank = place()
    if rank == 0:
        make_if_absent(arguments.data, config.synthetic)
    clips = load_manifest(arguments.data, config.split)
    items: list[Item] = [PreparedItem(clip) for clip in spread(clips, config.max_clips)]
    rows, missing_rows = choose_rows(config.rows, items, config.variants)
    studio = Studio(rows, arguments.checkpoint, config.variants, options(config), local_rank)
    networks = load_networks(config.networks, studio.models.device)
    pose_range = load_pose_range(arguments.data)
    look = config.landmarks and landmarks.available()
    store = Store(arguments.output)
    evaluation = Evaluation(studio, rows, items, networks, pose_range, look, store, rank, ranks)
    data = f"split {config.split} of {arguments.data}, {studio.size}x{studio.size}"
    return evaluation, facts(config, evaluation, data, []), missing_rows


def foreign(arguments: argparse.Namespace, config: Config) -> tuple[Evaluation, dict[str, Any], dict[str, str]]:
    """Given videos, matched with references by stem; returns what `ours` does."""
    rank, ranks, local_rank = place()
    matches = match(arguments.generated, arguments.reference, config.split)
    rows, missing_rows = choose_rows(FOREIGN_FLOORS, matches.items, config.variants)
    rows.insert(1, GENERATED)
    folder = Folder(matches, arguments.checkpoint, options(config), local_rank)
    networks = load_networks(config.networks, folder.device)
    prepared = (arguments.reference / MANIFEST).is_file()
    pose_range = load_pose_range(arguments.reference) if prepared else RELEASED_RANGE
    look = config.landmarks and landmarks.available()
    store = Store(arguments.output)
    evaluation = Evaluation(folder, rows, matches.items, networks, pose_range, look, store, rank, ranks)
    data = f"videos of {arguments.generated}, references of {arguments.reference}"
    return evaluation, facts(config, evaluation, data, matches.notes()), missing_rows


def place() -> tuple[int, int, int]:
    """torchrun's rank, number of ranks, and rank on this machine."""
    rank, ranks, local_rank = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return int(rank or 0), int(ranks or 1), int(local_rank or 0)


def spread(clips: list[Clip], most: int) -> list[Clip]:
    """At most so many clips, evenly over the list; 0: all."""
    if not most or most >= len(clips):
        return clips
    return [clips[number * len(clips) // most] for number in range(most)]


def choose_rows(names: Sequence[str], items: list[Item], variants: VariantPaths) -> tuple[list[Row], dict[str, str]]:
    """The truth and the named rows, as far as they can be made -> (rows, row -> why it cannot)."""
    rows, missing = [TRUTH], {}
    one_identity = len({item.identity for item in items}) < 2
    for row in (ROWS[name] for name in names):
        if row.replaces is not None and not variants.of(row):
            key = row.name.replace("-", "_")
            missing[row.name] = f"needs variants.{key}=RUN of {TRAINED_BY[row.replaces]}"
        elif row.other and one_identity:
            missing[row.name] = "needs clips of two identities"
        else:
            rows.append(row)
    return rows, missing


def options(config: Config) -> AnimationOptions:
    """The clips are framed already: no face is searched in them."""
    return AnimationOptions(
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        keypoint_mode=config.keypoint_mode,
        head_motion_scale=config.head_motion_scale,
        expression_scale=config.expression_scale,
        crop="none",
    )


def facts(config: Config, evaluation: Evaluation, data: str, notes: list[str]) -> dict[str, Any]:
    """What results.json says beside the numbers."""
    return {
        "config": to_dict(config),
        "data": data,
        "identities": len({item.identity for item in evaluation.items}),
        "weights_sha256": evaluation.maker.weights,
        "networks_sha256": evaluation.networks.digests,
        "networks_missing": evaluation.networks.missing,
        "landmarks": evaluation.landmarks,
        "notes": notes,
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
        arguments.checkpoint.remove(path)  # key=value right after the checkpoints, which argparse takes for one of them
        arguments.overrides.append(str(path))
    if arguments.generated is not None:
        if arguments.reference is None or arguments.data is not None:
            parser.error("--generated goes with --reference, without --data")
    elif arguments.data is None or not arguments.checkpoint:
        parser.error("give --checkpoint and --data, or --generated and --reference")
    return arguments


if __name__ == "__main__":
    main()
