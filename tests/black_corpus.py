"""A prepared corpus whose pictures hardly matter: plain clips of 20 frames with given sounds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.audio import features
from datasets.clips import MANIFEST, write_clip, write_rows


def black_corpus(root: Path, sounds: Mapping[str, np.ndarray], brightness: int = 0) -> Path:
    """A training clip and speaker for each name; sounds are int16, 16 kHz, 0.85 s; features are the paper's."""
    rows = []
    for name, pcm in sounds.items():
        row = write_clip(
            root,
            id=name,
            identity=name,
            split="train",
            frames=[np.full((16, 16, 3), brightness, np.uint8)] * 20,
            pcm=pcm,
            features_TAF=features(pcm)[:20],
            pose_TP=np.zeros((20, 6)),
            mouth_T4=np.zeros((20, 4)),
            source=f"{name}.mp4",
            pose_source="synthetic",
        )
        rows.append(row)
    write_rows(root / MANIFEST, rows)
    return root
