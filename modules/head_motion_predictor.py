"""Head motion predictor N_H (Sec. 3.2, Eqs. 1-2, Fig. 3).

Letters: B batch, T video frame (25 fps), A audio window in a frame (4), F audio feature (41), E embedding,
P pose value (6).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.limits import at_least
from modules.recurrence import Recurrence
from modules.resnet import RESNET34, ResNet


@dataclass(frozen=True)
class HeadMotionPredictorConfig:
    """Sizes of N_H; the defaults are the paper's (Sec. 3.2) and the released model's."""

    embedding: int = 256
    lstm_layers: int = 2
    resnet_width: int = 64  # 64 with these depths is ResNet-34
    resnet_depths: tuple[int, ...] = RESNET34
    image_size: int = 0  # pixels, square, of the pictures it is trained with; 0: weights that do not tell
    spatial_embedding_transition: bool = True  # False: the paper's ablation "w/o SET" (Sec. 5.4)
    # Which row of the T+1 predicted poses frame 0 is drawn with. Eqs. 1-2 give frame i the pose decoded after hearing
    # audio i, i.e. row i + 1; the released inference draws frame i with row i (row 0: from the picture alone).
    first_pose_row: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, "embedding", "lstm_layers", "resnet_width")
        at_least(0, self, "image_size")
        if not self.resnet_depths or min(self.resnet_depths) < 1:
            raise ValueError(f"resnet_depths must each be at least 1, found {list(self.resnet_depths)}")
        if self.first_pose_row not in (0, 1):
            raise ValueError(f"first_pose_row must be 0 (released) or 1 (paper), found {self.first_pose_row}")


class ImageEncoder(nn.Module):
    """E_I: reference image [B, 3, H, W] in [0, 1] -> spatial embedding e_0 [B, E]."""

    def __init__(self, config: HeadMotionPredictorConfig):
        super().__init__()
        self.resnet = ResNet(3, config.embedding, config.resnet_width, config.resnet_depths)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.resnet(image_BCHW)


class AudioEncoder(nn.Module):
    """E_A: each audio frame, seen as a one-channel 4x41 picture -> audio embedding [B, T, E]."""

    def __init__(self, config: HeadMotionPredictorConfig):
        super().__init__()
        self.resnet = ResNet(1, config.embedding, config.resnet_width, config.resnet_depths)

    def forward(self, audio_BTAF: Tensor) -> Tensor:
        frames = audio_BTAF.flatten(0, 1)[:, None]
        return self.resnet(frames).unflatten(0, audio_BTAF.shape[:2])


class MotionState(NamedTuple):
    """What step i hands to step i + 1."""

    hidden: tuple[Tensor, Tensor] | None  # h_i: hidden and cell state of the LSTM; None: zeros
    embedding_BE: Tensor  # e_i
    reference_BE: Tensor  # e_0, which the ablation "w/o SET" uses at every step


class HeadMotionPredictor(nn.Module):
    """Reference image and audio of any length -> head poses scaled to about [-1, 1] (see datasets.pose.PoseRange)."""

    def __init__(self, config: HeadMotionPredictorConfig):
        super().__init__()
        self.spatial_embedding_transition = config.spatial_embedding_transition
        self.em_img = ImageEncoder(config)  # E_I
        self.em_audio = AudioEncoder(config)  # E_A
        self.lstm = nn.LSTM(2 * config.embedding, config.embedding, config.lstm_layers, batch_first=True)
        self.output = nn.Linear(config.embedding, 6)  # E_D

    def start(self, image_BCHW: Tensor) -> tuple[Tensor, MotionState]:
        """Pose of the reference image [B, 6] (row 0) and the state before the first audio frame."""
        reference = self.em_img(image_BCHW).float()
        with _float32(reference):
            return self.output(reference), MotionState(None, reference, reference)

    def advance(self, audio_BTAF: Tensor, state: MotionState) -> tuple[Tensor, MotionState]:
        """Poses [B, T, 6] of the next T audio frames and the state after them; E_A runs over all T at once."""
        audio = self.em_audio(audio_BTAF).float()  # (B, T, E)
        with _float32(audio):
            return self._follow(audio, state)

    def _follow(self, audio: Tensor, state: MotionState) -> tuple[Tensor, MotionState]:
        """The recurrence of Eqs. 1-2 over embedded sound [B, T, E]."""
        if self.spatial_embedding_transition:
            embeddings, hidden = self._transit(audio, state)
        else:
            reference = state.reference_BE[:, None].expand(-1, audio.shape[1], -1)
            embeddings, hidden = self.lstm(torch.cat([audio, reference], dim=-1), state.hidden)
        return self.output(embeddings), MotionState(hidden, embeddings[:, -1], state.reference_BE)  # Eq. 2

    def _transit(self, audio_BTE: Tensor, state: MotionState) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Eq. 1: `self.lstm` over the sound of frame i beside its own last output -> embeddings [B, T, E], its state.

        What layer 0 makes of the sound does not wait for the frame before, so it is one product for all frames.
        """
        lstm, size = self.lstm, audio_BTE.shape[-1]
        layers = range(lstm.num_layers)
        inputs = [getattr(lstm, f"weight_ih_l{n}") for n in layers]  # (4E, 2E) in layer 0, then (4E, E)
        biases = torch.stack([getattr(lstm, f"bias_ih_l{n}") + getattr(lstm, f"bias_hh_l{n}") for n in layers])
        heard_TBG = F.linear(audio_BTE.transpose(0, 1), inputs[0][:, :size], biases[0])
        inputs[0] = inputs[0][:, size:]
        if state.hidden is None:
            hidden = cells = state.embedding_BE.new_zeros(lstm.num_layers, *state.embedding_BE.shape)
        else:
            hidden, cells = state.hidden
        # Fed back is the last layer's output; before the first frame it is the picture's embedding instead.
        instead_BG = F.linear(state.embedding_BE - hidden[-1], inputs[0])
        heard_TBG = torch.cat([heard_TBG[:1] + instead_BG, heard_TBG[1:]])
        own = [getattr(lstm, f"weight_hh_l{n}") for n in layers]
        weights = (torch.stack(parts).mT for parts in (inputs, own))
        embeddings_BTE, hidden, cells = Recurrence.apply(heard_TBG, hidden, cells, *weights, biases)
        return embeddings_BTE, (hidden, cells)

    def forward(self, image_BCHW: Tensor, audio_BTAF: Tensor) -> Tensor:
        """-> pose [B, T + 1, 6]; row 0 comes from the image alone, row i + 1 has heard audio frames 0 to i."""
        first, state = self.start(image_BCHW)
        rest, _ = self.advance(audio_BTAF, state)
        return torch.cat([first[:, None], rest], dim=1)


def _float32(like: Tensor) -> torch.autocast:
    """No autocast: under CUDA's, cuDNN's LSTM runs in float16 whatever type is asked for, which bfloat16's unscaled
    gradients do not survive, and casts all of its weights anew in every step."""
    return torch.autocast(like.device.type, enabled=False)
