"""The renderer: drawing on several threads of a CPU, and its way from a GPU to the host, with a stand-in for one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from animation.full_size import FullSize, Geometry
from animation.render import MOST_DRAWN_AT_ONCE, Renderer
from modules.image_generator import DenseMotionConfig, ImageGenerator, ImageGeneratorConfig
from modules.keypoints import Keypoints

FRAMES = 23


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


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def small_renderer(batch_size: int, full_size: bool) -> Renderer:
    torch.manual_seed(0)
    dense = DenseMotionConfig(block_expansion=8, max_features=16, num_blocks=2)
    config = ImageGeneratorConfig(64, 4, 8, 16, num_bottleneck_blocks=1, dense_motion=dense)
    maker = None
    if full_size:
        photograph_HW3 = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
        geometry = Geometry(np.array([[2.0, 0, 20], [0, 2, 10]]), 64, config.align_corners)
        maker = FullSize(photograph_HW3, geometry, torch.device("cpu"))
    generator = ImageGenerator(config).eval()
    source = Keypoints(torch.rand(1, 4, 2) - 0.5, torch.eye(2).expand(1, 4, 2, 2))
    return Renderer(generator, torch.rand(1, 3, 64, 64), source, batch_size, truncate=False, full_size=maker)


def wandering(renderer: Renderer) -> Keypoints:
    torch.manual_seed(1)
    return renderer.source.repeated(FRAMES).map(lambda part: part + 0.1 * torch.randn(part.shape))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("full_size", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_threads_draw_the_same_frames_in_the_same_order(
    batch_size: int, ahead: bool, full_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = small_renderer(batch_size, full_size)
    driving = wandering(renderer)
    chunks = [driving.cut(0, 9), driving.cut(9, 10), driving.cut(10, None)]
    expected = np.concatenate(list(renderer.drawn_in_turn(iter(chunks))))
    assert len(expected) == FRAMES and len(np.unique(expected, axis=0)) == FRAMES
    called = []
    draw = renderer._drawn_at_once
    monkeypatch.setattr(renderer, "_drawn_at_once", lambda *rest: called.append(rest) or draw(*rest))
    found = np.concatenate(list(renderer.frames(iter(chunks), ahead)))
    assert called and torch.get_num_threads() == 2
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("two_threads")
def test_frames_that_can_be_drawn_do_not_wait_for_a_chunk_that_is_long_in_coming() -> None:
    renderer = small_renderer(1, False)
    driving, given = wandering(renderer), []

    def chunks() -> Iterator[Keypoints]:
        for start in range(0, FRAMES, 8):
            assert len(given) == start
            yield driving.cut(start, min(start + 8, FRAMES))

    for frame in renderer.frames(chunks(), ahead=False):
        given.append(frame)
    assert len(given) == FRAMES


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("ahead", "expected"), [(True, [2, 1, 1]), (False, [2, 2, 2])])
def test_threads_are_given_back_whenever_frames_are(ahead: bool, expected: list[int]) -> None:
    """Only what is computed beside the drawing has to do with fewer."""
    renderer, while_computing = small_renderer(1, False), []
    driving = wandering(renderer)

    def chunks() -> Iterator[Keypoints]:
        for start in range(0, FRAMES, 8):
            while_computing.append(torch.get_num_threads())
            yield driving.cut(start, min(start + 8, FRAMES))

    for _ in renderer.frames(chunks(), ahead):
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as later:  # a thread that begins now
            assert later.submit(torch.get_num_threads).result() == 2
    assert while_computing == expected


@pytest.mark.usefixtures("two_threads")
def test_large_batches_are_drawn_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = small_renderer(8, False)
    monkeypatch.setattr(renderer, "_drawn_at_once", None)
    assert sum(map(len, renderer.frames(iter([wandering(renderer)])))) == FRAMES


@pytest.mark.usefixtures("two_threads")
def test_one_long_chunk_is_not_drawn_before_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer, drawn = small_renderer(1, False), []
    once = renderer._drawn
    monkeypatch.setattr(renderer, "_drawn", lambda *batch: drawn.append(batch) or once(*batch))
    frames = renderer.frames(iter([wandering(renderer)]))
    next(frames)
    assert len(drawn) <= 2 * MOST_DRAWN_AT_ONCE < FRAMES
    frames.close()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_fails_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = small_renderer(1, False)

    def fails(*batch: object) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(renderer, "_drawn", fails)
    with pytest.raises(MemoryError, match="full"):
        list(renderer.frames(iter([wandering(renderer)])))
    assert torch.get_num_threads() == 2
