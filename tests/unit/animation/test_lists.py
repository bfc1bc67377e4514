"""Lists of videos: which outputs are there and whole."""

import numpy as np
import pytest

from animation.lists import is_whole
from datasets.media.gif_writer import GifWriter
from datasets.media.video_writer import VideoWriter


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", VideoWriter), ("a.gif", GifWriter)])
def test_a_video_is_whole_until_it_is_cut(tmp_path, name, kind):
    path = tmp_path / name
    assert not is_whole(path)
    with kind(path) as writer:
        writer.write(np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8))
    assert is_whole(path)
    whole = path.read_bytes()
    for part in (0.3, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        assert not is_whole(path)
