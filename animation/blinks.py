"""Blinks (ours): when a person blinks and how, laid over the keypoints that are tied to the lids.

Sound tells N_M nothing of blinks, so they are a small model of their own, drawn from a seed:

- intervals between blinks are log-normal (Garcia, Pinto, Barbosa and Cruz 2011); in conversation people blink some 26
  times a minute, at rest 17 (Bentivoglio et al. 1997); before a camera more often: 28 to 35 times a minute in 300 clips
  of 65 people (measured by the refined face mesh);
- a blink comes early where speech pauses (Nakano and Kitazawa 2010: speakers blink at breakpoints of their speech);
- lids close fast and open slowly: some 0.1 s down and 0.2 s up (VanderWerf et al. 2003).

A blink is decided by what was heard so far, so a stream blinks as a whole file does.

Letters: T video frame, B frame of a chunk, K keypoint.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.media.streams import FPS
from modules.face_points import LIDS, LIPS
from modules.keypoints import Keypoints

RATE = 32.0  # blinks a minute
SPREAD = 0.7  # deviation of the intervals' logarithm
SHORTEST_S = 0.5  # from one blink's start to the next one's
EARLY = 0.4  # a pause in speech brings on a blink that is due after this share of its interval is over
# Shortest and longest; closed for a frame at least, so that some frame shows it.
CLOSING_S, CLOSED_S, OPENING_S = (0.07, 0.12), (0.04, 0.07), (0.14, 0.24)
QUIET = 4.6  # log energy (natural) below the loudest so far: 20 dB
FORGET_S = 10.0  # the loudest so far counts less and less: by 1 in so many seconds
# The middles of the eyes are about 2.3 widths of an eye apart (measured on 73 clips). Stage one ties keypoints of
# closed lids a quarter of a width apart, N_D finds them at 0.6 in true blinks. At 0.2 eyes are shut in 8 of 11 unseen
# people's first frames (aspect ratio below half the open one's), at 0.3 in 6, at 0.1 in no more.
EYES_APART, CLOSED_APART = 2.3, 0.2
UPPER_SHARE = 0.6  # of the way is the upper lid's


@dataclass
class _Blink:
    """One blink; times in seconds."""

    start: float
    closing: float
    closed: float
    opening: float

    def closure(self, time_s: float) -> float:
        """0: open ... 1: closed."""
        since = time_s - self.start
        if since < self.closing:
            return _eased(since / self.closing)
        since -= self.closing + self.closed
        return 1.0 if since <= 0 else 1 - _eased((since / self.opening) ** 0.7)


def _eased(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


class Blinker:
    """How far the eyes are closed, frame after frame.

    Args:
        rate: blinks a minute, above 0.
        seed: equal seeds and equal sound give equal blinks.
    """

    def __init__(self, rate: float = RATE, seed: int = 0) -> None:
        self.random = np.random.default_rng([seed, 26])
        self.mean_s = 60 / rate
        self.frame = 0
        self.loudest = -np.inf
        self.was_quiet = True
        self.blink: _Blink | None = None
        self.since_s = 0.0  # of the start, or of the last blink's start
        self.interval_s = self._drawn() * self.random.uniform(0.3, 1.0)  # somebody is met between two blinks

    def closures(self, energy_T: np.ndarray) -> np.ndarray:
        """Closure [T] of the next T frames, 0 (open) to 1 (closed), from the sound's log energy in them."""
        return np.array([self._next(float(energy)) for energy in energy_T], np.float32)

    def _drawn(self) -> float:
        mean_s = max(self.mean_s - SHORTEST_S, 0.1)
        return SHORTEST_S + self.random.lognormal(np.log(mean_s) - SPREAD**2 / 2, SPREAD)

    def _next(self, energy: float) -> float:
        time_s = self.frame / FPS
        self.loudest = max(self.loudest - 1 / (FORGET_S * FPS), energy)
        quiet = energy < self.loudest - QUIET
        pauses, self.was_quiet = quiet and not self.was_quiet, quiet
        waited = time_s - self.since_s
        early = pauses and waited > max(SHORTEST_S, EARLY * self.interval_s)
        if self.frame > 0 and (early or waited >= self.interval_s):
            times = [self.random.uniform(*limits) for limits in (CLOSING_S, CLOSED_S, OPENING_S)]
            # It begins somewhere between this frame and the next.
            self.blink = _Blink(time_s + self.random.uniform(0, 1 / FPS), *times)
            saved_s = max(self.interval_s - waited, 0.0)  # given to the next interval: the rate stays
            self.since_s, self.interval_s = time_s, self._drawn() + saved_s
        self.frame += 1
        return 0.0 if self.blink is None else self.blink.closure(time_s)


def blinking(chunks: Iterator[Keypoints], closures: Iterable[float]) -> Iterator[Keypoints]:
    """Keypoints whose lids close as `closures` says, frame by frame; Jacobians stay."""
    coming = iter(closures)
    for chunk in chunks:
        count = len(chunk.position_BK2)
        closure_B = torch.tensor(list(itertools.islice(coming, count))).to(chunk.position_BK2)
        yield Keypoints(with_closed_lids(chunk.position_BK2, closure_B), chunk.jacobian_BK22)


def with_closed_lids(position_BK2: Tensor, closure_B: Tensor) -> Tensor:
    """Positions [B, K, 2] with the lids so far closed: 0 leaves them, 1 brings them together."""
    first = position_BK2.shape[1] - LIPS - LIDS
    lids_BE22 = position_BK2[:, first : first + LIDS].unflatten(1, (2, 2))  # eye, then upper and lower lid
    upper_BE2, lower_BE2 = lids_BE22.unbind(2)
    middle_BE2 = (upper_BE2 + lower_BE2) / 2
    eye_width_B11 = (middle_BE2[:, 1] - middle_BE2[:, 0]).norm(dim=-1)[:, None, None] / EYES_APART
    apart_BE2 = lower_BE2 - upper_BE2
    now_BE1 = apart_BE2.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    less_BE1 = (1 - CLOSED_APART * eye_width_B11 / now_BE1).clamp(min=0)  # eyes that are shut already stay as they are
    change_BE2 = closure_B[:, None, None] * less_BE1 * apart_BE2
    moved = torch.stack([upper_BE2 + UPPER_SHARE * change_BE2, lower_BE2 - (1 - UPPER_SHARE) * change_BE2], dim=2)
    return torch.cat([position_BK2[:, :first], moved.flatten(1, 2), position_BK2[:, first + LIDS :]], dim=1)
