"""README and docs promise only what is there: links, commands, configurations, options, keys and versions."""

import re
import tomllib
from pathlib import Path

import pytest

from engine import checkpoint
from evaluation.protocol import PROTOCOL
from evaluation.rows import VariantPaths

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
DIARY = ROOT / "docs" / "EXPERIMENTS.md"  # its commands are those of the commits that it names
GUIDES = [page for page in PAGES if page != DIARY]
SOURCES = [
    path
    for folder in ("", "animation", "benchmarks", "datasets", "engine", "evaluation", "modules")
    for path in (ROOT / folder).glob("**/*.py" if folder else "*.py")
]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
VARIANTS = VariantPaths.__dataclass_fields__  # keys that follow from the rows, so that no line of code names them
FILES = (".py", ".csv", ".json", ".toml", ".yaml", ".zip", ".npy", ".txt", ".wav", ".pth")
# Folders and machines that only an author has.
PRIVATE = r"\bshared/|\bdata/openface|\bour machine|(?:^|\s)/work/|\bPILOT|\bdesign/|\bissue \d"

over_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
over_guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)


def code(page: Path) -> str:
    """Everything on a page that is set as code, blocks and words, a line each."""
    found = re.findall(r"```\n(.*?)```|`([^`]+)`", page.read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(block or word for block, word in found)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@over_pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link} is not there"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link} names no heading of {target.name}"


@over_guides
def test_scripts_modules_and_make_targets_are_there(page: Path) -> None:
    text = code(page)
    for script in re.findall(r"(?:python|torchrun[^\n]*?) (\w+\.py)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"python -m ([\w.]+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for target in re.findall(r"^make (?:PYTHON=\S+ )?([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


@over_guides
def test_files_of_the_project_that_are_named_are_there(page: Path) -> None:
    folders = "animation|assets|benchmarks|config|datasets|engine|evaluation|modules|tests"
    for name in re.findall(rf"(?<![\w/.])((?:{folders})/[\w*./{{}},-]*)", code(page)):
        for path in expanded(name):
            assert list(ROOT.glob(path)), f"{page.name}: {name} is not there"


def expanded(name: str) -> list[str]:
    """`a/{b,c}` -> a/b, a/c."""
    match = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", name)
    return [match[1] + part + match[3] for part in match[2].split(",")] if match else [name]


@over_guides
def test_runs_are_named_after_their_configuration(page: Path) -> None:
    for run in re.findall(r"\bruns/([\w/]+)", code(page)):
        assert (ROOT / "config" / f"{run}.yaml").is_file(), f"{page.name}: no configuration is called {run}"


@over_guides
def test_options_and_keys_exist(page: Path) -> None:
    text = code(page)
    ours = re.sub(r"\b(?:torchrun|pip|pytest|tensorboard) .*$", "", text, flags=re.MULTILINE)
    for option in set(re.findall(r"(?<!\S)--([a-z][a-z0-9-]+)", ours)) - {"help"}:
        field = option.replace("-", "_")
        known = f'"--{option}"' in CODE or re.search(rf"\b{field}\"?:", CODE)
        assert known, f"{page.name}: no option --{option}"
    for key in re.findall(r"(?<![\w./-])[a-z_]+(?:\.[a-z_0-9]+)+(?==)|^[a-z_]+(?:\.[a-z_0-9]+)+$", text, re.MULTILINE):
        if not key.endswith(FILES):
            unknown = [part for part in key.split(".") if part not in VARIANTS and not re.search(rf"\b{part}:", CODE)]
            assert not unknown, f"{page.name}: no key {key}"


@over_pages
def test_lines_fit_and_name_nothing_that_a_reader_does_not_have(page: Path) -> None:
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= 100, f"{page.name}:{number} has {len(line)} columns"
        assert not re.search(PRIVATE, line), f"{page.name}:{number}: {line}"


def test_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_code_names_nothing_that_a_reader_does_not_have() -> None:
    for path in [*SOURCES, *(ROOT / "config").rglob("*.yaml")]:
        found = re.search(PRIVATE, path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_diary_is_short_and_newest_first() -> None:
    _, *entries = re.split(r"^## ", DIARY.read_text(encoding="utf-8"), flags=re.MULTILINE)
    dates = [entry[:10] for entry in entries]
    assert dates == sorted(dates, reverse=True)
    for entry in entries:
        title, *lines = entry.rstrip().splitlines()
        assert len(lines) < 25, title
        assert re.search(r"[Cc]ommits?\s[0-9a-f]{7}", entry) and "\nVerdict: " in entry and "\nCommand: " in entry, (
            title
        )


def test_versions_are_those_of_the_code() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    table = dict(re.findall(r"^\| ([\w' ]+) \| ([\w./-]+) \|", changes, re.MULTILINE))
    assert table["code"] == version
    assert table["weights' files"] == checkpoint.FORMAT
    assert table["evaluation protocol"] == PROTOCOL
    assert f"## Protocol {PROTOCOL}\n" in (ROOT / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
