"""The page of the user study in a real browser, from file://, by keyboard alone: until its answers are scored."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.media.video_writer import VideoWriter
from evaluation.study.answers import score_answers
from evaluation.study.page import make_page

ROOT = Path(__file__).resolve().parents[2]
METHODS, CLIPS = ("full", "still"), ("a", "b")
FRAMES = 12
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=800,900"
)


def small_videos(folder: Path) -> Path:
    """METHOD/CLIP.mp4, half a second each, 64 pixels, with sound."""
    grey = np.linspace(40, 220, FRAMES, dtype=np.uint8)[:, None, None, None]
    for method in METHODS:
        for clip in CLIPS:
            (folder / method).mkdir(parents=True, exist_ok=True)
            with VideoWriter(folder / method / f"{clip}.mp4", sound=ROOT / "assets" / "speech.wav") as writer:
                writer.write(np.broadcast_to(grey, (FRAMES, 64, 64, 3)).copy())
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that saves into `downloads` and remembers what it requested."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -r requirements.txt")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = folder
    yield driver
    driver.quit()


class Page:
    """What a participant sees and does."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def press(self, key: str) -> None:
        self.driver.switch_to.active_element.send_keys(key)

    def text(self, name: str) -> str:
        return self.driver.find_element("id", name).text

    def value(self, script: str):
        return self.driver.execute_script(f"return {script}")

    def visible(self) -> list[str]:
        return self.value("[...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id)")

    def score(self) -> int | None:
        return self.value("chosen() ?? null")

    def until(self, script: str, seconds: float = 15.0) -> None:
        """Wait for a condition of the page's own script; fails with it."""
        end = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < end, f"still not {script}"
            time.sleep(0.05)


def test_answered_by_keyboard_with_a_reload_saved_and_scored(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    page_path = tmp_path / "study.html"
    key_path, count = make_page(small_videos(tmp_path / "videos"), page_path, "A study")
    key = json.loads(key_path.read_text())["videos"]
    assert count == 4
    page = Page(browser)
    browser.get(page_path.as_uri())
    assert page.visible() == ["intro"]
    seed, participant = page.text("seed"), page.text("participant")

    page.press(Keys.ENTER)  # the focus is on Start
    assert (page.visible(), page.text("place")) == (["rate"], "Video 1 of 4")
    page.until("video.currentTime > 0.1 && video.videoWidth === 64")  # H.264 plays, from inside the page, with sound
    assert page.value("video.error === null && !document.getElementById('unplayable').checkVisibility()")
    page.press(Keys.ENTER)  # no score yet: stays
    assert page.text("place") == "Video 1 of 4"
    page.until("video.ended")
    page.press(Keys.SPACE)
    page.until("!video.ended && seen.plays === 2")
    page.press("3")
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_RIGHT)  # no further than 5
    page.press(Keys.ARROW_LEFT)
    assert page.score() == 4
    assert (
        page.value("document.activeElement.value") == "4"
    )  # the focus is where the score is: it can be seen and heard
    page.press(Keys.ENTER)
    assert page.text("place") == "Video 2 of 4"
    page.press("2")

    browser.refresh()
    assert page.visible() == ["intro"] and page.text("start") == "Continue"
    assert (page.text("seed"), page.text("participant")) == (seed, participant)
    page.press(Keys.ENTER)
    assert (page.text("place"), page.score()) == ("Video 2 of 4", 2)
    page.until("video.ended")
    page.press(Keys.ENTER)
    for place, given in ((3, "5"), (4, "1")):
        assert page.text("place") == f"Video {place} of 4"
        page.until("video.ended")
        page.press(given)
        page.press(Keys.ENTER)

    assert page.visible() == ["done"]
    page.press(Keys.ENTER)  # the focus is on Save
    saved = browser.downloads / page.text("file")
    end = time.monotonic() + 15
    while not saved.is_file():
        assert time.monotonic() < end, f"no {saved}: {list(browser.downloads.iterdir())}"
        time.sleep(0.05)

    answers = json.loads(saved.read_text())
    assert (str(answers["seed"]), answers["participant"]) == (seed, participant)
    assert [rating["score"] for rating in answers["answers"]] == [4, 2, 5, 1]
    assert answers["answers"][0]["plays"] == 2 and answers["answers"][0]["watched"] == 1
    assert answers["started"] < answers["answers"][0]["answered"] < answers["finished"]
    assert score_answers([saved], key_path, tmp_path / "scored") == []
    result = json.loads((tmp_path / "scored" / "study.json").read_text())
    for method in METHODS:
        given = [r["score"] for r in answers["answers"] if key[r["video"]]["method"] == method]
        assert result["methods"][method]["mean"]["value"] == np.mean(given)

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    addresses = [each["request"]["url"] for each in requests if each["documentURL"] == page_path.as_uri()]
    kinds = {address.split(":")[0] for address in addresses}  # data: the icons of Chromium's own video controls
    assert {"file", "blob"} <= kinds <= {"file", "blob", "data"}, addresses
    assert [entry["message"] for entry in browser.get_log("browser")] == []  # no error, nothing stopped by the policy


def test_order_is_drawn_anew_and_follows_the_seed(browser, tmp_path):
    browser.get(study_page(tmp_path).as_uri())
    page = Page(browser)
    orders = {str(page.value(f"shuffled(study.videos, {seed})")) for seed in range(100)}
    assert len(orders) == 24  # each order of four videos comes up
    assert page.value("shuffled(study.videos, 7).join() === shuffled(study.videos, 7).join()")
    assert page.value("shuffled(study.videos, state.seed).join() === state.order.join()")
    assert page.value("fresh().seed !== state.seed && fresh().participant !== state.participant")


def test_narrow_screen_needs_no_sideways_scrolling(browser, tmp_path):
    browser.get(study_page(tmp_path).as_uri())
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    )
    page = Page(browser)
    for act in ("showIntro()", "go(0)", "showDone()"):
        page.value(act)
        assert page.value("document.documentElement.scrollWidth <= 360"), act


def study_page(tmp_path: Path) -> Path:
    make_page(small_videos(tmp_path / "videos"), tmp_path / "study.html", "A study")
    return tmp_path / "study.html"
