"""Raw talking-head corpora -> training-ready clips (the format is in `datasets.clips`).

    python -m datasets.prepare grid      --input RAW/grid      --output data/grid
    python -m datasets.prepare voxceleb  --input RAW/voxceleb  --output data/vox
    python -m datasets.prepare lrw       --input RAW/lrw       --output data/lrw
    python -m datasets.prepare videos    --input RAW/talks     --output data/talks

Works on local copies only. The same command again continues after any interruption: finished files are not redone. To
share the work between machines give each `--shard I/N` (from 0), or start it by torchrun. What cannot be used ends in
`rejected.csv` with its reason. Frames are 25 a second by time, sound is 16 kHz mono in sync with them, poses are measured
on the crops with the estimator of `make pose-tools`, or come from OpenFace (--pose).

Neither the number of workers nor of shards changes a byte of the result.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.clips import (
    FEATURE_TAIL_SAMPLES,
    FPS,
    MANIFEST,
    POSE_RANGE,
    REJECTED,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Row,
    existing_row,
    load_manifest,
    measure_pose_range,
    save_pose_range,
    write_atomically,
    write_clip,
    write_rows,
    write_table,
)
from datasets.errors import DataError
from datasets.face.haar import find_faces
from datasets.face.mesh import EstimatorError, LandmarkFinder, available, eyes_of, mouth_of
from datasets.face.openface import default_camera, read_csv, run_feature_extraction
from datasets.face.rigid_pose import fill_gaps, pose_of, smooth, to_other_camera
from datasets.media.video_reader import frames_of
from datasets.pose import BOX_SIZE, RELEASED_RANGE
from datasets.prepare.corpora import grid, lrw, videos, voxceleb
from datasets.prepare.framing import (
    Square,
    crop,
    face_square,
    find_face,
    find_spans,
    head_square,
    listed_square,
    middle_square,
)
from datasets.prepare.sources import FaceBoxes, FaceTracks, HeadBox, OneFace, Source, Stretch, WholePicture

MISSING_SOUND_S = 0.08  # the sound may end this much before the picture; the rest is silence
SILENT_PEAK = 64  # of 32767: nothing louder in the clip is a silent clip
MAX_POSE_GAP = (
    12  # frames (about half a second) without a measured pose that are interpolated; longer ones cut the clip
)
MIN_POSE_SUCCESS = 0.7
FRAMINGS = ("corpus", "whole")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Options:
    """What decides the result; stored as settings.json beside it, so that one corpus is prepared in one way.

    Attributes:
        size: height and width of the frames, pixels.
        margin: side of the crop in heights of the face (brows to chin).
        min_frames, max_frames: length of a clip.
        min_face: height of a face in the source, pixels.
        framing: corpus (as the corpus' adapter says), or whole: the clips are cropped already and stay as they are.
        pose: landmarks, openface-csv or openface.
        openface_csv: folder of CSV files named like the videos, for openface-csv.
        openface_program: FeatureExtraction, for openface.
    """

    size: int = 256
    margin: float = 1.85
    min_frames: int = 64
    max_frames: int = 1024
    min_face: int = 64
    framing: str = "corpus"
    pose: str = "landmarks"
    openface_csv: str = ""
    openface_program: str = "FeatureExtraction"


@dataclass(frozen=True)
class Outcome:
    """What became of one source: rows of the manifest, and (id, reason) for what was left out. One line of the journal."""

    source: str
    rows: list[Row]
    rejected: list[tuple[str, str]]

    def to_json(self) -> str:
        return json.dumps({"source": self.source, "rows": [asdict(r) for r in self.rows], "rejected": self.rejected})

    @staticmethod
    def from_json(line: str) -> "Outcome":
        data = json.loads(line)
        return Outcome(data["source"], [Row(**row) for row in data["rows"]], [tuple(item) for item in data["rejected"]])


# ---- one source


def prepare_source(source: Source, root: Path, output: Path, options: Options) -> Outcome:
    """Every clip of one file. Bad input becomes a rejection, never an exception."""
    rows, rejected = [], []
    for stretch in source.stretches:
        if options.framing == "whole":
            stretch = replace(stretch, framing=WholePicture())
        if not isinstance(stretch.framing, FaceTracks) and (row := existing_row(output, stretch.id)):
            rows.append(row)
            continue
        try:
            _sound(source.path)  # before the face is searched: it is the quicker one to miss
            for id, start_s, end_s, square in _framed(source.path, stretch, options):
                try:
                    row = existing_row(output, id)
                    rows.append(
                        row or _prepare_clip(source, stretch, root, output, options, id, start_s, end_s, square)
                    )
                except (DataError, OSError, cv2.error) as error:
                    rejected.append((id, _reason(error, source.path)))
        except (DataError, OSError, cv2.error) as error:
            rejected.append((stretch.id, _reason(error, source.path)))
    return Outcome(source.id, rows, rejected)


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path.absolute()}: ", "").replace(str(path.absolute()), path.name).splitlines()[0]


def _framed(path: Path, stretch: Stretch, options: Options) -> Iterator[tuple[str, float, float | None, Square]]:
    """(clip id, start, end, square) of each clip in a stretch.

    Raises:
        DataError: no face, or no span with one.
    """
    frames = frames_of(path, stretch.start_s, stretch.end_s)
    height, width = _picture_size(path)
    match stretch.framing:
        case WholePicture():
            square = middle_square(height, width)
        case HeadBox():
            square = head_square(stretch.framing, height, width)
        case FaceBoxes():
            square = listed_square(stretch.framing, frames, _find_boxes, options.margin, height, width)
        case OneFace():
            boxes_N4 = find_face(frames, _find_boxes, options.min_face)
            square = face_square(boxes_N4, options.margin, height, width)
        case FaceTracks():
            limits = (options.margin, options.min_face, options.min_frames, options.max_frames)
            spans = list(find_spans(frames, _find_boxes, *limits))
            for span in spans:
                id = f"{stretch.id}_{round(span.start_s * FPS):06d}"
                yield id, stretch.start_s + span.start_s, stretch.start_s + span.end_s, span.square
            if not spans:
                wanted = f"one face of {options.min_face} pixels or more"
                raise DataError(f"no {options.min_frames} frames in a row with {wanted}")
            return
    yield stretch.id, stretch.start_s, stretch.end_s, square


def _prepare_clip(
    source: Source,
    stretch: Stretch,
    root: Path,
    output: Path,
    options: Options,
    id: str,
    start_s: float,
    end_s: float | None,
    square: Square,
) -> Row:
    """Cut, measure and write one clip.

    Raises:
        DataError: too short, silent, no sound, no face, or damaged.
    """
    pcm = _sound(source.path)
    start_s = max(start_s, -stretch.offset_s)  # earlier pictures have no sound
    sound_s = len(pcm) / SAMPLE_RATE - start_s - stretch.offset_s + MISSING_SOUND_S
    limit = min(options.max_frames, int(sound_s * FPS + 1e-6))
    pictures = itertools.islice(frames_of(source.path, start_s, end_s), max(limit, 0))
    frames = [crop(picture, square, max(options.size, BOX_SIZE)) for picture in pictures]
    if len(frames) < options.min_frames:
        raise DataError(f"too short: {len(frames)} frames with sound, wanted at least {options.min_frames}")

    pose_TP, mouth_T4, eyes_T24 = _pose(source.path, frames, start_s, square, options)
    found_T = np.isfinite(pose_TP).all(axis=1)
    first, last = _usable(found_T)
    if last - first < options.min_frames or found_T[first:last].mean() < MIN_POSE_SUCCESS:
        raise DataError(f"no head pose: found in {found_T.sum()} of {len(frames)} frames, the longest run is too short")
    keep = slice(first, last)
    length = last - first
    start_s += first / FPS

    sample = round((start_s + stretch.offset_s) * SAMPLE_RATE)
    sound = pcm[sample : sample + length * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES]
    if np.abs(sound.astype(int)).max() < SILENT_PEAK:
        raise DataError("silent: no sample is louder than -54 dB")
    sound = np.pad(sound, (0, length * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES - len(sound)))

    from datasets.audio import features

    kept = frames[keep]
    if options.size != kept[0].shape[0]:
        kept = [cv2.resize(frame, (options.size, options.size), interpolation=cv2.INTER_AREA) for frame in kept]
    return write_clip(
        output,
        id=id,
        identity=source.identity,
        split=source.split,
        frames=kept,
        pcm=sound,
        features_TAF=features(sound),
        pose_TP=smooth(fill_gaps(pose_TP[keep])),
        mouth_T4=mouth_T4[keep],
        eyes_T24=eyes_T24[keep],
        source=source.path.relative_to(root).as_posix(),
        start_s=start_s,
        crop=f"{square.x} {square.y} {square.side}",
        offset_s=stretch.offset_s,
        pose_source=options.pose,
        pose_success=found_T[keep].mean(),
    )


def _pose(
    path: Path, frames: list[np.ndarray], start_s: float, square: Square, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Head poses [T, 6], mouths [T, 4] and eyes [T, 2, 4] of a clip's square frames, NaN where not found."""
    scale = BOX_SIZE / frames[0].shape[0]
    mesh_TN3 = _finder().meshes(frames) * np.float32(scale) if available() else np.full((len(frames), 468, 3), np.nan)
    mouth_T4, eyes_T24 = mouth_of(mesh_TN3), eyes_of(mesh_TN3)
    if options.pose == "openface":
        return run_feature_extraction(options.openface_program, frames), mouth_T4, eyes_T24
    if options.pose == "openface-csv":
        track = read_csv(_csv_of(path, Path(options.openface_csv)))
        focal, centre = default_camera(*_picture_size(path))
        pose_TP = track.at(start_s + np.arange(len(frames)) / FPS)
        return to_other_camera(pose_TP, focal, centre, square[:2], BOX_SIZE / square.side), mouth_T4, eyes_T24
    pose_TP = np.full((len(frames), 6), np.nan)
    found_T = np.isfinite(mesh_TN3).all(axis=(1, 2))
    if found_T.any():
        pose_TP[found_T] = pose_of(mesh_TN3[found_T])
    return pose_TP, mouth_T4, eyes_T24


def _csv_of(path: Path, folder: Path) -> Path:
    """The CSV of a video: the file's name with .csv, in the folder or below it."""
    found = sorted(folder.rglob(f"{path.stem}.csv"))
    if not found:
        raise DataError(f"no {path.stem}.csv in {folder}")
    return found[0]


def _usable(found_T: np.ndarray) -> tuple[int, int]:
    """The longest run [first, last) that starts and ends with a found frame and has no gap above MAX_POSE_GAP."""
    at = np.flatnonzero(found_T)
    if len(at) == 0:
        return 0, 0
    runs = np.split(at, np.flatnonzero(np.diff(at) > MAX_POSE_GAP + 1) + 1)
    best = max(runs, key=lambda run: run[-1] - run[0])
    return int(best[0]), int(best[-1]) + 1


@lru_cache(maxsize=1)
def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a video's upright pictures."""
    for picture in frames_of(path):
        return picture.shape[:2]
    raise DataError(f"{path} holds no picture; copy it again")


@lru_cache(maxsize=1)
def _sound(path: Path) -> np.ndarray:
    """The file's own sound; that of a .wav of the same name beside it, where the video has none."""
    from datasets.audio import load_pcm

    try:
        return load_pcm(path)
    except DataError:
        if not path.with_suffix(".wav").is_file():
            raise
        return load_pcm(path.with_suffix(".wav"))


@lru_cache(maxsize=1)
def _finder() -> LandmarkFinder:
    return LandmarkFinder().__enter__()


def _find_boxes(frame: np.ndarray) -> np.ndarray:
    """Face boxes of one picture: mediapipe's, or OpenCV's where `make pose-tools` has not been run."""
    if available():
        return _finder().boxes(frame)
    return np.array(find_faces(frame), float).reshape(-1, 4)


# ---- the whole corpus


def _start_worker() -> None:
    cv2.setNumThreads(1)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    for name in THREADS:  # inherited by the workers: they share the cores by being many
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


def outcomes(sources: list[Source], root: Path, output: Path, options: Options, workers: int) -> Iterator[Outcome]:
    """Prepare sources in parallel, in any order. A source that kills its worker is tried once more alone, then rejected."""
    waiting, suspects = list(reversed(sources)), []
    while waiting or suspects:
        alone = not waiting
        running: dict[Future, Source] = {}
        with _new_pool(1 if alone else workers) as pool:
            try:
                while waiting or suspects or running:
                    queue = waiting or (suspects if alone else [])
                    while queue and len(running) < (1 if alone else 2 * workers):
                        source = queue.pop()
                        running[pool.submit(prepare_source, source, root, output, options)] = source
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del running[future]
                        yield outcome
            except BrokenProcessPool:
                if alone:
                    (source,) = running.values()
                    yield Outcome(
                        source.id, [], [(source.id, "the worker process died: out of memory, or a decoder crashed")]
                    )
                else:
                    suspects += running.values()


def prepare(
    sources: list[Source],
    root: Path,
    output: Path,
    options: Options,
    workers: int,
    shard: tuple[int, int],
    fixed_range: bool,
) -> None:
    """Prepare this shard's sources that no journal lists yet, then write the manifest of everything there is."""
    number, shards = shard
    (output / "clips").mkdir(parents=True, exist_ok=True)
    journals = output / "journal"
    journals.mkdir(exist_ok=True)
    _check_settings(output, options)
    if shards == 1:  # nobody else is at work: hidden folders are half clips of a killed run
        for half in (output / "clips").glob(".*"):
            shutil.rmtree(half)
    done = {outcome.source for outcome in read_journals(output)}
    todo = [source for source in sources[number::shards] if source.id not in done]
    kept = rejected = 0
    with (journals / f"{number:04d}-of-{shards:04d}.jsonl").open("a", encoding="utf-8") as journal:
        progress = tqdm(outcomes(todo, root, output, options, workers), total=len(todo), unit="file", smoothing=0.05)
        for finished, outcome in enumerate(progress, start=1):
            journal.write(
                "\n" + outcome.to_json()
            )  # a newline first: a line cut off by a crash must not spoil the next
            journal.flush()
            os.fsync(journal.fileno())
            kept, rejected = kept + len(outcome.rows), rejected + len(outcome.rejected)
            progress.set_postfix(clips=kept, rejected=rejected)
            if finished % 100 == 0:
                write_tables(output)
    write_tables(output)
    with _locked(output):
        _write_pose_range(output, fixed_range)


def read_journals(output: Path) -> list[Outcome]:
    """Outcomes of all shards so far; half a last line (kill -9) does not count."""
    found = {}
    for path in sorted((output / "journal").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                outcome = Outcome.from_json(line)
                found[outcome.source] = outcome
    return list(found.values())


def write_tables(output: Path) -> None:
    """manifest.csv and rejected.csv from all journals, sorted: the last shard to finish writes the whole."""
    with _locked(output):
        found = read_journals(output)
        write_rows(output / MANIFEST, [row for outcome in found for row in outcome.rows])
        rejected = sorted(item for outcome in found for item in outcome.rejected)
        write_table(output / REJECTED, ("id", "reason"), ({"id": id, "reason": reason} for id, reason in rejected))


def _write_pose_range(output: Path, fixed_range: bool) -> None:
    if fixed_range:
        save_pose_range(output, RELEASED_RANGE, "the released model's, for VoxCeleb")
        return
    try:
        train = load_manifest(output, "train")
    except DataError:  # nothing to train on: test sets use the range of the training corpus
        (output / POSE_RANGE).unlink(missing_ok=True)
        return
    save_pose_range(output, measure_pose_range(train), f"percentiles 0.5-99.5 of {len(train)} training clips, widened")


def _check_settings(output: Path, options: Options) -> None:
    path = output / "settings.json"
    wanted, standard = asdict(options), asdict(Options())  # options are newer than some corpora
    if path.is_file():
        found = json.loads(path.read_text())
        if different := sorted(name for name in wanted if found.get(name, standard[name]) != wanted[name]):
            name = different[0]
            raise DataError(
                f"{output} was begun with {name} = {found.get(name)!r}, not {wanted[name]!r}; "
                "give the same options to continue it, or another --output"
            )
    write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    with (output / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- the command


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
    match args.corpus:
        case "grid":
            sources = grid.sources(args.input)
        case "voxceleb":
            sources = voxceleb.sources(args.input, args.metadata, args.txt)
        case "lrw":
            sources = lrw.sources(args.input)
        case "videos":
            sources = videos.sources(args.input)
    if not sources:
        raise DataError(f"--input {args.input}: no video of {args.corpus} found there; see docs/DATA.md for the layout")
    held_out = {"val": _names(args.val_identities), "test": _names(args.test_identities)}
    if any(held_out.values()):
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
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("corpus", choices=("voxceleb", "grid", "lrw", "videos"))
    add("--input", type=Path, required=True, help="the raw corpus")
    add("--output", type=Path, required=True, help="the prepared corpus; the same command continues it")
    add("--size", type=int, default=Options.size, help="height and width of the frames, pixels (default 256)")
    add("--margin", type=float, default=Options.margin, help="side of the crop in face heights (default 1.85)")
    add("--framing", choices=FRAMINGS, default="corpus", help="whole: clips are cropped already, keep them as they are")
    add("--min-frames", type=int, help="shortest clip (default: by corpus)")
    add("--max-frames", type=int, default=Options.max_frames, help="longest clip (default 1024)")
    add("--min-face", type=int, default=Options.min_face, help="lowest face in the source, pixels (default 64)")
    add(
        "--pose",
        choices=("landmarks", "openface-csv", "openface"),
        default="landmarks",
        help="where head poses come from",
    )
    add("--openface-csv", default="", help="folder of OpenFace CSV files, named like the videos")
    add("--openface-program", default=Options.openface_program, help="OpenFace's FeatureExtraction")
    add(
        "--metadata",
        type=Path,
        action="append",
        default=[],
        help="voxceleb: a vox-metadata.csv outside the input folder",
    )
    add("--txt", type=Path, help="voxceleb: the txt tree (default INPUT/txt)")
    add("--val-identities", default="", help="comma-separated; overrides the corpus's own split")
    add("--test-identities", default="", help="comma-separated; overrides the corpus's own split")
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: the cores)")
    add("--shard", help="I/N: prepare every N-th file, from the I-th (from 0)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = _parse(arguments)
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
    corpus = {"grid": grid, "voxceleb": voxceleb, "lrw": lrw, "videos": videos}[args.corpus]
    options = Options(
        size=args.size,
        margin=args.margin,
        min_frames=args.min_frames or corpus.MIN_FRAMES,
        max_frames=args.max_frames,
        min_face=args.min_face,
        framing=args.framing,
        pose=args.pose,
        openface_csv=args.openface_csv,
        openface_program=args.openface_program,
    )
    sources = _sources(args)
    shard = _shard(args.shard)
    prepare(sources, args.input, args.output, options, args.workers, shard, fixed_range=args.corpus == "voxceleb")
    found = read_journals(args.output)
    clips, rejected = sum(len(o.rows) for o in found), sum(len(o.rejected) for o in found)
    print(f"{args.output}: {clips} clips, {rejected} rejected (see {args.output / REJECTED})")


if __name__ == "__main__":
    try:
        main()
    except (DataError, EstimatorError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
