"""Raw talking-head corpora -> training-ready clips (the format is in `datasets.clips`).

    python -m datasets.prepare grid      --input RAW/grid      --output data/grid
    python -m datasets.prepare voxceleb  --input RAW/voxceleb  --output data/vox
    python -m datasets.prepare lrw       --input RAW/lrw       --output data/lrw
    python -m datasets.prepare videos    --input RAW/talks     --output data/talks

Works on local copies only. After any interruption the same command continues; finished files are not done again. With
other --val-identities or --test-identities all clips get the new split. To share the work between machines, give each
one `--shard I/N` (I from 0), or start it with torchrun. `rejected.csv` lists what could not be used, and why. Frames
are taken 25 a second, by time; sound is 16 kHz mono, in sync with them; poses are measured on the crops with the
estimator of `make pose-tools`, or come from OpenFace (--pose).

Neither the number of workers nor of shards changes a byte of the result.
"""

import argparse
import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

from datasets import command
from datasets.audio import add_setting, setting_of
from datasets.clips import REJECTED
from datasets.errors import DataError
from datasets.face.mesh import EstimatorError, available
from datasets.prepare.clip import FRAMINGS, Options
from datasets.prepare.corpora import grid, lrw, videos, voxceleb
from datasets.prepare.corpus import prepare, read_journals
from datasets.prepare.sources import Corpus, Source

# A new corpus is its file in corpora/ (the names in `Corpus`) and its word here.
CORPORA: dict[str, Corpus] = {"voxceleb": voxceleb, "grid": grid, "lrw": lrw, "videos": videos}


def _shard(text: str | None) -> tuple[int, int]:
    """ "I/N" -> (I, N); without it torchrun's rank and world size, or (0, 1)."""
    if text is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    number, _, shards = text.partition("/")
    if not (number.isdigit() and shards.isdigit() and int(number) < int(shards)):
        raise DataError(f"--shard is {text!r}, wanted I/N with I from 0 to N-1, such as 0/4")
    return int(number), int(shards)


def _sources(args: argparse.Namespace) -> list[Source]:
    """The corpus adapter's sources, with the user's split, sorted and with unique ids."""
    if not args.input.is_dir():
        raise DataError(f"--input {args.input} is not a folder")
    corpus = CORPORA[args.corpus]
    sources = corpus.sources(args.input, **{option: getattr(args, option) for option in corpus.ARGUMENTS})
    if not sources:
        raise DataError(f"--input {args.input}: no video of {args.corpus} found there; see docs/DATA.md for the layout")
    held_out = {"val": _names(args.val_identities), "test": _names(args.test_identities)}
    if any(held_out.values()):
        if both := sorted(held_out["val"] & held_out["test"]):
            raise DataError(f"{both[0]} is in --val-identities and in --test-identities; leave one out")
        unknown = set().union(*held_out.values()) - {source.identity for source in sources}
        if unknown:
            raise DataError(f"--val-identities/--test-identities: {sorted(unknown)[0]} is no identity of {args.input}")
        split_of = {name: split for split, names in held_out.items() for name in names}
        sources = [replace(source, split=split_of.get(source.identity, "train")) for source in sources]
    sources.sort(key=lambda source: source.id)
    for one, other in itertools.pairwise(sources):
        if one.id == other.id:
            raise DataError(f"{one.path} and {other.path} would both become {one.id}; leave one out")
    return sources


def _names(text: str) -> set[str]:
    return {name for name in text.split(",") if name}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True, help="each has its own --help:")
    for name, corpus in CORPORA.items():
        _add_arguments(corpora.add_parser(name, help=corpus.__doc__.split("\n")[0]), corpus)
    return parser.parse_args(arguments)


def _add_arguments(parser: argparse.ArgumentParser, corpus: Corpus) -> None:
    add = parser.add_argument
    add("--input", type=Path, required=True, help="the raw corpus")
    add("--output", type=Path, required=True, help="the prepared corpus; the same command continues it")
    add(
        "--size",
        type=command.positive,
        default=Options.size,
        help="height and width of the frames, pixels (default 256)",
    )
    add(
        "--margin",
        type=command.positive_number,
        default=Options.margin,
        help="side of the crop in face heights (default 1.85)",
    )
    add(
        "--min-frames",
        type=command.positive,
        default=corpus.MIN_FRAMES,
        help=f"shortest clip (default {corpus.MIN_FRAMES})",
    )
    add("--max-frames", type=command.positive, default=Options.max_frames, help="longest clip (default 1024)")
    add(
        "--min-face",
        type=command.positive,
        default=Options.min_face,
        help="lowest face in the source, pixels (default 64)",
    )
    add(
        "--framing",
        choices=FRAMINGS,
        default=Options.framing,
        help="whole: the clips are cropped to the face already, and kept as they are (default: as the corpus wants)",
    )
    add(
        "--pose",
        choices=("landmarks", "openface-csv", "openface"),
        default="landmarks",
        help="where head poses come from",
    )
    add("--openface-csv", default="", help="folder of OpenFace CSV files, named like the videos")
    add("--openface-program", default=Options.openface_program, help="OpenFace's FeatureExtraction")
    add_setting(parser)
    add("--val-identities", default="", help="comma-separated; overrides the corpus's own split")
    add("--test-identities", default="", help="comma-separated; overrides the corpus's own split")
    add("--workers", type=command.positive, default=os.cpu_count(), help="processes (default: the cores)")
    add("--shard", help="I/N: prepare every N-th file, from the I-th (from 0)")
    for option, settings in corpus.ARGUMENTS.items():
        add(f"--{option}", **settings)


def main(arguments: list[str] | None = None) -> None:
    args = _parse(arguments)
    if args.min_frames > args.max_frames:
        raise DataError(
            f"--min-frames {args.min_frames} is more than --max-frames {args.max_frames}, so no clip could be kept; "
            "give a smaller one"
        )
    if args.output.resolve() == args.input.resolve():
        raise DataError(f"--output {args.output} is the raw corpus itself; name another folder")
    if args.pose == "landmarks" and not available():
        raise DataError("the head-pose estimator is not installed: run `make pose-tools`, or use --pose openface-csv")
    if args.pose == "openface-csv" and not Path(args.openface_csv).is_dir():
        raise DataError(
            f"--openface-csv {args.openface_csv!r} is not a folder; give the folder of OpenFace's CSV files"
        )
    if args.pose == "openface" and shutil.which(args.openface_program) is None:
        raise DataError(
            f"--openface-program {args.openface_program!r} not found; give the path of OpenFace's FeatureExtraction"
        )
    options = Options(
        size=args.size,
        margin=args.margin,
        min_frames=args.min_frames,
        max_frames=args.max_frames,
        min_face=args.min_face,
        framing=args.framing,
        pose=args.pose,
        openface_csv=args.openface_csv,
        openface_program=args.openface_program,
        audio=setting_of(args),
        val_identities=",".join(sorted(_names(args.val_identities))),
        test_identities=",".join(sorted(_names(args.test_identities))),
    )
    sources = _sources(args)
    shard = _shard(args.shard)
    prepare(sources, args.input, args.output, options, args.workers, shard, CORPORA[args.corpus].FIXED_RANGE)
    journal = read_journals(args.output)
    clips, rejected = sum(len(o.rows) for o in journal), sum(len(o.rejected) for o in journal)
    print(f"{args.output}: {clips} clips, {rejected} rejected (see {args.output / REJECTED})")
    if not clips:
        reason = next((reason for outcome in journal for _, reason in outcome.rejected), "there was nothing to do")
        raise DataError(f"no clip of {args.input} was kept, so {args.output} cannot be trained on: {reason}")


if __name__ == "__main__":
    command.run(main, EstimatorError, interrupted="interrupted; the same command continues")
