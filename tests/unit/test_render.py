"""The renderer's way from a GPU to the host, with a stand-in for a second GPU."""

import pytest
import torch

from animation.render import Renderer


class OnSecondGpu(torch.Tensor):
    """Frames that say they lie on cuda:1."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 1)


class Event:
    """Remembers the stream it was recorded on; without one, torch takes that of the current GPU."""

    stream = None

    def record(self, stream: object = ("stream of", 0)) -> None:
        self.stream = stream


def test_a_copy_is_waited_for_on_the_stream_that_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("stream of", device.index))
    frames = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3).as_subclass(OnSecondGpu)
    host, event = Renderer._to_host(None, frames)
    assert event.stream == ("stream of", 1)
    assert host.tolist() == frames.tolist()
