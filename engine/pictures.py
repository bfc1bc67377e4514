"""Pictures a person can judge a run by: columns of images with titles and keypoints, curves over time.

Letters: B batch, C H W image in [0, 1], K keypoint, T video frame.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TITLE_HEIGHT = 18  # pixels
CELL = 128  # pixels, smallest side of a picture in a sheet


def with_points(image_BCHW: Tensor, position_BK2: Tensor) -> Tensor:
    """Images with a coloured dot at each keypoint, (x, y) in [-1, 1]; on the CPU."""
    side = max(CELL, image_BCHW.shape[-1])
    images = _enlarged(image_BCHW, side)
    drawn = []
    for image, points in zip(_to_bytes(images), position_BK2.float().cpu().numpy(), strict=True):
        canvas = np.ascontiguousarray(image)
        for number, (x, y) in enumerate((points + 1) / 2 * (side - 1)):
            hue = np.array([[[round(180 * number / len(points)), 255, 255]]], np.uint8)
            colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
            cv2.circle(canvas, (round(float(x)), round(float(y))), max(2, side // 50), colour, -1, cv2.LINE_AA)
        drawn.append(torch.from_numpy(canvas).permute(2, 0, 1) / 255)
    return torch.stack(drawn)


def save_columns(path: Path, columns: Mapping[str, Tensor]) -> None:
    """One titled column for each entry, one row for each sample; one-channel images are drawn grey.

    All are drawn as large as the largest (an occlusion map is a quarter of its picture).
    """
    side = max(CELL, *(image_BCHW.shape[-1] for image_BCHW in columns.values()))
    strips = []
    for title, image_BCHW in columns.items():
        images = _to_bytes(_enlarged(image_BCHW, side))
        header = np.full((TITLE_HEIGHT, images.shape[2], 3), 255, np.uint8)
        cv2.putText(header, title, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        strips.append(np.concatenate([header, *images]))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(strips, axis=1), cv2.COLOR_RGB2BGR))


def save_curves(path: Path, curves: Mapping[str, np.ndarray], axes: tuple[str, ...], title: str = "") -> None:
    """One plot for each axis (column of the [T, len(axes)] arrays), one line for each entry of `curves`."""
    from matplotlib.figure import Figure  # here: only samples need it

    figure = Figure(figsize=(9, 1.6 * len(axes)), layout="constrained")
    plots = np.atleast_1d(figure.subplots(len(axes), sharex=True))
    for number, (plot, axis) in enumerate(zip(plots, axes, strict=True)):
        for name, values in curves.items():
            plot.plot(values[:, number], label=name, linewidth=1)
        plot.set_ylabel(axis)
    plots[0].set_title(title)
    plots[0].legend(loc="upper right", fontsize="small")
    plots[-1].set_xlabel("frame")
    figure.savefig(path, dpi=100)


def _enlarged(image_BCHW: Tensor, side: int) -> Tensor:
    image = image_BCHW.detach().float().cpu()
    return image if image.shape[-1] == side else F.interpolate(image, size=(side, side), mode="nearest")


def _to_bytes(image_BCHW: Tensor) -> np.ndarray:
    image = image_BCHW.clamp(0, 1).expand(-1, 3, -1, -1)
    return (image * 255).round().byte().permute(0, 2, 3, 1).numpy()
