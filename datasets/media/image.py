"""Pictures: any file -> uint8 RGB, squares as the released code makes them.

A picture is uint8 [H, W, 3], RGB, 0..255.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.errors import DataError
from datasets.files import require_file, written_beside

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

CUT_OUT_SHARE = 0.005  # of the pixels hidden by alpha: from here on it is a cut-out, whose hidden colours are arbitrary


def read_image(path: str | Path) -> np.ndarray:
    """Read JPEG, PNG, WebP, BMP, TIFF, GIF (first frame) ...: grey, palette, CMYK, 16-bit, alpha, EXIF rotation.

    Alpha is dropped, as the released code does, unless it hides part of the picture (a cut-out): that is laid on white.

    Returns:
        uint8 [H, W, 3], upright.

    Raises:
        DataError: not a readable picture, or one of more than about 179 million pixels.
    """
    from PIL import Image, ImageOps

    path = require_file(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice its limit raises, below is fine
            with Image.open(path) as image:
                return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has too many pixels ({error}); scale it down first") from error
    except Image.UnidentifiedImageError as error:
        image_HW3 = _read_with_opencv(path)
        if image_HW3 is None:
            raise DataError(f"{path} is not a picture that can be read; convert it to JPEG or PNG") from error
        return image_HW3
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is; scale it down first, if it is not damaged") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises inside damaged files
        raise DataError(f"{path} is damaged or cut off ({error}); copy or download it again") from error


def write_png(path: str | Path, image_HW3: np.ndarray, text: dict[str, str] | None = None) -> None:
    """Write a picture without loss, whole or not at all; `text` goes into PNG text chunks."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    with written_beside(path) as temporary:
        Image.fromarray(image_HW3).save(temporary, format="PNG", pnginfo=info, compress_level=1)


def resize_square(image_HW3: np.ndarray, size: int) -> np.ndarray:
    """Picture resized to size x size as the released code does: bilinear on 8-bit values, aspect ratio not kept."""
    if image_HW3.shape[:2] == (size, size):
        return image_HW3
    return cv2.resize(image_HW3, (size, size), interpolation=cv2.INTER_LINEAR)


def resized(picture_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scaled to a size: by area where it shrinks, bilinearly where it grows."""
    if picture_HW3.shape[:2] == (height, width):
        return picture_HW3
    smooth = cv2.INTER_AREA if width < picture_HW3.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(picture_HW3, (width, height), interpolation=smooth)


def to_float(frames_NHWC: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [0, 1]."""
    import torch  # here: who only reads and writes pictures need not wait for it

    return torch.from_numpy(np.ascontiguousarray(frames_NHWC.transpose(0, 3, 1, 2))).float().div_(255)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey (I;16, or I with 16-bit values)
        grey_HW = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba_HW4 = np.asarray(image.convert("RGBA"))
        alpha_HW1 = rgba_HW4[..., 3:].astype(np.float32) / 255
        if (alpha_HW1 < 0.5).mean() >= CUT_OUT_SHARE:
            return np.rint(rgba_HW4[..., :3] * alpha_HW1 + 255 * (1 - alpha_HW1)).astype(np.uint8)
        return np.ascontiguousarray(rgba_HW4[..., :3])
    return np.array(image.convert("RGB"))


def _read_with_opencv(path: Path) -> np.ndarray | None:
    """What Pillow does not know and OpenCV does (16-bit colour TIFF, JPEG 2000 variants), or None."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    return np.ascontiguousarray(image[..., ::-1])
