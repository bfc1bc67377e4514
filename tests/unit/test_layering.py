"""Imports point one way: scripts and evaluation -> animation -> engine, datasets, modules; those three know nobody.

Inside datasets/ too: the commands and what networks eat -> prepare -> face -> media -> files and errors.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "modules": {"modules"},
    "datasets": {"datasets"},
    "engine": {"engine"},
    "animation": {"animation", "engine", "datasets", "modules"},
    "evaluation": {"evaluation", "animation", "engine", "datasets", "modules"},
}
OURS = set(MAY_IMPORT) | {path.stem for path in ROOT.glob("*.py")}

GROUND = {"errors", "files", "pose"}  # modules of datasets/ that stand on no folder
MAY_IMPORT_INSIDE_DATASETS = {
    "media": GROUND | {"media", "provenance"},
    "face": GROUND | {"face", "media"},
    "prepare": GROUND | {"prepare", "face", "media", "audio", "clips", "command"},
    "clips": GROUND | {"media", "audio"},
    "pitch": GROUND | {"media"},
    "audio": GROUND | {"media", "pitch", "speech_embedding"},
    "audio_stream": GROUND | {"media", "audio", "pitch"},
    "voices": GROUND | {"media", "audio", "clips", "pitch"},
    "speech_embedding": GROUND | {"media"},
    "features": GROUND | {"audio", "clips", "command"},
    "provenance": GROUND | {"command"},
    "command": GROUND,
    "errors": set(),
    "files": {"errors"},
    "pose": set(),
}
TOP_LEVEL = {path.stem for path in (ROOT / "datasets").iterdir() if path.suffix == ".py" or path.is_dir()}


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = (imported_packages(path) & OURS) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("place", MAY_IMPORT_INSIDE_DATASETS)
def test_folders_of_datasets_import_only_what_lies_below_them(place):
    folder = ROOT / "datasets" / place
    paths = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert paths and all(path.is_file() for path in paths)
    for path in paths:
        parts = {name.split(".")[1] for name in imported_modules(path) if name.startswith("datasets.")}
        wrong = (parts & TOP_LEVEL) - MAY_IMPORT_INSIDE_DATASETS[place]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)} of datasets/"


def test_scripts_do_not_import_scripts():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in ROOT.glob("*.py"):
        assert not imported_packages(path) & scripts, path.name
