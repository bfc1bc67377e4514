"""Lip Reading in the Wild (Chung and Zisserman 2016): `WORD/{train,val,test}/WORD_00001.mp4`, 29 frames of 256x256.

Its own framing is kept (Sec. 4.1), and its own split. LRW names no speakers: every clip is its own identity here, so the
leakage check has nothing to find. 29 frames stay 29; the loaders pad to the window of 32 (`datasets.motionfield`).
"""

from pathlib import Path
from typing import Any

from datasets.clips import SPLITS
from datasets.prepare.sources import Source, Stretch, WholePicture, find_videos, safe_id

MIN_FRAMES = 29
FIXED_RANGE = False
ARGUMENTS: dict[str, dict[str, Any]] = {}


def sources(root: Path) -> list[Source]:
    """One clip a file below a folder train, val or test."""
    found = []
    for path in find_videos(root):
        if path.parent.name in SPLITS:
            id = safe_id(path.parent.name, path.stem)
            found.append(Source(path, id, path.parent.name, (Stretch(id, WholePicture()),)))
    return found
