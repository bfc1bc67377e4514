"""A whole corpus: who may work on it at once, what damage to its records does, what a full disk does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.clips import ClipRow, load_manifest, load_pose_range
from datasets.errors import DataError, DiskFullError
from datasets.files import alone
from datasets.prepare import clip as clips
from datasets.prepare.__main__ import main
from datasets.prepare.clip import Options, Outcome, prepare_source
from datasets.prepare.corpus import prepare, read_journals
from datasets.prepare.sources import Source, Stretch, WholePicture
from tests.black_corpus import black_corpus

SHA256 = " ".join(["0" * 16] * 4)
ROW = ClipRow("a", "anna", "train", 64, 256, "a.mp4", 0.0, "0 0 9", 0.0, "landmarks", 1.0, 0.5, SHA256)


def continued(output: Path, number: int = 0, shards: int = 1) -> None:
    prepare([], output, output, Options(), 1, (number, shards), fixed_range=True)


def test_one_preparation_at_a_time_but_shards_share(tmp_path: Path) -> None:
    continued(tmp_path)
    with alone(tmp_path / ".running"), pytest.raises(DataError, match="another preparation is at work"):
        continued(tmp_path)
    with alone(tmp_path / ".running", shared=True):
        continued(tmp_path, 1, 2)
        with pytest.raises(DataError, match="another preparation is at work"):
            continued(tmp_path)
    with alone(tmp_path / "journal" / "0001-of-0002.jsonl"):
        continued(tmp_path, 0, 2)
        with pytest.raises(DataError, match="another preparation is at work"):
            continued(tmp_path, 1, 2)


@pytest.fixture
def again(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Continues a prepared corpus of three speakers, one of whose files is gone -> split by clip."""
    names = ("anna_1", "anna_2", "bob_1", "cid_1")
    output = black_corpus(tmp_path / "out", dict.fromkeys(names, np.zeros(13_700, np.int16)))
    rows = [replace(clip.row, identity=clip.row.id.split("_")[0]) for clip in load_manifest(output)]
    (output / "journal").mkdir()
    journal = "\n".join(Outcome(row.id, [row], []).to_json() for row in rows)
    (output / "journal" / "0000-of-0001.jsonl").write_text(journal)
    for name in ("anna/1.mp4", "bob/1.mp4", "cid/1.mp4"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True)
        (tmp_path / "raw" / name).touch()

    def run(*more: str) -> dict[str, str]:
        poses = ["--pose", "openface-csv", "--openface-csv", str(tmp_path)]
        main(["videos", "--input", str(tmp_path / "raw"), "--output", str(output), *poses, *more])
        return {clip.row.id: clip.row.split for clip in load_manifest(output)}

    return run


def test_the_last_command_decides_the_split_of_all_clips(again: Callable[..., dict[str, str]]) -> None:
    assert set(again().values()) == {"train"}
    wanted = {"anna_1": "val", "anna_2": "val", "bob_1": "test", "cid_1": "train"}
    assert again("--val-identities", "anna", "--test-identities", "bob") == wanted
    assert again("--val-identities", "cid,bob")["anna_2"] == "train"
    assert again("--shard", "0/2", "--val-identities", "bob,cid")["bob_1"] == "val"
    with pytest.raises(DataError, match="out has val_identities = 'bob,cid', not ''; give all shards the same"):
        again("--shard", "1/2")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--val-identities", "anna", "--test-identities", "bob,anna"], "anna is in --val-identities and in --test"),
        (["--min-frames", "200", "--max-frames", "100"], "--min-frames 200 is more than --max-frames 100"),
        (["--output", "{raw}"], "is the raw corpus itself"),
    ],
)
def test_options_that_cannot_go_together_are_refused_at_once(again, tmp_path: Path, more: list, words: str) -> None:
    with pytest.raises(DataError, match=words):
        again(*(word.format(raw=tmp_path / "raw") for word in more))
    assert not (tmp_path / "raw" / "clips").exists()


def test_damaged_lines_of_a_journal_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    good = Outcome("a", [ROW], [("b", "too short")])
    lines = [good.to_json(), '{"source": "half a li', "null", '{"source": "c", "rows": [{"id": "c"}], "rejected": []}']
    content = "\n".join(lines).encode() + b'\n{"source": "\xff\xfe'
    (tmp_path / "journal" / "0000-of-0001.jsonl").write_bytes(content)
    assert read_journals(tmp_path) == [good]


@pytest.mark.parametrize("content", ["{", "[]", '{"size": 3}'])
def test_damaged_or_other_settings_are_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(DataError, match=r"settings|was begun with"):
        continued(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "../../elsewhere"}, "is no name of a clip"),
        ({"id": ".."}, "is no name of a clip"),
        ({"frames": 0}, "0 frames"),
        ({"frames": 10**12}, "1000000000000 frames"),
        ({"split": "dev"}, "split 'dev'"),
        ({"start_s": "nan"}, "not finite"),
        ({"sha256": "0 0"}, "check sums"),
        ({"size": "large"}, "invalid literal"),
    ],
)
def test_a_manifest_with_values_that_cannot_be_names_the_line(tmp_path: Path, change: dict, words: str) -> None:
    values = vars(ROW) | change
    header, line = ",".join(values), ",".join(map(str, values.values()))
    (tmp_path / "manifest.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(DataError, match=f"line 2: .*{words}"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("side", [[1, 2, 3], [0] * 6, ["a"] * 6, None, [float("nan")] * 6])
def test_limits_of_poses_that_cannot_be_are_a_sentence(tmp_path: Path, side: list | None) -> None:
    (tmp_path / "pose_range.json").write_text(json.dumps({"minimum": side, "maximum": [0] * 6}))
    with pytest.raises(DataError, match="holds no limits of head poses"):
        load_pose_range(tmp_path)


def test_a_full_disk_stops_and_rejects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise DiskFullError("no space left")

    monkeypatch.setattr(clips, "_sound", full)
    source = Source(tmp_path / "a.mp4", "anna", "train", (Stretch("a", WholePicture()),))
    with pytest.raises(DiskFullError):
        prepare_source(source, tmp_path, tmp_path, Options())
