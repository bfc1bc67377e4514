"""Lip Reading in the Wild (Chung and Zisserman 2016): `WORD/{train,val,test}/WORD_00001.mp4`, 29 frames of 256x256.

LRW's own framing (Sec. 4.1) and split are kept. LRW names no speakers: here every clip is an identity of its own, so a
speaker in two splits is not noticed. Clips keep their 29 frames; the loaders pad to the window of 32
(`datasets.motionfield`).
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
    clips = []
    for path in find_videos(root):
        if path.parent.name in SPLITS:
            id = safe_id(path.parent.name, path.stem)
            clips.append(Source(path, id, path.parent.name, (Stretch(id, WholePicture()),)))
    return clips
