"""Data that some tests use and that is not part of the repository: large recordings and clips of real people.

It is optional: $AUDIO2HEAD_EXTRA_DATA, or else a folder `shared` beside the checkout. Tests that need it are skipped
where it is absent.
"""

import os
from pathlib import Path

EXTRA_DATA = Path(os.environ.get("AUDIO2HEAD_EXTRA_DATA") or Path(__file__).resolve().parents[2] / "shared")
WHY_SKIPPED = f"needs optional data that is not here: {EXTRA_DATA} (tests/golden/README.md)"
