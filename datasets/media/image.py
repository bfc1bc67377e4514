"""Pictures: any file -> uint8 RGB, squares as the released code makes them.

A picture is uint8 [H, W, 3], RGB, 0..255.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.errors import DataError
from datasets.files import require_file, written_beside

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SAME_COLOUR = 3  # levels: a profile that changes PROBE by no more says sRGB in other words
PROBE = np.array(
    [[[r, g, b] for r in (0, 90, 160, 255) for g in (0, 90, 160, 255) for b in (0, 90, 160, 255)]], np.uint8
)
BRIGHTEST = 16.0  # fractions up to here are shares of white, the brighter ones lights that are cut off
CUT_OUT_SHARE = 0.005  # of the pixels hidden by alpha: from here on it is a cut-out, whose hidden colours are arbitrary


def read_image(path: str | Path, background: str = "white") -> np.ndarray:
    """Read JPEG, PNG, WebP, HEIC, AVIF, BMP, TIFF, GIF (first frame) ...

    Grey, palette, CMYK, 16 and 32 bits are taken, EXIF rotation is applied. Colour profiles are followed: the result is
    sRGB. Alpha is dropped, as the released code does, unless it hides part of the picture (a cut-out): that is laid on
    the background.

    Args:
        background: a colour's name or "#RRGGBB".

    Returns:
        uint8 [H, W, 3], upright.

    Raises:
        DataError: not a readable picture, one of more than about 179 million pixels, or no colour of that name.
    """
    from PIL import Image, ImageOps

    path, background_3 = require_file(path, "picture"), _colour(background)
    _learn_heic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice its limit raises, below is fine
            with Image.open(path) as image:
                return _rgb(ImageOps.exif_transpose(image), background_3)
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


@cache
def _learn_heic() -> None:
    """Teach Pillow to read the pictures of iPhones."""
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _colour(name: str) -> np.ndarray:
    from PIL import ImageColor

    try:
        return np.array(ImageColor.getrgb(name)[:3], np.float32)
    except ValueError as error:
        raise DataError(f"background {name!r} is no colour; give a name (white, teal) or #RRGGBB") from error


def _rgb(image: Image.Image, background_3: np.ndarray) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8)
    if image.mode in ("I", "F"):
        return _grey(_levels(np.asarray(image)))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha_HW1 = np.asarray(rgba)[..., 3:].astype(np.float32) / 255
        rgb_HW3 = _in_srgb(rgba.convert("RGB"), image.info.get("icc_profile"))
        if (alpha_HW1 < 0.5).mean() >= CUT_OUT_SHARE:
            return np.rint(rgb_HW3 * alpha_HW1 + background_3 * (1 - alpha_HW1)).astype(np.uint8)
        return rgb_HW3
    return _in_srgb(image, image.info.get("icc_profile"))


def _in_srgb(image: Image.Image, profile: bytes | None) -> np.ndarray:
    """A Pillow picture without alpha -> uint8 RGB; a broken profile, or one of other channels, is as none."""
    from PIL import Image, ImageCms

    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            named = image if image.mode in ("RGB", "CMYK", "L") else image.convert("RGB")
            given, wanted = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(given, wanted, named.mode, "RGB")
            if named.mode == "RGB":
                probe = Image.fromarray(PROBE)
                change = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - PROBE
                if np.abs(change).max() <= SAME_COLOUR:  # sRGB already: left to the bit
                    return np.array(named)
            return np.array(ImageCms.applyTransform(named, transform))
    return np.array(image.convert("RGB"))


def _grey(levels_HW: np.ndarray) -> np.ndarray:
    return np.repeat(levels_HW.astype(np.uint8)[..., None], 3, axis=2)


def _levels(values: np.ndarray) -> np.ndarray:
    """Floats and integers of any width -> 0..255 by the next usual full scale: 1 (fractions), 8, 16 or 32 bits."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    highest = values.max(initial=0.0)
    fractions = highest <= 1 or (highest < BRIGHTEST and bool((values % 1).any()))
    scales = [1.0] if fractions else [scale for scale in (255, 65535, 2**31 - 1, 2**32 - 1) if highest <= scale]
    return np.rint(np.clip(values * (255 / (scales or [highest])[0]), 0, 255))


def _read_with_opencv(path: Path) -> np.ndarray | None:
    """What Pillow does not know and OpenCV does (16-bit and float colour TIFF, JPEG 2000 variants), or None."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        return None
    if image.dtype == np.uint16:
        image = image // 256
    elif image.dtype != np.uint8:
        image = _levels(image)
    return np.ascontiguousarray(image[..., ::-1], np.uint8)
