"""Inside evaluation/ imports point one way as well: scores -> videos -> rows; figures and the study are on top."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAY_IMPORT = {
    "videos": ("rows", "videos"),
    "scores": ("metrics", "rows", "videos", "scores"),
    "figures": ("rows", "videos", "scores", "figures"),
    "study": ("bootstrap", "study"),
    ".": ("metrics", "rows", "videos", "scores", "bootstrap", "protocol", "report", "plots", "store"),
}


def imports_from_evaluation(path: Path) -> set[str]:
    """The first names below `evaluation`; of `from evaluation import X`, X itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("evaluation.")} - {"EvaluationError"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_only_what_lies_below_them(folder):
    paths = list((ROOT / "evaluation" / folder).glob("*.py"))
    assert len(paths) > 3
    for path in paths:
        wrong = imports_from_evaluation(path) - set(MAY_IMPORT[folder])
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"
