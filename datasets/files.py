"""What every reader and writer of files shares: checks of the input, whole-or-nothing output, digests, .npz files."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import lzma
import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import DataError, DiskFullError


def require_file(path: str | Path, what: str) -> Path:
    """`path` as an absolute Path after checking that it is a readable, non-empty file.

    Args:
        path: any name; spaces, quotes, colons and non-ASCII letters need no care.
        what: what the file should hold, for the message ("sound", "picture", "video").

    Raises:
        DataError: missing, a folder, a pipe or a device, empty or not readable.
    """
    path = _nameable(path)
    if not path.exists():
        raise DataError(f"{path}: no such {what} file; check the name")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a {what} file; name a file in it")
    if not path.is_file():
        raise DataError(f"{path} is a pipe or a device, not a {what} file; save what comes from it in a file first")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read; change its permissions (chmod +r)")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    return path.absolute()


def output_file(path: str | Path, inputs: Iterable[str | Path | None] = ()) -> Path:
    """The one judge of every file to write -> where its bytes go: absolute, symbolic links followed.

    Args:
        inputs: files of the same command that are read (or written as something else); None is passed over.

    Raises:
        DataError: it is a folder, a device or a pipe, one of `inputs`, below something that is no folder, or its links
            lead in a circle.
    """
    named = _nameable(path).absolute()
    try:
        path = named.resolve()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for links in a circle
        raise DataError(f"{named} cannot be written ({getattr(error, 'strerror', None) or error})") from error
    if path.is_symlink():
        raise DataError(f"{named} cannot be written: its symbolic links lead in a circle")
    if path.is_dir():
        raise DataError(f"{named} is a folder, not a file to write; give a file name")
    if exists and not path.is_file():
        raise DataError(f"{named} is a device or a pipe, not a file; name a file to write")
    _require_no_file_above(path, named)
    for other in inputs:
        if other is not None and (path == Path(other).resolve() or (exists and _same_file(path, Path(other)))):
            raise DataError(
                f"{named} is also {other}, which this command needs for something else; name another output"
            )
    return path


def _nameable(path: str | Path) -> Path:
    if "\0" in str(path):
        raise DataError(f"{str(path)!r} holds a zero byte, which no file name can; name another")
    return Path(path)


def make_folder(path: str | Path) -> Path:
    """Make a folder for output and those above it, where they are not there yet -> it.

    Raises:
        DataError: a file is in the way, or the folder may not be made.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file, not a folder to write into; name another")
    _require_no_file_above(path.absolute(), path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be made ({error.strerror}); choose another folder") from error
    return path


def _require_no_file_above(path: Path, named: Path) -> None:
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise DataError(f"{named} cannot be written: {above} is a file, not a folder; choose another place")


def _same_file(path: Path, other: Path) -> bool:
    """Whether both names are of one file (hard links, too)."""
    return other.exists() and path.samefile(other)


@contextlib.contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Name of a temporary file beside `path` that becomes `path` if the block succeeds.

    After an error or Ctrl-C neither the temporary file nor a half-written `path` is left; an older `path` stays.
    Where `path` is a symbolic link, the file that it leads to is written and the link stays.

    Raises:
        DataError: as `output_file` does, or the folder is missing or cannot be written to.
    """
    path = output_file(path)
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; make it first (mkdir -p)")
    handle, temporary = _temporary_beside(path)
    try:
        with _room_for(path):
            yield temporary
        temporary.chmod(0o666 & ~_umask())  # it was private; give what open() would have given
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """A file to write into, open and private -> (its handle, its name).

    Always the same name for a path, so that what a killed process has left is used again; another one only while a
    second process writes the same path. Raises DataError.
    """
    usual = path.with_name(f".{path.stem[:40]}.part{path.suffix}")
    with contextlib.suppress(OSError, ImportError):
        import fcntl

        handle = os.open(usual, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(handle)
            if found.st_nlink == 1 and os.path.samestat(found, usual.stat()):  # else just finished by another process
                os.truncate(handle, 0)
                return handle, usual
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=f".part{path.suffix}", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    return handle, Path(name)


@contextlib.contextmanager
def alone(path: Path, shared: bool = False) -> Iterator[None]:
    """In the block no other process holds a file, or if `shared` only others that share it. Raises DataError."""
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another preparation is at work on this ({path}); wait until it ends, or name another folder"
            ) from error
        yield


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
        with _room_for(path):
            yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes private folders; give what mkdir() would have given
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Turns what is raised when a disk or a quota is full into a DiskFullError that names `path`."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFullError(
                f"{path} cannot be written (no space left on the disk); free some and run the same command again"
            ) from error
        raise


def is_full(error: OSError) -> bool:
    """Whether there was no room on the disk, or under a quota or limit, for what was written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "requested and" in str(error)  # numpy: no errno


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises DataError as `written_beside` does."""
    with written_beside(path) as temporary:
        temporary.write_bytes(content)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


NPZ_BYTES = 2**30  # the largest .npz that is unpacked: a motion of about 10 hours
# What zipfile and numpy raise inside damaged files; a header that lies about its sizes can ask for any memory.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    MemoryError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    lzma.LZMAError,
    tokenize.TokenError,
)


def read_npz(path: Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file as float32, without unpickling anything. Raises DataError."""
    path = require_file(path, what)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > NPZ_BYTES:
                raise DataError(f"{path} unpacks to {unpacked / 2**30:.1f} GiB, more than any {what} file needs")
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} is a single array; a {what} file is an .npz of named arrays")
        with content:
            arrays = {}
            for name in content.files:
                array = np.asarray(content[name])
                if array.dtype.kind not in "fiub":
                    raise DataError(f"{path}: array {name} holds {array.dtype}, not real numbers")
                with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, which is refused below
                    arrays[name] = array.astype(np.float32)
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable .npz file of numbers (damaged, or of another kind)") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(f"{path}: array {name} holds values that are not finite numbers")
    return arrays


def read_array(path: Path, what: str) -> np.ndarray:
    """The array of an .npy file, without unpickling anything. Raises DataError."""
    path = require_file(path, what)
    try:  # mapped first: a header that promises more than there is asks for no memory
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable .npy file of {what} (damaged, or of another kind)") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object of a JSON file. Raises DataError."""
    try:
        data = json.loads(require_file(path, what).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no {what} file: not readable as JSON; it is damaged or of another kind") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} is no {what} file: it holds a {type(data).__name__}, not named values")
    return data


def read_table(path: Path, what: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """A CSV file with a header -> (its columns, its lines: number of the line, and cells by column, "" where absent).

    Names of columns are without spaces around them.

    Raises:
        DataError: no such file, not text, more cells than columns, or a column that is there twice.
    """
    path = require_file(path, what)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if doubled := [name for name in columns if columns.count(name) > 1]:
        raise DataError(f"{path} has the column {doubled[0]!r} twice")
    for line, row in rows:
        if any("\0" in cell for cells in row.values() for cell in cells):
            raise DataError(f"{path}, line {line}: a zero byte, which text does not hold; the file is damaged")
        if None in row:
            raise DataError(f"{path}, line {line}: more values than columns; a value with a comma needs quotes")
    return columns, rows
