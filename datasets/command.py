"""What the commands of this library share: how they end, and their worker processes.

A user's mistake is one sentence on stderr and exit code 2, never a traceback.
"""

import argparse
import contextlib
import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NoReturn

import cv2

from datasets.errors import DataError
from datasets.files import is_full


def run(
    main: Callable[[], int | None],
    *more_errors: type[Exception],
    interrupted: str = "interrupted; nothing is half done",
) -> NoReturn:
    """Run a command and leave with its exit code; 2 after a user's mistake, 130 after Ctrl-C or SIGTERM.

    SIGTERM is raised as KeyboardInterrupt, so that temporary files are removed in either case.

    Args:
        main: the command; returns its exit code, None for 0.
        more_errors: what counts as a user's mistake beside DataError and OSError.
        interrupted: the sentence after Ctrl-C.
    """
    mistakes: tuple[type[Exception], ...] = (DataError, *more_errors)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        with contextlib.suppress(OSError):
            sys.stdout.close()
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        if is_full(error):
            where += "no space left; free some and run the same command again: "
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except mistakes as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that start afresh and use one thread of OpenCV each.

    When the block is left by an error or Ctrl-C they are ended, without a word and without waiting for their work.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


def _start_worker() -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C: so do theirs
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once; the command itself says so
    cv2.setNumThreads(1)


def positive(text: str) -> int:
    """For argparse's `type`: a whole number from 1 on."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:20]) < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def positive_number(text: str) -> float:
    """For argparse's `type`: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
