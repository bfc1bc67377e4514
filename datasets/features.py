"""Compute the sound features of a prepared corpus anew, under another setting, from each clip's own audio.wav:

    python -m datasets.features data/grid --f0 dio --mean removed --embedding speech

Frames, poses and mouths stay. A joined corpus links to its parts: recompute those, then join them again. Until the
command is through, the corpus is refused; after an interruption give it again.
"""

import argparse
import contextlib
import json
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets import command
from datasets.audio import AudioFeatureConfig, add_setting, features, setting_of
from datasets.clips import (
    MANIFEST,
    RUNNING,
    SETTINGS,
    Clip,
    ClipRow,
    digests,
    load_manifest,
    voiced_share,
    write_rows,
)
from datasets.errors import DataError
from datasets.files import alone, read_json, write_atomically, written_beside


def recompute(root: Path, setting: AudioFeatureConfig, workers: int = 1) -> int:
    """Give every clip of a corpus features under this setting -> the number of clips.

    Raises:
        DataError: no corpus, a joined one, one that another process is at work on, or a clip's sound that cannot be
            read.
    """
    clips = load_manifest(root)
    if linked := next((clip for clip in clips if clip.folder.is_symlink()), None):
        part = linked.folder.resolve().parents[1]
        raise DataError(f"{root} is a joined corpus: recompute its parts ({part}, ...), then join them again")
    with alone(root / RUNNING):
        return _recompute(root, clips, setting, workers)


def _recompute(root: Path, clips: list[Clip], setting: AudioFeatureConfig, workers: int) -> int:
    path = root / SETTINGS
    settings: dict[str, Any] = read_json(path, "settings") if path.is_file() else {}
    settings |= {"audio": asdict(setting), "recomputing": True}
    _write_json(path, settings)
    compute = partial(_recompute_clip, setting=setting)
    with contextlib.nullcontext() if workers == 1 else command.worker_pool(workers) as pool:
        found = map(compute, clips) if pool is None else pool.map(compute, clips, chunksize=4)
        rows = list(tqdm(found, total=len(clips), unit="clip"))
    write_rows(root / MANIFEST, rows)
    _renew_journals(root, {row.id: row for row in rows})
    _write_json(path, {name: value for name, value in settings.items() if name != "recomputing"})
    return len(rows)


def _recompute_clip(clip: Clip, setting: AudioFeatureConfig) -> ClipRow:
    features_TAF = features(clip.pcm(), setting)[: clip.frames]
    with written_beside(clip.folder / "features.npy") as temporary, temporary.open("wb") as file:
        np.save(file, features_TAF)
    row = replace(clip.row, voiced=voiced_share(features_TAF), sha256=digests(clip.folder))
    _write_json(clip.folder / "clip.json", asdict(row))
    return row


def _renew_journals(root: Path, rows: dict[str, ClipRow]) -> None:
    """`datasets.prepare` writes the manifest from its journals: they must know the new checksums."""
    for path in (root / "journal").glob("*.jsonl"):
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                outcome = json.loads(line)
            except json.JSONDecodeError:  # empty, or cut off by a crash
                continue
            outcome["rows"] = [asdict(rows[row["id"]]) if row["id"] in rows else row for row in outcome["rows"]]
            lines.append("\n" + json.dumps(outcome))
        write_atomically(path, "".join(lines).encode())


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="a prepared corpus")
    parser.add_argument(
        "--workers", type=command.positive, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    add_setting(parser)
    args = parser.parse_args(arguments)
    setting = setting_of(args)
    count = recompute(args.corpus, setting, args.workers)
    print(f"{args.corpus}: features of {count} clips, {setting.count} a row ({setting})")


if __name__ == "__main__":
    command.run(main, interrupted="interrupted; the same command begins again")
