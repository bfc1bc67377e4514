"""What every reader and writer of files shares: checks of the input, whole-or-nothing output, digests, .npz files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.errors import DataError


def require_file(path: str | Path, what: str) -> Path:
    """`path` as an absolute Path after checking that it is a readable, non-empty file.

    Args:
        path: any name; spaces, quotes, colons and non-ASCII letters need no care.
        what: what the file should hold, for the message ("sound", "picture", "video").

    Raises:
        DataError: missing, a folder, empty or not readable.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such {what} file; check the name")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a {what} file; name a file in it")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read; change its permissions (chmod +r)")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    return path.absolute()


@contextlib.contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Name of a temporary file beside `path` that becomes `path` if the block succeeds.

    After an error or Ctrl-C neither the temporary file nor a half-written `path` is left; an older `path` stays.

    Raises:
        DataError: the folder is missing or cannot be written to, or `path` is a folder.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file to write; give a file name")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; make it first (mkdir -p)")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=f".part{path.suffix}", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; give what open() would have given
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def folder_written_beside(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` if the block succeeds; after an error nothing is left.

    Where another process was first, its folder stays: meant for folders that everybody would fill alike.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes private folders; give what mkdir() would have given
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises DataError as `written_beside` does."""
    with written_beside(path) as temporary:
        temporary.write_bytes(content)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_npz(path: Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file as float32, without unpickling anything. Raises DataError."""
    path = require_file(path, what)
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} is a single array; a {what} file is an .npz of named arrays")
        with content:
            arrays = {name: np.asarray(content[name], np.float32) for name in content.files}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file of numbers (damaged, or of another kind)") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(f"{path}: array {name} holds values that are not finite numbers")
    return arrays
