"""Files of published networks: checked before they are used."""

from pathlib import Path

from datasets.files import file_digest
from engine.checkpoint import CheckpointError


def checked(path: str | Path, sha256_prefix: str) -> Path:
    """The path, if its SHA-256 begins with `sha256_prefix` (hexadecimal; "" where no hash is published).

    Raises:
        CheckpointError: no such file, or another one.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    digest = file_digest(path)
    if not digest.startswith(sha256_prefix.lower()):
        raise CheckpointError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:12]}, "
            f"wanted {sha256_prefix[:12]}; download it again"
        )
    return path
