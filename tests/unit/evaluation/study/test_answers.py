"""Table 3 of the user study against values computed by hand, and files of answers that do not count."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.errors import DataError
from evaluation import EvaluationError
from evaluation.study.answers import ANSWERS_FORMAT, Key, read_answers, read_key, score_answers

ROOT = Path(__file__).resolve().parents[4]
CLIPS = ("obama1", "obama2")


def answer(key: Key, participant: str, scores: dict[str, tuple[int, int]], **changes) -> dict:
    """A file's content: `scores`: method -> score of each clip. Changes replace fields."""
    ids = list(key.videos)
    given = {name: scores[video.method][CLIPS.index(video.clip)] for name, video in key.videos.items()}
    time = "2026-01-01T00:00:00.000Z"
    ratings = [
        {"video": name, "score": given[name], "shown": time, "answered": time, "plays": 1, "watched": 1} for name in ids
    ]
    content = {"format": ANSWERS_FORMAT, "study": key.study, "participant": participant, "seed": 7, "order": ids}
    return content | {"started": time, "finished": time, "answers": ratings} | changes


def write(folder: Path, name: str, content: dict | str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def test_table_3_by_hand(made, tmp_path):
    path, key = made
    folder = tmp_path / "answers"
    write(folder, "p1.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    write(folder, "p2.json", answer(key, "p2", {"audio2head": (3, 4), "makeittalk": (2, 4)}))
    assert score_answers([folder], path.with_suffix(".key.json"), tmp_path / "out") == []
    result = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (result["participants"], result["clips"], result["ratings"]) == (2, 2, 8)
    table = {
        method: {name: estimate["value"] for name, estimate in columns.items()}
        for method, columns in result["methods"].items()
    }
    assert table["audio2head"] == {"1": 0, "2": 0, "3": 0.25, "4": 0.5, "5": 0.25, "natural": 0.75, "mean": 4}
    assert table["makeittalk"] == {"1": 0.25, "2": 0.5, "3": 0, "4": 0.25, "5": 0, "natural": 0.25, "mean": 2.25}
    # With two participants a sample holds p1 twice, one of each or p2 twice: the ends are the participants' own means.
    assert result["methods"]["audio2head"]["mean"]["interval"] == [3.5, 4.5]
    assert result["methods"]["makeittalk"]["natural"]["interval"] == [0, 0.5]
    text = (tmp_path / "out" / "study.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| audio2head"))
    assert [cell.split(" [")[0].strip() for cell in row.split("|")[2:-1]] == [
        "0.0 %",
        "0.0 %",
        "25.0 %",
        "50.0 %",
        "25.0 %",
        "75.0 %",
        "4.00",
    ]


def test_one_participant_has_no_interval(made, tmp_path):
    path, key = made
    file = write(tmp_path / "answers", "p1.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    score_answers([file], path.with_suffix(".key.json"), tmp_path / "out")
    result = json.loads((tmp_path / "out" / "study.json").read_text())
    assert result["methods"]["audio2head"]["mean"] == {"value": 4.5, "interval": None}


def test_refused_files_are_named_and_do_not_count(made, tmp_path):
    _, key = made
    scores = {"audio2head": (5, 4), "makeittalk": (1, 2)}
    whole = answer(key, "p1", scores)
    folder = tmp_path / "answers"
    write(folder, "good.json", whole)
    write(folder, "cut.json", json.dumps(answer(key, "p2", scores))[:-40])
    write(folder, "foreign.json", answer(key, "p3", scores, study="0" * 16))
    write(folder, "again.json", answer(key, "p1", {"audio2head": (1, 1), "makeittalk": (5, 5)}, finished="2026-02"))
    write(folder, "six.json", answer(key, "p4", {"audio2head": (6, 4), "makeittalk": (1, 2)}))
    write(folder, "text.json", json.dumps(answer(key, "p5", scores)).replace('"score": 5', '"score": "5"'))
    write(folder, "short.json", answer(key, "p6", scores, answers=whole["answers"][:3], order=whole["order"][:3]))
    twice = [whole["answers"][0], *whole["answers"][:3]]
    write(folder, "twice.json", answer(key, "p7", scores, answers=twice, order=[r["video"] for r in twice]))
    write(folder, "order.json", answer(key, "p8", scores, order=whole["order"][::-1]))
    answers, refused = read_answers(sorted(folder.iterdir()), key)
    assert [each.participant for each in answers] == ["p1"]
    assert (
        answers[0].answers[0].score == whole["answers"][0]["score"]
    )  # the first try, though "again" comes first by name
    reasons = {Path(sentence.split()[0]).stem: sentence for sentence in refused}
    assert reasons.keys() == {"cut", "foreign", "again", "six", "text", "short", "twice", "order"}
    assert "belongs to study 0000000000000000" in reasons["foreign"]
    assert "good.json has participant p1 too" in reasons["again"]
    assert "damaged" in reasons["cut"] and "score" in reasons["six"] and "score" in reasons["text"]
    assert "each of the 4 videos" in reasons["short"] and "each of the 4 videos" in reasons["twice"]
    assert "it was changed" in reasons["order"]
    assert all("\n" not in sentence for sentence in refused)


def test_no_usable_answers_is_an_error(made, tmp_path):
    bad = write(tmp_path / "a", "bad.json", "{}")
    with pytest.raises(EvaluationError, match=r"no usable answers .*bad\.json is damaged"):
        score_answers([bad], made[0].with_suffix(".key.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_prints_the_table_and_what_it_refused(made, tmp_path):
    path, key = made
    write(tmp_path / "a", "bad.json", "{}")
    write(tmp_path / "a", "good.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    command = [sys.executable, "-m", "evaluation.study", "score", "--answers", tmp_path / "a"]
    command += ["--key", path.with_suffix(".key.json"), "--output", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "| audio2head |" in done.stdout
    assert done.stderr.startswith("refused: ") and "bad.json" in done.stderr


def test_neither_key_nor_answers_are_overwritten(made, tmp_path):
    path, key = made
    (tmp_path / "keys").mkdir()
    key_path = Path(shutil.copy(path.with_suffix(".key.json"), tmp_path / "keys" / "study.json"))
    folder = tmp_path / "answers"
    file = write(folder, "study.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    before = key_path.read_bytes(), file.read_bytes()
    for files, output in (([folder], tmp_path / "keys"), ([file], folder)):
        with pytest.raises(DataError, match=r"study\.json, which this command needs for something else"):
            score_answers(files, key_path, output)
    with pytest.raises(DataError, match="is one of --answers"):
        score_answers([folder], key_path, folder)
    assert (key_path.read_bytes(), file.read_bytes()) == before
    assert [each.name for each in tmp_path.rglob("study.*")] == ["study.json"] * 2
    assert score_answers([folder], key_path, tmp_path / "out") == []


def test_what_is_no_key_or_no_folder_for_results_is_a_sentence(made, tmp_path):
    path, key = made
    empty = write(tmp_path / "keys", "empty.json", key.model_copy(update={"videos": {}}).model_dump_json())
    with pytest.raises(DataError, match=r"empty\.json is not the key of a study \(videos: .*at least 1"):
        read_key(empty)
    with pytest.raises(DataError, match="keys is a folder, not a key file; name a file in it"):
        read_key(tmp_path / "keys")
    with pytest.raises(DataError, match="no such key file"):
        read_key(tmp_path / "gone.json")
    file = write(tmp_path / "answers", "p1.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    with pytest.raises(DataError, match=r"empty\.json is a file, not a folder"):
        score_answers([file], path.with_suffix(".key.json"), empty)
