"""Imports point one way: scripts and evaluation -> animation -> engine, datasets, modules; those three know nobody."""

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


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = (imported_packages(path) & OURS) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_scripts_do_not_import_scripts():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in ROOT.glob("*.py"):
        assert not imported_packages(path) & scripts, path.name
