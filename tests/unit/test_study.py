"""The user study: what the page holds and hides, and Table 3 against values computed by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.media.video_writer import VideoWriter
from evaluation import study
from evaluation.errors import EvaluationError

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("audio2head", "makeittalk")
CLIPS = ("obama1", "obama2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, method in enumerate(METHODS):
        (folder / method).mkdir()
        for clip in CLIPS:
            with VideoWriter(folder / method / f"{clip}.mp4") as writer:
                writer.write(np.full((3, 32, 32, 3), 60 + 90 * number, np.uint8))
    return folder


@pytest.fixture
def made(videos, tmp_path) -> tuple[Path, study.Key]:
    key_path, count = study.make(videos, tmp_path / "STUDY.html", "A <study> & more")
    assert count == 4
    return tmp_path / "STUDY.html", study.read_key(key_path)


def answer(key: study.Key, participant: str, scores: dict[str, tuple[int, int]], **changes) -> dict:
    """A file's content: `scores`: method -> score of each clip. Changes replace fields."""
    ids = list(key.videos)
    given = {name: scores[video.method][CLIPS.index(video.clip)] for name, video in key.videos.items()}
    time = "2026-01-01T00:00:00.000Z"
    ratings = [
        {"video": name, "score": given[name], "shown": time, "answered": time, "plays": 1, "watched": 1} for name in ids
    ]
    content = {"format": study.ANSWERS_FORMAT, "study": key.study, "participant": participant, "seed": 7, "order": ids}
    return content | {"started": time, "finished": time, "answers": ratings} | changes


def write(folder: Path, name: str, content: dict | str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


# ---- the page


def test_page_names_no_method_clip_or_salt(made):
    page, key = made[0].read_text(), made[1]
    for secret in (*METHODS, *CLIPS, key.salt, "STUDY.key"):
        assert secret not in page
    assert all(page.count(f'id="video-{name}"') == 1 for name in key.videos)
    order = re.findall(r'id="video-(\w+)"', page)
    assert order == sorted(order)  # not the order of the folders


def test_ids_need_the_salt(videos, tmp_path, made):
    _, again = study.make(videos, tmp_path / "again.html", "x"), study.read_key(tmp_path / "again.key.json")
    assert not again.videos.keys() & made[1].videos.keys()
    salt = bytes.fromhex(again.salt)
    assert {study.opaque(salt, video) for video in again.videos.values()} == again.videos.keys()


def test_page_is_self_contained(made):
    page = re.sub(r'<script type="text/plain".*?</script>', "", made[0].read_text())
    assert not re.search(r"https?://|//[a-z]|\bsrc=|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "{{" not in page
    assert "<title>A &lt;study&gt; &amp; more</title>" in page


def test_page_holds_the_videos_unchanged(made, videos):
    import base64

    page, key = made[0].read_text(), made[1]
    for name, video in key.videos.items():
        embedded = re.search(f'id="video-{name}">(.*?)</script>', page)[1]
        assert base64.b64decode(embedded) == (videos / video.method / f"{video.clip}.mp4").read_bytes()


def test_a_key_is_never_overwritten(made, videos):
    before = made[0].with_suffix(".key.json").read_bytes()
    with pytest.raises(EvaluationError, match=r"key\.json exists"):
        study.make(videos, made[0], "x")
    assert made[0].with_suffix(".key.json").read_bytes() == before


def test_every_method_must_show_every_clip(videos):
    with pytest.raises(EvaluationError, match=r"audio2head/other\.mp4 is missing"):
        study.find_videos(videos, None, ["obama1", "other"])
    with pytest.raises(EvaluationError, match=r"wav2lip/obama1\.mp4 is missing"):
        study.find_videos(videos, ["audio2head", "wav2lip"], ["obama1"])
    assert len(study.find_videos(videos, ["makeittalk"], ["obama2"])) == 1


def test_what_browsers_do_not_play_is_refused(videos, tmp_path):
    import av

    (tmp_path / "m").mkdir()
    with av.open(str(tmp_path / "m" / "c.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for packet in stream.encode(av.VideoFrame(32, 32, "yuv420p")) + stream.encode(None):
            container.mux(packet)
    with pytest.raises(DataError, match=r"mpeg4 yuv420p; browsers play H\.264"):
        study.find_videos(tmp_path, None, None)


# ---- Table 3


def test_table_3_by_hand(made, tmp_path):
    path, key = made
    folder = tmp_path / "answers"
    write(folder, "p1.json", answer(key, "p1", {"audio2head": (5, 4), "makeittalk": (1, 2)}))
    write(folder, "p2.json", answer(key, "p2", {"audio2head": (3, 4), "makeittalk": (2, 4)}))
    assert study.score([folder], path.with_suffix(".key.json"), tmp_path / "out") == []
    result = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (result["participants"], result["clips"], result["ratings"]) == (2, 2, 8)
    table = {
        method: {name: estimate["value"] for name, estimate in columns.items()}
        for method, columns in result["methods"].items()
    }
    assert table["audio2head"] == {"1": 0, "2": 0, "3": 0.25, "4": 0.5, "5": 0.25, "natural": 0.75, "mean": 4}
    assert table["makeittalk"] == {"1": 0.25, "2": 0.5, "3": 0, "4": 0.25, "5": 0, "natural": 0.25, "mean": 2.25}
    # With two participants a resample holds p1 twice, one of each or p2 twice: the ends are the participants' means.
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
    study.score([file], path.with_suffix(".key.json"), tmp_path / "out")
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
    answers, refused = study.read_answers(sorted(folder.iterdir()), key)
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
        study.score([bad], made[0].with_suffix(".key.json"), tmp_path / "out")
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
