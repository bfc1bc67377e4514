"""Weights on disk: one safetensors file holds any subset of the networks, each with its configuration.

Tensors are named `component.key`; the file's metadata carries `format` and `config` (JSON: component -> configuration),
so that a reader needs nothing else. Training state (optimizers, RNG) is Accelerate's, see `engine.run_folder`.
"""

import contextlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FORMAT = "audio2head/1"
MOST_HEADER_BYTES = 100_000_000  # of a safetensors file, as its specification says
FOREIGN = {  # first bytes -> what else people name as a checkpoint
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a wav, WebP or AVI file",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x89HDF": "an HDF5 file (of Keras, perhaps)",
    b"GGUF": "a GGUF file",
}
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined] # numpy declares no types for its core
# Old training files keep epoch numbers and losses as numpy scalars; these constructors hold plain numbers only.
NUMPY_SCALARS = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    _SCALAR,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what was found and what to do."""


@dataclass
class Weights:
    """State dictionaries and configurations by component name (`keypoint_detector`, `image_generator`, ...)."""

    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def load_into(self, networks: dict[str, nn.Module], source: str) -> None:
        """Fill every network whose component is here. Raises CheckpointError if none is, or one does not fit."""
        common = networks.keys() & self.states.keys()
        if not common:
            raise CheckpointError(
                f"{source} holds {sorted(self.states)}, but none of {sorted(networks)} is wanted here"
            )
        for name in sorted(common):
            load_strict(networks[name], self.states[name], f"{source} ({name})")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` on success, remove it on any failure.

    Where `path` is a symbolic link, the file that it leads to is written and the link stays.

    Raises:
        CheckpointError: it is a folder, a device or a pipe, or its links lead in a circle.
    """
    path = _written_to(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp made it private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _written_to(named: Path) -> Path:
    """Where the bytes of a file to write go, as `datasets.files.output_file`, which this package may not import."""
    try:
        path = named.resolve()
        circular = path.is_symlink()
    except RuntimeError:  # Python before 3.13
        circular = True
    if circular:
        raise CheckpointError(f"{named} cannot be written: its symbolic links lead in a circle")
    if path.is_dir():
        raise CheckpointError(f"{named} is a folder, not a file to write; give a file name")
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{named} is a device or a pipe, not a file; name a file to write")
    return path


def file_kind(path: str | Path) -> str:
    """What a weights file is by its first bytes, whatever its name: "safetensors" or "torch".

    Raises:
        CheckpointError: it is missing or no file, or plainly something else: a web page, a Git-LFS pointer ...
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise CheckpointError(f"weights file {path} {what}")
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes); download it again")
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is only a Git-LFS pointer to the weights: run `git lfs pull`, or download the file"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script", b"<!--")):
        raise CheckpointError(
            f"{path} is a web page, not weights: the download gave the site's page (a log-in or a warning, perhaps); "
            "open the address in a browser and save the file itself"
        )
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < MOST_HEADER_BYTES:
        return "safetensors"
    if start[:4] == b"PK\3\4" or start[:1] == b"\x80":
        return "torch"
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise CheckpointError(f"{path} is {what}, not weights; name a .safetensors or .pth.tar file")
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def save_weights(path: str | Path, weights: Weights) -> None:
    """Write `weights` atomically as safetensors."""
    tensors = {
        f"{component}.{key}": value.detach().cpu().contiguous().clone()
        for component, state in weights.states.items()
        for key, value in state.items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": FORMAT, "config": json.dumps(weights.configs)})
        except SafetensorError as error:  # its I/O errors (disk full) come wrapped
            raise OSError(f"{path} could not be written: {error}") from error


def load_weights(path: str | Path, tensors: bool = True) -> Weights:
    """Read a file of `save_weights`.

    Args:
        tensors: False: the configurations and the names of the components alone, from the file's beginning.

    Raises:
        CheckpointError: it is missing, truncated or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights file {path} {'is a directory' if path.is_dir() else 'does not exist'}")
    weights = Weights()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is a safetensors file, but not one of this project ({FORMAT})")
            weights.configs = _configs(metadata.get("config", ""), path)
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                component, _, key = name.partition(".")
                state = weights.states.setdefault(component, {})
                if tensors:
                    state[key] = file.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file (truncated?): {error}") from error
    return weights


def _configs(text: str, path: Path) -> dict[str, dict[str, Any]]:
    try:
        configs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its configuration is no JSON; the file is damaged") from error
    if not isinstance(configs, dict) or not all(isinstance(config, dict) for config in configs.values()):
        raise CheckpointError(f"{path}: its configuration names no networks; the file is damaged")
    return configs


def load_torch_file(path: str | Path) -> dict[str, Any]:
    """Read a `torch.save`d dictionary without running code from it (`weights_only=True`). Raises CheckpointError."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} {'is a directory' if path.is_dir() else 'does not exist'}")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path} holds Python objects beside tensors and is not loaded, since that could run code"
            ) from error
        raise CheckpointError(
            f"{path} is not a readable PyTorch checkpoint: damaged, of another kind, or one that could run code; "
            "download it again"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); it may be damaged") from error
    except Exception as error:  # the reader of a damaged file can stumble anywhere
        raise CheckpointError(
            f"{path} is not a readable PyTorch checkpoint (truncated?): {_first_line(error)}"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not a checkpoint dictionary")
    return data


def load_strict(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; every missing, unexpected or misshapen key is an error that names it.

    BatchNorm's step counters (`num_batches_tracked`) may be absent: old files lack them and inference ignores them.
    """
    expected = module.state_dict()
    state = {  # like load_state_dict, take a scalar that was saved with one element
        key: value[0] if value.shape == (1,) and key in expected and expected[key].ndim == 0 else value
        for key, value in state.items()
    }
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = sorted(set(expected) - set(state) - counters)
    unexpected = sorted(set(state) - set(expected))
    misshapen = sorted(
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in set(state) & set(expected)
        if state[key].shape != expected[key].shape
    )
    problems = [
        f"{title} {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("unexpected", unexpected), ("of wrong shape", misshapen))
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}. It may be of another version of"
            " this code (CHANGELOG.md)"
        )
    module.load_state_dict({**{key: expected[key] for key in counters}, **state}, strict=True)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]
