"""Scripts called in the test's own process, which spares the seconds that importing torch takes."""

import sys
from collections.abc import Callable


def status_of(main: Callable[[], None], *arguments: object) -> int:
    """Call a script's main as if from the command line; -> exit status."""
    old, sys.argv = sys.argv, [f"{main.__module__}.py", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = old
    return 0
