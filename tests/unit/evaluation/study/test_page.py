"""What the page of the user study holds and hides."""

import base64
import re
import resource
from pathlib import Path

import av
import pytest

from datasets.errors import DataError
from evaluation import EvaluationError
from evaluation.study.answers import read_key
from evaluation.study.page import find_videos, make_page, opaque

METHODS = ("audio2head", "makeittalk")
CLIPS = ("obama1", "obama2")


def test_page_names_no_method_clip_or_salt(made):
    page, key = made[0].read_text(), made[1]
    for secret in (*METHODS, *CLIPS, key.salt, "STUDY.key"):
        assert secret not in page
    assert all(page.count(f'id="video-{name}"') == 1 for name in key.videos)
    order = re.findall(r'id="video-(\w+)"', page)
    assert order == sorted(order)  # not the order of the folders


def test_ids_need_the_salt(videos, tmp_path, made):
    _, again = make_page(videos, tmp_path / "again.html", "x"), read_key(tmp_path / "again.key.json")
    assert not again.videos.keys() & made[1].videos.keys()
    salt = bytes.fromhex(again.salt)
    assert {opaque(salt, video) for video in again.videos.values()} == again.videos.keys()


def test_page_is_self_contained(made):
    page = re.sub(r'<script type="text/plain".*?</script>', "", made[0].read_text())
    assert not re.search(r"https?://|//[a-z]|\bsrc=|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "{{" not in page
    assert "<title>A &lt;study&gt; &amp; more</title>" in page


def test_page_holds_the_videos_unchanged(made, videos):
    page, key = made[0].read_text(), made[1]
    for name, video in key.videos.items():
        embedded = re.search(f'id="video-{name}">(.*?)</script>', page)[1]
        assert base64.b64decode(embedded) == (videos / video.method / f"{video.clip}.mp4").read_bytes()


def test_a_key_is_never_overwritten(made, videos):
    before = made[0].with_suffix(".key.json").read_bytes()
    with pytest.raises(EvaluationError, match=r"key\.json exists"):
        make_page(videos, made[0], "x")
    assert made[0].with_suffix(".key.json").read_bytes() == before


def test_every_method_must_show_every_clip(videos):
    with pytest.raises(EvaluationError, match=r"audio2head/other\.mp4 is missing"):
        find_videos(videos, None, ["obama1", "other"])
    with pytest.raises(EvaluationError, match=r"wav2lip/obama1\.mp4 is missing"):
        find_videos(videos, ["audio2head", "wav2lip"], ["obama1"])
    assert len(find_videos(videos, ["makeittalk"], ["obama2"])) == 1


def test_what_browsers_do_not_play_is_refused(videos, tmp_path):
    (tmp_path / "m").mkdir()
    with av.open(str(tmp_path / "m" / "c.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for packet in stream.encode(av.VideoFrame(32, 32, "yuv420p")) + stream.encode(None):
            container.mux(packet)
    with pytest.raises(DataError, match=r"mpeg4 yuv420p; browsers play H\.264"):
        find_videos(tmp_path, None, None)


def test_a_video_is_never_overwritten(videos, tmp_path):
    video = videos / METHODS[0] / f"{CLIPS[0]}.mp4"
    (tmp_path / "linked.html").hardlink_to(video)
    before = video.read_bytes()
    for output in (video, tmp_path / "linked.html"):
        with pytest.raises(DataError, match="needs for something else; name another output"):
            make_page(videos, output, "x")
    assert video.read_bytes() == before and not video.with_suffix(".key.json").exists()
    assert not (tmp_path / "linked.key.json").exists()


def test_without_a_page_no_key_is_left_and_the_same_command_goes_on(videos, tmp_path):
    (tmp_path / "folder.html").mkdir()
    for output in (tmp_path / "folder.html", Path(".")):
        with pytest.raises(DataError, match="is a folder"):
            make_page(videos, output, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk: the key finds room, the page does not
    try:
        with pytest.raises(DataError, match="no space left"):
            make_page(videos, tmp_path / "full.html", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]
    make_page(videos, tmp_path / "full.html", "x")
    assert read_key(tmp_path / "full.key.json").study in (tmp_path / "full.html").read_text()


def test_a_title_that_looks_like_a_place_of_the_template_stays_a_title(videos, tmp_path):
    make_page(videos, tmp_path / "page.html", "My {{videos}} {{study}} {{nothing}}")
    page = (tmp_path / "page.html").read_text()
    assert "<title>My {{videos}} {{study}} {{nothing}}</title>" in page
    assert page.count('id="video-') == 4
