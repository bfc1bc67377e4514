"""Several prepared corpora as one, for a training on all of them:

    python -m datasets.join --output data/all data/grid data/vox

The clips are not copied: `OUTPUT/clips/ID` are links to their folders, so the parts must stay where and as they are;
where a clip was prepared anew, or its features were, the joined corpus is refused until it is joined again. Splits
are those of the parts, and so is the setting of their sound features, which must be one. Poses are scaled by the limits
of the joined training clips (`pose_range.json`).
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from datasets import command
from datasets.clips import (
    MANIFEST,
    SETTINGS,
    Clip,
    load_audio_features,
    load_manifest,
    measure_pose_range,
    save_pose_range,
    write_rows,
)
from datasets.errors import DataError
from datasets.files import write_atomically


def join(parts: list[Path], output: Path) -> list[Clip]:
    """Write the joined corpus; an earlier one at the same place is brought up to date.

    Raises:
        DataError: two clips of one name, a speaker in two splits, parts with different settings of sound features, or
            an output folder that is no joined corpus.
    """
    for part in parts:
        if output.resolve().is_relative_to(part.resolve()):
            raise DataError(f"{output} is one of the corpora to be joined, or lies in it; give another --output")
    if (output / "journal").exists():
        raise DataError(f"{output} is a corpus of datasets.prepare; give another --output")
    clips: dict[str, Clip] = {}
    split_of: dict[str, str] = {}
    clips_of = {part: load_manifest(part) for part in parts}
    settings = {part: load_audio_features(part) for part in parts}
    if other := next((part for part in parts if settings[part] != settings[parts[0]]), None):
        raise DataError(
            f"{parts[0]} has the sound features {settings[parts[0]]}, {other} {settings[other]}; "
            "bring them in line with python -m datasets.features"
        )
    for part in parts:
        for clip in clips_of[part]:
            row = clip.row
            if not clip.folder.is_dir():
                raise DataError(f"{clip.folder} is missing, though {part}'s manifest lists it; prepare {part} again")
            if row.id in clips:
                raise DataError(f"{clips[row.id].folder} and {clip.folder} have the same name; leave one corpus out")
            if split_of.setdefault(row.identity, row.split) != row.split:
                raise DataError(f"{part}: speaker {row.identity} is in {row.split} here and in another split before")
            clips[row.id] = clip
    train = [clip for clip in clips.values() if clip.row.split == "train"] or list(clips.values())
    pose_range = measure_pose_range(train)
    folder = output / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if not old.is_symlink():
            raise DataError(f"{old} is no link, so {output} is no joined corpus; give another --output")
    for id, clip in clips.items():
        link = folder / f".{id}.part"
        link.unlink(missing_ok=True)
        os.symlink(clip.folder.resolve(), link, target_is_directory=True)
        os.replace(link, folder / id)
    save_pose_range(output, pose_range, f"percentiles 0.5-99.5 of {len(train)} training clips, widened")
    settings_json = json.dumps({"audio": asdict(settings[parts[0]])}, indent=1) + "\n"
    write_atomically(output / SETTINGS, settings_json.encode())
    write_rows(output / MANIFEST, (clip.row for clip in clips.values()))
    for old in folder.iterdir():  # last: until now the earlier manifest's clips are all there
        if old.name not in clips:
            old.unlink()
    return load_manifest(output)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, nargs="+", help="prepared corpora")
    parser.add_argument("--output", type=Path, required=True, help="the joined corpus")
    args = parser.parse_args(arguments)
    clips = join(args.parts, args.output)
    print(f"{args.output}: {len(clips)} clips of {len({clip.row.identity for clip in clips})} speakers")


if __name__ == "__main__":
    command.run(main)
