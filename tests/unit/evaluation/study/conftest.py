"""A study of two methods and two clips."""

from pathlib import Path

import numpy as np
import pytest

from datasets.media.video_writer import VideoWriter
from evaluation.study.answers import Key, read_key
from evaluation.study.page import make_page

METHODS = ("audio2head", "makeittalk")
CLIPS = ("obama1", "obama2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, method in enumerate(METHODS):
        (folder / method).mkdir()
        for clip in CLIPS:
            with VideoWriter(folder / method / f"{clip}.mp4") as writer:
                writer.write(np.full((3, 32, 32, 3), 60 + 90 * number, np.uint8))
    return folder


@pytest.fixture
def made(videos, tmp_path) -> tuple[Path, Key]:
    key_path, count = make_page(videos, tmp_path / "STUDY.html", "A <study> & more")
    assert count == 4
    return tmp_path / "STUDY.html", read_key(key_path)
