"""Any folder of talking videos: the first folder below the root names the speaker.

A file at the top is a speaker of its own. Folders train, val and test at the top are no speakers but splits, as FOMM's
preprocessing makes them; its file names `PERSON#VIDEO#FIRST#LAST.mp4` name the speaker wherever they lie. All others
train, and --val-identities and --test-identities override it all.
"""

import glob
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.clips import SPLITS
from datasets.prepare.sources import (
    VIDEO_SUFFIXES,
    FaceTracks,
    Source,
    Stretch,
    find_videos,
    fomm_person,
    person,
    safe_id,
    short_digest,
)

MIN_FRAMES = 64
FIXED_RANGE = False
ARGUMENTS: dict[str, dict[str, Any]] = {}


def sources(root: Path) -> list[Source]:
    """Any number of clips a file."""
    talks = []
    for path in find_videos(root):
        parts = path.relative_to(root).parts
        split, below = (parts[0], parts[1:]) if len(parts) > 1 and parts[0] in SPLITS else ("train", parts)
        identity = fomm_person(path.stem) or (below[0] if len(below) > 1 else path.stem)
        id = safe_id(*parts[:-1], path.name if _twin(path) else path.stem)
        talks.append(Source(path, person(identity), split, (Stretch(id, FaceTracks()),)))
    often = Counter(talk.id for talk in talks)
    return [talk if often[talk.id] == 1 else _told_apart(talk, root) for talk in talks]


def _told_apart(talk: Source, root: Path) -> Source:
    """With an id that tells `a b.mp4` from `a-b.mp4`."""
    (stretch,) = talk.stretches
    id = f"{stretch.id}-{short_digest(*talk.path.relative_to(root).parts)}"
    return replace(talk, stretches=(replace(stretch, id=id),))


def _twin(path: Path) -> bool:
    """Whether a.mp4 has an a.mov beside it."""
    return any(
        other != path for suffix in VIDEO_SUFFIXES for other in path.parent.glob(f"{glob.escape(path.stem)}{suffix}")
    )
