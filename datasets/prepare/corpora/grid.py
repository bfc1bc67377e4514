"""GRID audiovisual sentence corpus (Cooke et al. 2006): `sN/*.mpg` or `.mp4`, also below `sN/video/mpg_6000/`."""

import re
from pathlib import Path
from typing import Any

from datasets.prepare.sources import OneFace, Source, Stretch, find_videos, safe_id

# Subject split of Vougioukas et al. (IJCV 2020), which later talking-head papers follow; s21 has no video.
VAL = frozenset(f"s{n}" for n in (9, 20, 23, 27, 29, 30, 34))
TEST = frozenset(f"s{n}" for n in (2, 4, 11, 13, 15, 18, 19, 25, 31, 33))
MIN_FRAMES = 64  # a sentence has 75, a few have 74 or fewer
FIXED_RANGE = False
ARGUMENTS: dict[str, dict[str, Any]] = {}


def sources(root: Path) -> list[Source]:
    """One clip a sentence. Files outside a folder sN are not GRID's and are left alone.

    Of copies of one sentence (say an .mpg beside its .mp4) the one that lies least deep is taken, .mp4 before .mpg.
    """
    chosen: dict[str, Source] = {}
    for path in sorted(find_videos(root), key=lambda path: (len(path.parts), path)):
        speaker = next((part for part in path.relative_to(root).parts if re.fullmatch(r"s\d{1,2}", part)), None)
        if speaker is None:
            continue
        split = "val" if speaker in VAL else "test" if speaker in TEST else "train"
        id = safe_id(speaker, path.stem)
        chosen.setdefault(id, Source(path, speaker, split, (Stretch(id, OneFace()),)))
    return list(chosen.values())
