"""How scripts start and end: options, torchrun's ranks, and mistakes as one sentence with exit code 2, no traceback."""

import argparse
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from engine import config

T = TypeVar("T")
LOCK = ".lock"


def from_command_line(config_class: type[T], description: str | None) -> T:
    """`--config FILE.yaml key=value ...` -> configuration; `--help` prints the script's docstring.

    Raises:
        ConfigError: see `engine.config.load`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a file of config/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. run.dir=runs/mine data.root=data/vox")
    arguments = parser.parse_intermixed_args()
    return config.load(config_class, arguments.config, arguments.overrides)


class Busy(RuntimeError):
    """Another process is at work where this one was to begin."""


_held: set[int] = set()  # files that `only_one` holds


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # or forked workers would hold them, too, and longer than a process that is killed
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """In the block this process alone holds a file: a second of the same command stops at once.

    The lock ends with the process, however that ends. Where files cannot be locked, nothing is held.

    Args:
        path: a file that stays, or LOCK in a folder, which is made and goes again.
        what: what is at work, for the message.

    Raises:
        Busy: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT if path.name == LOCK else os.O_RDONLY, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise Busy(f"another {what} is at work here ({path}); wait until it ends, or name another") from error
        except OSError:  # some network drives lock nothing, or only what is open for writing
            break
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            break
        os.close(file)  # who held it was about to remove it
    _held.add(file)
    try:
        yield
    finally:
        if path.name == LOCK:
            path.unlink(missing_ok=True)
        _held.discard(file)
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # also for a child that was forked a moment ago
        os.close(file)


class Place(NamedTuple):
    """Which of several equal processes this one is."""

    rank: int  # 0 ... ranks - 1
    ranks: int
    local_rank: int  # among those on this machine: the number of its GPU


def from_torchrun() -> Place:
    """This process's place among those that torchrun started; the first of one without it.

    Raises:
        ConfigError: the environment names none.
    """
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    found = {name: os.environ.get(name) or usual for name, usual in names.items()}
    numbers = [int(text) if text.isdecimal() else -1 for text in found.values()]
    place = Place(*numbers)
    if min(numbers) < 0 or place.rank >= place.ranks:
        said = " ".join(f"{name}={text}" for name, text in found.items())
        raise config.ConfigError(f"{said} in the environment is no place among processes; use torchrun, or unset them")
    return place


def commit() -> str:
    """The commit that this code is of, with -dirty after it where files differ; "unknown" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


@contextlib.contextmanager
def clean_exit(*user_errors: type[Exception]) -> Iterator[None]:
    """Run a script's main body; `user_errors` and OSError become `error: ...` and exit 2, Ctrl-C and SIGTERM 130.

    SIGTERM is raised as KeyboardInterrupt, so that temporary files are removed in either case.
    """
    with contextlib.suppress(ValueError):  # not in the main thread: the caller owns the signals
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that cannot be printed must not cost the work
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Busy as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except user_errors as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {os_error_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if not _left_alone(error):
            raise
        print("error: another rank has ended, and this one with it; why stands in what that one says", file=sys.stderr)
        sys.exit(2)


def _left_alone(error: RuntimeError) -> bool:
    """Whether it is gloo's word for a rank that has gone while this one waited for it."""
    ranks = os.environ.get("WORLD_SIZE", "1")
    return ranks != "1" and any(f"Connection {how} by peer" in str(error) for how in ("closed", "reset"))


def os_error_sentence(error: OSError) -> str:
    """What failed, on which file, and for a full disk what to do."""
    where = f" {error.filename!r}" if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left on the disk while writing{where}; free some and run the same command again"
    return f"{error.strerror or error}{':' if where else ''}{where}"


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
