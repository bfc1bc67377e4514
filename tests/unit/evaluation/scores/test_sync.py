"""SyncNet's scores: the public layout, a planted offset, short clips, and the crop."""

import numpy as np
import pytest
import python_speech_features
import torch
from torch import Tensor, nn

from engine.checkpoint import CheckpointError
from evaluation.scores import sync

# The public file: shape of each convolution and linear layer; a norm follows each, except the last of a head.
SOUND = {
    0: (64, 1, 3, 3),
    4: (192, 64, 3, 3),
    8: (384, 192, 3, 3),
    11: (256, 384, 3, 3),
    14: (256, 256, 3, 3),
    18: (512, 256, 5, 4),
}
LIPS = {
    0: (96, 3, 5, 7, 7),
    4: (256, 96, 1, 5, 5),
    8: (256, 256, 1, 3, 3),
    11: (256, 256, 1, 3, 3),
    14: (256, 256, 1, 3, 3),
    18: (512, 256, 1, 6, 6),
}
HEAD = {0: (512, 512), 3: (1024, 512)}


def public_layout() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for part, layers in (("netcnnaud", SOUND), ("netcnnlip", LIPS), ("netfcaud", HEAD), ("netfclip", HEAD)):
        for place, shape in layers.items():
            shapes |= {f"{part}.{place}.weight": shape, f"{part}.{place}.bias": shape[:1]}
            if shape[0] != 1024:
                names = ("weight", "bias", "running_mean", "running_var")
                shapes |= {f"{part}.{place + 1}.{name}": shape[:1] for name in names}
    return shapes


def planted_weights() -> dict[str, Tensor]:
    """Weights that pass one value through: blue of the window's middle frame, and the loudest of seven MFCC rows."""
    state = {name: torch.zeros(shape) for name, shape in public_layout().items()}
    for name in state:
        if name.endswith("running_var") or (len(state[name].shape) == 1 and name.endswith("weight")):
            state[name].fill_(1)
    for place in (0, 4, 8, 11, 14):
        weight = state[f"netcnnaud.{place}.weight"]
        weight[0, 0, 1, 1] = 1
        weight = state[f"netcnnlip.{place}.weight"]
        weight[(0, 0, *(size // 2 for size in weight.shape[2:]))] = 1
    state["netcnnaud.18.weight"][0, 0, 0, 1] = 1
    state["netcnnlip.18.weight"][0, 0, 0, 2, 2] = 1
    for part in ("netfcaud", "netfclip"):
        state[f"{part}.0.weight"][0, 0] = 1
        state[f"{part}.3.weight"][0, 0] = 1 if part == "netfcaud" else 1 / LEVELS
        state[f"{part}.3.bias"][0] = -MIDDLE
    return state


LEVELS = 10  # of brightness a unit of log energy
MIDDLE = 15  # about the sound's mean, so that padding with zeros is neither near nor far


def pulsing_sound(frames: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness changes at random from frame to frame, int16."""
    generator = np.random.default_rng(seed)
    loudness = np.exp(generator.uniform(2, 9, frames))
    return (generator.standard_normal(frames * 640) * np.repeat(loudness, 640)).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> sync.SyncNet:
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(planted_weights(), path)
    return sync.load_syncnet(path, sha256_prefix="")


def test_the_layout_is_that_of_the_public_file() -> None:
    state = sync.SyncNet().state_dict()
    found = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert found == public_layout()
    tensors = sum(value.numel() * 4 for value in state.values() if value.is_floating_point())
    assert 0 < 54_573_114 - tensors < 20_000  # the public file is its tensors and a small header


@pytest.mark.parametrize("offset", [2, -3])
def test_a_planted_offset_is_found(planted: sync.SyncNet, offset: int) -> None:
    """The frames' blue is the sound's embedding of `offset` windows before: lips that are late by so many frames."""
    frames = 20
    windows = frames - 5
    pcm = pulsing_sound(frames)
    heard = sync.sound_embeddings(planted, pcm, windows)[:, 0].numpy()
    said = heard[np.clip(np.arange(frames) - 2 - offset, 0, windows - 1)]  # a window's middle frame is its third
    pictures = np.zeros((frames, 40, 30, 3), np.uint8)
    pictures[..., 2] = np.round((said + MIDDLE) * LEVELS)[:, None, None]
    pictures[..., 0] = pictures[::-1, ..., 2]  # red misleads

    result = sync.lip_sync(planted, pictures, pcm)

    assert result.offset == offset and result.max_shift == 5
    lips = pictures[2 : windows + 2, 0, 0, 2] / LEVELS - MIDDLE
    padded = np.pad(heard, 5)
    means = [np.abs(lips - padded[start : start + windows]).mean() for start in range(11)]
    assert result.distance == pytest.approx(min(means), abs=2e-3)
    assert result.confidence == pytest.approx(np.median(means) - min(means), abs=2e-3)


def test_windows_are_embedded_as_the_public_program_does_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = sync.SyncNet().eval()
    frames_THWC = np.random.default_rng(0).integers(0, 256, (6, 50, 60, 3), dtype=np.uint8)
    whole_NE = sync.lip_embeddings(network, frames_THWC)
    with torch.inference_mode():
        for number, embedding_E in enumerate(whole_NE):
            part = [sync.cv2.resize(frame[..., ::-1], (224, 224)) for frame in frames_THWC[number : number + 5]]
            window_1CTHW = torch.from_numpy(np.stack(part)).permute(3, 0, 1, 2)[None].float()
            alone_E = network.netfclip(network.netcnnlip(window_1CTHW).flatten(1))[0]
            assert torch.allclose(embedding_E, alone_E, atol=1e-5)
    monkeypatch.setattr(sync, "BATCH", 1)
    assert len(whole_NE) == 2 and torch.allclose(sync.lip_embeddings(network, frames_THWC), whole_NE, atol=1e-5)


class Stub(nn.Module):
    """Embeds a window as the frame or sound it begins with, so that clips of any length cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def embed_lips(self, frames_CTHW: Tensor) -> Tensor:
        return frames_CTHW[0, :-4, 0, :2]

    def embed_sound(self, mfcc_NMR: Tensor) -> Tensor:
        return mfcc_NMR[:, :2, 0]


def test_sound_windows_are_20_rows_of_mfcc_4_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "embed_sound", lambda self, mfcc_NMR: mfcc_NMR.flatten(1))
    pcm = pulsing_sound(30)
    rows_RM = python_speech_features.mfcc(pcm, 16_000)
    windows_NE = sync.sound_embeddings(Stub(), pcm, 25)
    wanted = np.stack([rows_RM[4 * n : 4 * n + 20].T.flatten() for n in range(25)])
    assert windows_NE.numpy() == pytest.approx(wanted, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("frames", "max_shift"), [(100, 15), (75, 15), (50, 15), (29, 8), (8, 1)])
def test_short_clips_are_scored_over_fewer_shifts(frames: int, max_shift: int) -> None:
    """GRID has 75 frames, LRW 29."""
    result = sync.lip_sync(Stub(), np.zeros((frames, 8, 8, 3), np.uint8), pulsing_sound(frames))
    assert result.max_shift == max_shift and abs(result.offset) <= max_shift
    assert np.isfinite([result.confidence, result.distance]).all()


def test_a_clip_or_sound_too_short_to_compare_gives_nan() -> None:
    pictures = np.zeros((30, 8, 8, 3), np.uint8)
    for result in (
        sync.lip_sync(Stub(), pictures[:7], pulsing_sound(30)),
        sync.lip_sync(Stub(), pictures, pulsing_sound(7)),
        sync.lip_sync(Stub(), pictures, np.zeros(0, np.int16)),
    ):
        assert np.isnan(result[:3]).all() and result.max_shift == 0


def test_a_file_that_is_missing_or_another_is_said_in_a_sentence(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.model does not exist"):
        sync.load_syncnet(tmp_path / "nowhere.model")
    path = tmp_path / "syncnet_v2.model"
    state = planted_weights()
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="not the published file"):
        sync.load_syncnet(path)
    del state["netcnnlip.4.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"missing netcnnlip\.4\.bias"):
        sync.load_syncnet(path, sha256_prefix="")


def test_the_crop_is_that_of_the_public_pipeline() -> None:
    """A face of 160 pixels: the crop reaches 80 up, 144 down and 112 to the sides of its centre, grey outside."""
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    box_T4 = np.tile([20.0, 60, 180, 200], (20, 1))  # 160 wide, 140 high, centre (100, 130)
    box_T4[9] += 40  # one wrong detection
    crops = sync.face_crops(np.stack([picture] * 20), box_T4)
    wanted = np.pad(picture, ((0, 0), (12, 0), (0, 0)), constant_values=110)[50:274, :224]
    assert crops.shape == (20, 224, 224, 3)
    assert (crops == wanted).all()
    assert (sync.face_crops(picture[None], box_T4[:1]) == wanted).all()  # a clip shorter than the filter
