"""The page of `make web`: over HTTP, and in a real browser where one can be had."""

import http.client
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
import skimage.data
import soundfile

from datasets import provenance
from datasets.media.image import write_png
from engine.checkpoint import save_weights

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1000,900"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_weights):
    """A folder with face.png, speech.wav (1 s), words.txt and model.safetensors (64x64)."""
    folder = tmp_path_factory.mktemp("web")
    write_png(folder / "face.png", skimage.data.astronaut())
    samples, _ = soundfile.read(ROOT / "assets" / "speech.wav", frames=16_000, dtype="int16")
    soundfile.write(folder / "speech.wav", samples, 16_000, subtype="PCM_16")
    (folder / "words.txt").write_text("no picture")
    save_weights(folder / "model.safetensors", small_weights(64))
    return folder


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    """(port, its folder for temporary files) of a running page."""
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-u", "-m", "animation.web", "--port", "0", "--device", "cpu"]
    command += ["--checkpoint", str(files / "model.safetensors")]
    environment = {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), line
    yield int(line.split(":")[2].split()[0]), temporary
    process.terminate()
    process.wait(timeout=30)
    assert not list(temporary.glob("audio2head-*")) and not list(temporary.rglob("*.png"))  # nothing is kept


def ask(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.status, answer.read()
    connection.close()
    return content


def said(port: int, path: str, body: bytes | None = None) -> dict:
    return json.loads(ask(port, path, body)[1])


def visit_with(port: int, picture: Path, sound: Path) -> str:
    name = said(port, "/enter", b"")["visit"]
    for kind, path in (("picture", picture), ("sound", sound)):
        assert said(port, f"/{name}/{kind}/{path.name}", path.read_bytes()) == {}
    return name


WISHES = json.dumps({"head": "usual", "mouth": "model", "view": "square", "label": True}).encode()


def until_made(port: int, name: str, seconds: float = 240) -> dict:
    end = time.monotonic() + seconds
    while True:
        now = said(port, f"/{name}/progress")
        if now["state"] in ("ready", "failed"):
            return now
        assert time.monotonic() < end, now
        time.sleep(0.2)


def test_two_visitors_at_once_get_their_videos_while_they_are_made(server, files):
    port, temporary = server
    names = [visit_with(port, files / "face.png", files / "speech.wav") for _ in range(2)]
    for name in names:
        assert said(port, f"/{name}/make", WISHES) == {}
    videos: dict[str, bytes] = {}
    readers = [
        threading.Thread(target=lambda name=name: videos.update({name: ask(port, f"/{name}/video")[1]}))
        for name in names
    ]
    for reader in readers:
        reader.start()
    assert said(port, f"/{names[0]}/make", WISHES)["error"] == "your video is still being made"
    for name, reader in zip(names, readers, strict=True):
        now = until_made(port, name)
        assert now["state"] == "ready" and now["done"] == now["total"] == 24 and any("XMP" in m for m in now["marks"])
        reader.join(timeout=60)
        with av.open(io.BytesIO(videos[name])) as container:
            assert sum(1 for _ in container.decode(video=0)) == 24
    (saved,) = list(temporary.glob(f"*/{names[0]}/*/*.mp4"))
    assert provenance.read_marks(saved) and saved.read_bytes() == videos[names[0]]
    for name in names:
        assert ask(port, f"/{name}/leave", b"")[0] == 200
        assert not list(temporary.glob(f"*/{name}")) and "has ended" in said(port, f"/{name}/progress")["error"]


@pytest.mark.parametrize(("picture", "sound"), [("words.txt", "speech.wav"), ("face.png", "words.txt")])
def test_a_wrong_file_gets_the_command_lines_sentence(server, files, picture, sound):
    port, _ = server
    name = visit_with(port, files / picture, files / sound)
    said(port, f"/{name}/make", WISHES)
    now = until_made(port, name)
    assert now["state"] == "failed" and now["said"][0].startswith("words.txt ") and "/" not in now["said"][0]
    ask(port, f"/{name}/leave", b"")


def test_what_is_too_much_is_refused(server, files):
    port, _ = server
    status, _ = ask(port, "/enter", b"", Host="example.org")
    assert status == 403
    assert ask(port, "/enter", b"", Origin="http://example.org")[0] == 403
    name = said(port, "/enter", b"")["visit"]
    assert "choose a picture first" in said(port, f"/{name}/make", WISHES)["error"]
    status, answer = ask(port, f"/{name}/picture/large.png", b"", **{"Content-Length": str(2**30)})
    assert status == 400 and b"at most 20 MB" in answer
    others = [said(port, "/enter", b"") for _ in range(8)]
    assert "too many people" in others[-1]["error"]
    for each in [name, *(other["visit"] for other in others[:-1])]:
        ask(port, f"/{each}/leave", b"")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that remembers what it requested."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -r requirements.txt")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("browser")
    (folder / "webcam.y4m").write_bytes(one_frame_of_video(skimage.data.astronaut()))
    devices = [  # a webcam that sees the astronaut, a microphone that hears speech, no questions
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'webcam.y4m'}",
        f"--use-file-for-fake-audio-capture={ROOT / 'assets' / 'speech.wav'}",
    ]
    for flag in [*FLAGS.split(), *devices, f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def one_frame_of_video(picture_HW3) -> bytes:
    """As a y4m file."""
    height, width = picture_HW3.shape[:2]
    planes = av.VideoFrame.from_ndarray(picture_HW3, "rgb24").reformat(format="yuv420p").to_ndarray()
    return b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\nFRAME\n" % (width, height) + planes.tobytes()


def until(driver, script: str, seconds: float = 240.0) -> None:
    """Wait for a condition of the page; fails with it."""
    end = time.monotonic() + seconds
    while not driver.execute_script(f"return {script}"):
        error = driver.execute_script("return at('error').textContent")
        assert time.monotonic() < end and (not error or "error" in script), f"still not {script}; {error}"
        time.sleep(0.1)


def test_in_a_browser_upload_make_play_and_a_wrong_file(server, files, browser, tmp_path):
    port, _ = server
    browser.get(f"http://127.0.0.1:{port}/")
    browser.find_element("id", "picture-example").click()
    until(browser, "at('picture-view').naturalWidth === 512")
    browser.find_element("id", "picture-file").send_keys(str(files / "face.png"))
    until(browser, "at('picture-name').textContent === 'face.png'")
    browser.find_element("id", "sound-file").send_keys(str(files / "speech.wav"))
    until(browser, "at('sound-name').textContent === 'speech.wav'")
    browser.find_element("id", "make").click()
    until(browser, "at('result').videoWidth > 0 && at('result').currentTime > 0.1")
    until(browser, "!at('download').hidden && at('marks').children.length > 2")
    assert browser.execute_script("return at('result').error === null && !at('make').disabled")
    browser.find_element("id", "picture-file").send_keys(str(files / "words.txt"))
    until(browser, "at('picture-name').textContent === 'words.txt'")
    browser.find_element("id", "make").click()
    until(browser, "at('error').textContent.startsWith('words.txt ')")
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    here = (f"http://127.0.0.1:{port}/", "blob:", "data:")
    assert urls and [url for url in urls if not url.startswith(here) and "chrome" not in url] == []
    browser.set_window_size(390, 800)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_in_a_browser_webcam_microphone_and_clipboard(server, browser):
    port, _ = server
    browser.set_window_size(1000, 900)
    browser.get(f"http://127.0.0.1:{port}/")
    browser.find_element("id", "webcam").click()
    until(browser, "!at('webcam-shot').hidden && at('webcam-view').videoWidth > 0")
    browser.find_element("id", "webcam-shot").click()
    until(browser, "at('picture-name').textContent === 'webcam.png' && at('picture-view').naturalWidth > 0")
    browser.find_element("id", "microphone").click()
    until(browser, "at('microphone').textContent === 'Stop'")
    time.sleep(2)
    browser.find_element("id", "microphone").click()
    until(browser, "at('sound-name').textContent === 'recording.webm'")
    browser.find_element("id", "make").click()
    until(browser, "at('result').videoWidth > 0 && at('result').currentTime > 0.1 && !at('download').hidden")
    assert 1 < browser.execute_script("return at('result').duration") < 6
    browser.execute_script(
        """
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 40;
        canvas.toBlob(blob => {
          const held = new DataTransfer();
          held.items.add(new File([blob], "image.png", {type: "image/png"}));
          document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: held}));
        });
        """
    )
    until(browser, "at('picture-name').textContent === 'pasted.png' && at('picture-view').naturalWidth === 40")


def test_in_a_browser_two_at_once(server, files, browser):
    port, _ = server
    windows = []
    for _ in range(2):
        browser.switch_to.new_window("window")
        windows.append(browser.current_window_handle)
        browser.get(f"http://127.0.0.1:{port}/")
        browser.find_element("id", "picture-example").click()
        until(browser, "at('picture-view').naturalWidth === 512")
        browser.find_element("id", "sound-file").send_keys(str(files / "speech.wav"))
        until(browser, "at('sound-name').textContent === 'speech.wav'")
    for window in windows:
        browser.switch_to.window(window)
        browser.find_element("id", "make").click()
    addresses = set()
    for window in windows:
        browser.switch_to.window(window)
        until(browser, "!at('download').hidden && at('result').videoWidth > 0")
        addresses.add(browser.execute_script("return at('download').href"))
        browser.close()
    browser.switch_to.window(browser.window_handles[0])
    assert len(addresses) == 2
