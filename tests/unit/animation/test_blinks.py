"""Blinks: how often, when, how; and what they do to the lids' keypoints."""

import math

import numpy as np
import pytest
import torch

from animation.blinks import CLOSED_APART, EYES_APART, Blinker, blinking, with_closed_lids
from datasets.media.streams import FPS
from modules.keypoints import Keypoints

SPEECH, PAUSE = 60, 15  # frames


def energies(minutes: float) -> np.ndarray:
    """Log energy of speech with a pause every three seconds."""
    sentence = np.r_[np.full(SPEECH, 10.0), np.full(PAUSE, 2.0)]
    return np.tile(sentence, round(minutes * 60 * FPS / len(sentence)))


def starts(closure_T: np.ndarray) -> np.ndarray:
    """Frames in which a blink begins."""
    return np.flatnonzero((closure_T[1:] > 0) & (closure_T[:-1] == 0)) + 1


@pytest.mark.parametrize("rate", [10.0, 26.0, 50.0])
def test_blinks_come_as_often_as_asked(rate: float) -> None:
    counts = [len(starts(Blinker(rate, seed).closures(energies(20)))) for seed in range(3)]
    assert np.mean(counts) / 20 == pytest.approx(rate, rel=0.1)


def test_every_blink_shuts_the_eyes_wholly_and_opens_them_again() -> None:
    closure_T = Blinker(seed=1).closures(energies(10))
    begun = starts(closure_T)
    assert closure_T[:2].max() == 0 and len(begun) > 200
    for first in begun[:-1]:
        blink_T = closure_T[first : first + 13]  # half a second
        assert blink_T.max() == 1
        assert blink_T.min() == 0
        shut = int(blink_T.argmax())
        opened = shut + int((blink_T[shut:] < 0.2).argmax())
        assert shut <= 4 and opened - shut >= 3  # down fast, up slowly


def test_blinks_gather_where_speech_pauses() -> None:
    after_T = np.arange(75) - SPEECH  # frames since the pause began
    counts = np.bincount(starts(Blinker(seed=2).closures(energies(40))) % 75, minlength=75)
    near = (after_T >= 0) & (after_T < 6)
    assert counts[near].sum() / counts.sum() > 2.5 * near.mean()


def test_intervals_are_as_uneven_as_people_s() -> None:
    intervals = np.diff(starts(Blinker(seed=3).closures(np.full(60 * 60 * FPS, 10.0)))) / FPS
    assert np.log(intervals).std() == pytest.approx(0.6, abs=0.12)
    assert intervals.min() >= 0.48


def test_equal_seeds_blink_alike_and_a_stream_as_the_whole() -> None:
    energy_T = energies(3)
    whole_T = Blinker(seed=4).closures(energy_T)
    stream = Blinker(seed=4)
    pieces = [stream.closures(piece) for piece in np.array_split(energy_T, 70)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole_T)
    assert not np.array_equal(Blinker(seed=5).closures(energy_T), whole_T)


def face(turn: float = 0.0) -> torch.Tensor:
    """Ten keypoints [1, 10, 2]: two free ones, four lids of eyes 0.2 wide, four lips; turned about the middle."""
    width, open_ = 0.2, 0.09
    left, right = -EYES_APART * width / 2, EYES_APART * width / 2
    lids = [[left, -0.2 - open_], [left, -0.2 + open_], [right, -0.2 - open_], [right, -0.2 + open_]]
    lips = [[-0.2, 0.4], [0.2, 0.4], [0, 0.35], [0, 0.45]]
    points = torch.tensor([[0.1, 0.2], [0.5, -0.6], *lids, *lips])
    cos, sin = math.cos(turn), math.sin(turn)
    return (points @ torch.tensor([[cos, sin], [-sin, cos]]))[None]


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_lids_meet_and_nothing_else_moves(turn: float) -> None:
    position = face(turn)
    shut = with_closed_lids(position, torch.ones(1))
    apart = (shut[0, 3] - shut[0, 2]).norm(), (shut[0, 5] - shut[0, 4]).norm()
    assert [float(a) for a in apart] == pytest.approx([CLOSED_APART * 0.2] * 2, rel=1e-4)
    others = [0, 1, 6, 7, 8, 9]
    assert torch.equal(shut[:, others], position[:, others])
    assert torch.equal(with_closed_lids(position, torch.zeros(1)), position)
    half = with_closed_lids(position, torch.full((1,), 0.5))
    torch.testing.assert_close(half, (position + shut) / 2)
    assert (shut - position)[0, 2].norm() > (shut - position)[0, 3].norm()  # the upper lid goes further
    torch.testing.assert_close(with_closed_lids(shut, torch.ones(1)), shut)  # eyes that are shut stay


def test_each_frame_of_each_chunk_gets_its_own_closure() -> None:
    chunks = [Keypoints(face().expand(3, -1, -1), None), Keypoints(face().expand(2, -1, -1), None)]
    closure_T = np.float32([0, 0.25, 0.5, 0.75, 1])
    found = torch.cat([chunk.position_BK2 for chunk in blinking(iter(chunks), closure_T)])
    wanted = with_closed_lids(face().expand(5, -1, -1), torch.from_numpy(closure_T))
    torch.testing.assert_close(found, wanted)
