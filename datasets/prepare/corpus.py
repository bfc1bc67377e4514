"""A whole corpus: files shared among workers and machines, a journal that survives any interruption, the tables.

OUTPUT/settings.json             the options it was begun with, and the split it has now
OUTPUT/journal/I-of-N.jsonl      one line a finished file (`Outcome`), of each shard
OUTPUT/manifest.csv ...          made from all journals, with the split of the last command; see `datasets.clips`
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from datasets import command
from datasets.clips import (
    MANIFEST,
    POSE_RANGE,
    REJECTED,
    RUNNING,
    SETTINGS,
    load_audio_features,
    load_manifest,
    measure_pose_range,
    save_pose_range,
    write_rows,
    write_table,
)
from datasets.errors import DataError
from datasets.files import alone, make_folder, read_json, write_atomically
from datasets.pose import RELEASED_RANGE
from datasets.prepare.clip import Options, Outcome, prepare_source
from datasets.prepare.sources import Source

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPLIT_OPTIONS = ("val_identities", "test_identities")  # may change: no clip needs to be made again


def outcomes(sources: list[Source], root: Path, output: Path, options: Options, workers: int) -> Iterator[Outcome]:
    """Prepare sources in parallel, in any order.

    A source that kills its worker is tried once more alone, then rejected.
    """
    for name in THREADS:  # inherited by the workers: they share the cores by being many
        os.environ[name] = "1"
    waiting = list(reversed(sources))
    suspects: list[Source] = []
    while waiting or suspects:
        alone = not waiting
        running: dict[Future, Source] = {}
        with command.worker_pool(1 if alone else workers) as pool:
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
    make_folder(output / "clips")
    journals = make_folder(output / "journal")
    journal_path = journals / f"{number:04d}-of-{shards:04d}.jsonl"
    with alone(output / RUNNING, shared=shards > 1), alone(journal_path):
        _check_settings(output, options, shards)
        if shards == 1:  # no other process is at work, so hidden folders are half clips of a killed run
            for half in (output / "clips").glob(".*"):
                shutil.rmtree(half)
        done = {outcome.source for outcome in read_journals(output)}
        todo = [source for source in sources[number::shards] if source.id not in done]
        found = outcomes(todo, root, output, options, workers)
        _keep(tqdm(found, total=len(todo), unit="file", smoothing=0.05), journal_path, output, sources)
    with _locked(output):
        _write_pose_range(output, fixed_range)


def _keep(progress: tqdm, journal_path: Path, output: Path, sources: list[Source]) -> None:
    """Write each outcome into the journal as it comes, and the tables from time to time and at the end."""
    kept = rejected = 0
    with journal_path.open("a", encoding="utf-8") as journal:
        for finished, outcome in enumerate(progress, start=1):
            journal.write("\n" + outcome.to_json())  # newline first: a line that a crash cut off spoils no other
            journal.flush()
            os.fsync(journal.fileno())
            kept, rejected = kept + len(outcome.rows), rejected + len(outcome.rejected)
            progress.set_postfix(clips=kept, rejected=rejected)
            if finished % 100 == 0:
                write_tables(output, sources)
    write_tables(output, sources)


def read_journals(output: Path) -> list[Outcome]:
    """Outcomes of all shards so far; a damaged line, as kill -9 leaves one, does not count."""
    outcome_of = {}
    for path in sorted((output / "journal").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                outcome = Outcome.from_json(line)
                outcome_of[outcome.source] = outcome
    return list(outcome_of.values())


def write_tables(output: Path, sources: list[Source]) -> None:
    """manifest.csv and rejected.csv from all journals, sorted: the last shard to finish writes the whole.

    A clip's split is that of its source, or else of its speaker, whatever it was when the clip was made.
    """
    split_of_source = {source.id: source.split for source in sources}
    split_of_speaker = {source.identity: source.split for source in sources}
    with _locked(output):
        outcomes_so_far = read_journals(output)
        rows = [
            replace(row, split=split_of_source.get(outcome.source, split_of_speaker.get(row.identity, row.split)))
            for outcome in outcomes_so_far
            for row in outcome.rows
        ]
        write_rows(output / MANIFEST, rows)
        rejected = sorted(item for outcome in outcomes_so_far for item in outcome.rejected)
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


def _check_settings(output: Path, options: Options, shards: int) -> None:
    """Store the options. Raises DataError where clips were made with others, or another shard has another split."""
    path = output / SETTINGS
    wanted = asdict(options)
    split = {name: wanted.pop(name) for name in SPLIT_OPTIONS}
    with _locked(output):
        load_audio_features(output)  # refuses features that are recomputed only in part
        stored = read_json(path, "settings") if path.is_file() else wanted
        standard = asdict(Options())  # an option may be newer than the corpus
        if different := sorted(name for name in wanted if stored.get(name, standard[name]) != wanted[name]):
            name = different[0]
            raise DataError(
                f"{output} was begun with {name} = {stored.get(name)!r}, not {wanted[name]!r}; "
                "give the same options to continue it, or another --output"
            )
        if shards > 1 and (different := [name for name in split if stored.get(name, split[name]) != split[name]]):
            name = different[0]
            raise DataError(
                f"{output} has {name} = {stored[name]!r}, not {split[name]!r}; "
                "give all shards the same, or change it by one run without --shard"
            )
        write_atomically(path, (json.dumps(stored | wanted | split, indent=1) + "\n").encode())


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    with (output / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
