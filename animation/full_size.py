"""Frames at the picture's own size: the photograph moved by N_I's motion field, with what N_I painted laid over it.

N_I draws small squares; but its motion field says where every pixel comes from, and that is as true of the photograph.
So the photograph is warped at its own size, and only what the network painted is enlarged (ours):

    frame = (1 - up(m)) * warp(photograph) + up(drawn - (1 - m) * warp(small square))

m is the share that the network paints: `source_skip`'s mask where the weights have one (the second term is then what
was painted, weighed by m: the frame is N_I's own mixture at full size), else 1 - occlusion. docs/PICTURES.md has what
was measured.

Motion and painting fade to nothing towards those sides of the square beyond which the photograph goes on, so there is
no seam: there and outside, the frame is the photograph to the bit.

Letters: B frame, S small square's side, n nodes of the motion field, H W photograph, digits literal.
"""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.image_generator import Rendering
from modules.keypoints import warp

FADE = 0.15  # of the square's side: where motion and painting grow from nothing to all
FINER = 4  # a node's cell is enlarged so many times by cubic interpolation, the rest of the way linearly
SUPPORT = 2  # cells over which cubic interpolation spreads a node: these lie still at a fading side
TWICE = (
    2  # the photograph is enlarged so far before it is warped linearly: nearly as sharp as cubic, four times as fast
)
FRAMES_AT_ONCE = 4  # on a GPU, which bounds its memory


class Layers:
    """What one batch of small frames says about the full-size ones, on the renderer's device."""

    def __init__(self, displacement_Bnn2: Tensor, over_BSS4: Tensor):
        self.displacement_Bnn2 = displacement_Bnn2  # photograph pixels, from each node to where its pixel comes from
        self.over_BSS4 = over_BSS4  # float32: RGB [0, 255], already weighed by m, and m


@dataclass(frozen=True)
class Geometry:
    """Where the small square lies in the photograph.

    Attributes:
        matrix_23: small square's pixel (x, y, 1) -> photograph's pixel; centres of the first pixels are (0, 0) in both.
        size: side of the small square, pixels.
        align_corners: of N_I's sampling.
    """

    matrix_23: np.ndarray
    size: int
    align_corners: bool

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The part of a photograph that the square can touch: left, top, right, bottom, whole pixels."""
        edge = self.size - 0.5
        corners_43 = np.array([[-0.5, -0.5, 1], [edge, -0.5, 1], [edge, edge, 1], [-0.5, edge, 1]])
        corners_42 = corners_43 @ self.matrix_23.T
        left, top = np.clip(np.floor(corners_42.min(axis=0)), 0, (width - 1, height - 1))
        right, bottom = np.clip(np.ceil(corners_42.max(axis=0)) + 1, (left + 1, top + 1), (width, height))
        return int(left), int(top), int(right), int(bottom)

    def to_square(self) -> np.ndarray:
        """Photograph's pixel (x, y, 1) -> the square's, [2, 3] float64."""
        return cv2.invertAffineTransform(np.asarray(self.matrix_23, np.float64))

    def fading_sides(self, height: int, width: int) -> tuple[bool, bool, bool, bool]:
        """Whether the photograph goes on beyond the left, top, right and bottom side, by half a pixel or more."""
        corners_43 = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]])
        corners_42 = corners_43 @ self.to_square().T
        (left, top), (right, bottom) = corners_42.min(axis=0), corners_42.max(axis=0)
        half = 0.5 / float(np.linalg.norm(self.matrix_23[:, 0]))  # a photograph's pixel, in the square's
        return left < -half - 0.5, top < -half - 0.5, right > self.size - 0.5 + half, bottom > self.size - 0.5 + half

    def node_places(self, nodes: int) -> np.ndarray:
        """Where the nodes of a motion field lie along one axis, in the square's pixels -> [nodes]."""
        index = np.arange(nodes)
        if self.align_corners:
            return index * (self.size - 1) / (nodes - 1)
        return (index + 0.5) * self.size / nodes - 0.5

    def fade(self, places: np.ndarray, still: float, sides: tuple[bool, bool, bool, bool]) -> np.ndarray:
        """[n, n] in [0, 1] at these places of both axes: 0 up to `still` pixels from a fading side, then smoothly 1."""

        def axis(first: bool, last: bool) -> np.ndarray:
            factor = np.ones(len(places))
            for counts, distance in ((first, places + 0.5), (last, self.size - 0.5 - places)):
                if counts:
                    inward = np.clip((distance - still) / (FADE * self.size), 0, 1)
                    factor = factor * inward**2 * (3 - 2 * inward)
            return factor

        left, top, right, bottom = sides
        return np.outer(axis(top, bottom), axis(left, right))


class FullSize:
    """Makes full-size frames out of N_I's renderings of one photograph.

    Args:
        photograph_HW3: uint8 RGB.
        geometry: where the small square that N_I sees was cut.
        device: of the renderer; frames are made there.
    """

    def __init__(self, photograph_HW3: np.ndarray, geometry: Geometry, device: torch.device):
        self.photograph_HW3, self.geometry, self.device = photograph_HW3, geometry, device
        self._fades: dict[tuple[int, float], Tensor] = {}
        painter = _OnCpu if device.type == "cpu" else _OnGpu
        self._painter = painter(photograph_HW3, geometry, device)

    def layers(self, rendering: Rendering, small_source_BCHW: Tensor) -> Layers:
        """From one batch of renderings.

        Args:
            small_source_BCHW: [1, 3, S, S] in [0, 1], what N_I encoded.
        """
        geometry, field_Bnn2 = self.geometry, rendering.motion.deformation_BHW2.float()
        nodes = field_Bnn2.shape[1]
        places = geometry.node_places(nodes)
        y, x = np.meshgrid(places, places, indexing="ij")
        here_nn2 = torch.from_numpy(np.stack([x, y], axis=-1)).to(field_Bnn2)
        if geometry.align_corners:
            there_Bnn2 = (field_Bnn2 + 1) * ((geometry.size - 1) / 2)
        else:
            there_Bnn2 = ((field_Bnn2 + 1) * geometry.size - 1) / 2
        turned_22 = torch.from_numpy(np.ascontiguousarray(geometry.matrix_23[:, :2].T)).to(field_Bnn2)
        cell = places[1] - places[0]
        displacement_Bnn2 = (there_Bnn2 - here_nn2) @ turned_22 * self._fade(nodes, SUPPORT * cell)[..., None]
        over_B4SS = _painted(rendering, small_source_BCHW, geometry.align_corners)
        over_BSS4 = over_B4SS.movedim(1, -1) * self._fade(geometry.size, 1.0)[..., None]
        return Layers(displacement_Bnn2, over_BSS4.contiguous())

    def frames(self, layers: Layers) -> Tensor:
        """-> uint8 [B, H, W, 3] on the device."""
        return self._painter.frames(layers)

    def _fade(self, nodes: int, still: float) -> Tensor:
        key = nodes, still
        if key not in self._fades:
            geometry = self.geometry
            places = np.arange(geometry.size) if nodes == geometry.size else geometry.node_places(nodes)
            fade_nn = geometry.fade(places, still, geometry.fading_sides(*self.photograph_HW3.shape[:2]))
            self._fades[key] = torch.from_numpy(fade_nn).float().to(self.device)
        return self._fades[key]


def _painted(rendering: Rendering, small_source_BCHW: Tensor, align_corners: bool) -> Tensor:
    """What the network adds to the warped photograph, RGB [0, 255], and its share m -> [B, 4, S, S]."""
    if rendering.skip_mask_B1HW is not None:
        share_B1SS = rendering.skip_mask_B1HW
        return torch.cat([share_B1SS * rendering.painted_BCHW.float() * 255, share_B1SS], dim=1)
    size = rendering.image_BCHW.shape[-2:]
    resize = {"size": size, "mode": "bilinear", "align_corners": align_corners}
    share_B1SS = F.interpolate(1 - rendering.motion.occlusion_B1HW.float(), **resize)
    field_B2SS = F.interpolate(rendering.motion.deformation_BHW2.movedim(-1, 1), **resize)
    source_BCHW = small_source_BCHW.expand(len(field_B2SS), -1, -1, -1)
    warped_BCHW = warp(source_BCHW, field_B2SS.movedim(1, -1), align_corners, padding="border")
    return torch.cat([(rendering.image_BCHW.float() - (1 - share_B1SS) * warped_BCHW) * 255, share_B1SS], dim=1)


class _Buffers:
    """Maps of a box's size, used again for each frame: memory that is new each time costs as much as the arithmetic."""

    def __init__(self, height: int, width: int) -> None:
        box = height, width
        self.from_HW2, self.painted_HW3, self.kept_HW3 = (np.empty((*box, n), np.float32) for n in (2, 3, 3))
        self.kept_HW, self.moved_HW3 = np.empty(box, np.float32), np.empty((*box, 3), np.uint8)


class _OnCpu:
    """OpenCV, frame by frame: at 1280x720 a few milliseconds each."""

    def __init__(self, photograph_HW3: np.ndarray, geometry: Geometry, device: torch.device):
        height, width = photograph_HW3.shape[:2]
        self.photograph_HW3, self.geometry = photograph_HW3, geometry
        self.left, self.top, self.right, self.bottom = geometry.box(height, width)
        self.size = self.right - self.left, self.bottom - self.top
        to_square_23 = geometry.to_square()
        self.to_square_23 = np.column_stack(
            [to_square_23[:, :2], to_square_23 @ np.array([self.left, self.top, 1.0])]
        )  # from pixels of the box
        y, x = np.mgrid[self.top : self.bottom, self.left : self.right].astype(np.float32)
        self.here_HW2 = np.dstack([x, y]) * TWICE
        # Every second pixel in both directions is a pixel of the photograph itself, so what does not move stays equal.
        half = np.array([[1 / TWICE, 0, 0], [0, 1 / TWICE, 0]])
        self._buffers = threading.local()
        self.twice_HW3 = cv2.warpAffine(
            photograph_HW3,
            half,
            (TWICE * width - 1, TWICE * height - 1),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    @property
    def buffers(self) -> _Buffers:
        """Those of the calling thread."""
        if not hasattr(self._buffers, "own"):
            self._buffers.own = _Buffers(self.bottom - self.top, self.right - self.left)
        return self._buffers.own

    def frames(self, layers: Layers) -> Tensor:
        frames_BHW3 = np.empty((len(layers.over_BSS4), *self.photograph_HW3.shape), np.uint8)
        per_frame = zip(frames_BHW3, layers.displacement_Bnn2.numpy(), layers.over_BSS4.numpy(), strict=True)
        for frame_HW3, displacement_nn2, over_SS4 in per_frame:
            np.copyto(frame_HW3, self.photograph_HW3)
            self._fill(frame_HW3[self.top : self.bottom, self.left : self.right], displacement_nn2, over_SS4)
        return torch.from_numpy(frames_BHW3)

    def _fill(self, box_HW3: np.ndarray, displacement_nn2: np.ndarray, over_SS4: np.ndarray) -> None:
        nodes, buffers = len(displacement_nn2), self.buffers
        finer = FINER * nodes
        displacement_ff2 = cv2.resize(displacement_nn2 * TWICE, (finer, finer), interpolation=cv2.INTER_CUBIC)
        places = self.geometry.node_places(nodes)
        cell = (places[1] - places[0]) / FINER
        first = places[0] - (FINER - 1) / 2 * cell  # of the finer nodes, in the square's pixels
        to_finer_23 = (self.to_square_23 - np.array([[0, 0, first], [0, 0, first]])) / cell
        from_HW2 = self._enlarged(displacement_ff2, to_finer_23, buffers.from_HW2)
        cv2.add(from_HW2, self.here_HW2, dst=from_HW2)
        moved_HW3 = cv2.remap(
            self.twice_HW3, from_HW2, None, cv2.INTER_LINEAR, dst=buffers.moved_HW3, borderMode=cv2.BORDER_REPLICATE
        )
        kept_HW = self._enlarged(1 - over_SS4[..., 3], self.to_square_23, buffers.kept_HW)
        painted_HW3 = self._enlarged(np.ascontiguousarray(over_SS4[..., :3]), self.to_square_23, buffers.painted_HW3)
        cv2.merge([kept_HW] * 3, dst=buffers.kept_HW3)
        cv2.multiply(moved_HW3, buffers.kept_HW3, dst=buffers.kept_HW3, dtype=cv2.CV_32F)
        cv2.add(buffers.kept_HW3, painted_HW3, dst=box_HW3, dtype=cv2.CV_8U)

    def _enlarged(self, small: np.ndarray, matrix_23: np.ndarray, into: np.ndarray) -> np.ndarray:
        """`small` over the whole box; `matrix_23` takes the box's pixels to its own."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(small, matrix_23, self.size, dst=into, flags=flags, borderMode=cv2.BORDER_REPLICATE)


class _OnGpu:
    """The same on the device, a few frames at a time."""

    def __init__(self, photograph_HW3: np.ndarray, geometry: Geometry, device: torch.device):
        height, width = photograph_HW3.shape[:2]
        self.geometry = geometry
        self.photograph_HW3 = torch.from_numpy(photograph_HW3).to(device)
        self.photograph_13HW = self.photograph_HW3.movedim(-1, 0)[None].float()
        self.left, self.top, self.right, self.bottom = geometry.box(height, width)
        y, x = torch.meshgrid(
            torch.arange(self.top, self.bottom, device=device, dtype=torch.float32),
            torch.arange(self.left, self.right, device=device, dtype=torch.float32),
            indexing="ij",
        )
        self.here_HW2 = torch.stack([x, y], dim=-1)
        to_square_23 = torch.from_numpy(geometry.to_square()).to(device, torch.float32)
        self.square_HW2 = self.here_HW2 @ to_square_23[:, :2].T + to_square_23[:, 2]
        self.sides = torch.tensor([width, height], device=device, dtype=torch.float32)

    def frames(self, layers: Layers) -> Tensor:
        parts = zip(layers.displacement_Bnn2.split(FRAMES_AT_ONCE), layers.over_BSS4.split(FRAMES_AT_ONCE), strict=True)
        frames_BHW3 = self.photograph_HW3.expand(len(layers.over_BSS4), -1, -1, -1).clone()
        box = torch.cat([self._box(displacement, over) for displacement, over in parts])
        frames_BHW3[:, self.top : self.bottom, self.left : self.right] = box
        return frames_BHW3

    def _box(self, displacement_Bnn2: Tensor, over_BSS4: Tensor) -> Tensor:
        nodes = displacement_Bnn2.shape[1]
        places = self.geometry.node_places(nodes)
        at_nodes_HW2 = (self.square_HW2 - places[0]) / (places[1] - places[0])
        displacement_B2HW = _sample(displacement_Bnn2.movedim(-1, 1), at_nodes_HW2, nodes, "bicubic")
        from_BHW2 = self.here_HW2 + displacement_B2HW.movedim(1, -1)
        grid_BHW2 = (2 * from_BHW2 + 1) / self.sides - 1
        moved_B3HW = F.grid_sample(
            self.photograph_13HW.expand(len(grid_BHW2), -1, -1, -1),
            grid_BHW2,
            mode="bicubic",
            padding_mode="border",
            align_corners=False,
        )
        over_B4HW = _sample(over_BSS4.movedim(-1, 1), self.square_HW2, over_BSS4.shape[1], "bilinear")
        frame_B3HW = moved_B3HW * (1 - over_B4HW[:, 3:]) + over_B4HW[:, :3]
        return frame_B3HW.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def _sample(map_BCnn: Tensor, at_HW2: Tensor, nodes: int, mode: str) -> Tensor:
    """Maps at positions given in their own pixels -> [B, C, H, W]."""
    grid = ((2 * at_HW2 + 1) / nodes - 1).expand(len(map_BCnn), -1, -1, -1)
    return F.grid_sample(map_BCnn, grid, mode=mode, padding_mode="border", align_corners=False)
