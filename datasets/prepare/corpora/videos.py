"""Any folder of talking videos: the first folder below the root names the speaker.

A file at the top is a speaker of its own. All speakers train, but for those of --val-identities and --test-identities.
"""

import glob
from pathlib import Path
from typing import Any

from datasets.prepare.sources import VIDEO_SUFFIXES, FaceTracks, Source, Stretch, find_videos, safe_id

MIN_FRAMES = 64
FIXED_RANGE = False
ARGUMENTS: dict[str, dict[str, Any]] = {}


def sources(root: Path) -> list[Source]:
    """Any number of clips a file."""
    talks = []
    for path in find_videos(root):
        parts = path.relative_to(root).parts
        identity = safe_id(parts[0] if len(parts) > 1 else path.stem)
        id = safe_id(*parts[:-1], path.name if _twin(path) else path.stem)
        talks.append(Source(path, identity, "train", (Stretch(id, FaceTracks()),)))
    return talks


def _twin(path: Path) -> bool:
    """Whether a.mp4 has an a.mov beside it."""
    return any(
        other != path for suffix in VIDEO_SUFFIXES for other in path.parent.glob(f"{glob.escape(path.stem)}{suffix}")
    )
