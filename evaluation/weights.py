"""Files of published networks that measure: present and genuine, or the metric is not computed."""

import hashlib
from pathlib import Path

from engine.checkpoint import CheckpointError


class MissingWeights(FileNotFoundError):
    """A metric needs a file that is not there. The number is then reported as not computed, never replaced.

    Attributes:
        metric: name of the metric, as in the tables.
        file: name of the file under which it is published.
        source: where to get it.
    """

    def __init__(self, metric: str, file: str, source: str) -> None:
        super().__init__(f"{metric} is not computed: needs {file}, from {source}")
        self.metric, self.file, self.source = metric, file, source


def checked(path: str | Path, sha256_prefix: str) -> Path:
    """The path, if its SHA-256 begins with `sha256_prefix` (hexadecimal; "" where no hash is published).

    Raises:
        CheckpointError: no such file, or another one.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256_prefix.lower()):
        raise CheckpointError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:12]}, "
            f"wanted {sha256_prefix[:12]}; download it again"
        )
    return path
