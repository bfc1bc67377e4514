"""Requests and visits of the page, with an animator that writes a video when it is told to."""

import errno
import http.client
import json
import socket
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from animation.web.__main__ import Handler, main
from animation.web.visits import Refused, Visits
from engine.checkpoint import save_weights

WISHES = {"head": "usual", "mouth": "model", "view": "square", "label": True}


class Animator:
    """Writes the picture and the sound of a job into its video, once `let` is set."""

    def __init__(self):
        self.device, self.models = SimpleNamespace(type="cpu"), SimpleNamespace(animation={})
        self.let = threading.Event()

    def animate(self, job, progress, writer):
        assert self.let.wait(30)
        job.output.parent.mkdir(exist_ok=True)
        job.output.write_bytes(job.image.read_bytes() + b" says " + job.audio.read_bytes())
        return SimpleNamespace(notices=[f"{job.image} and {job.output}"])


class Sound(bytes):
    """A sound as `open_pcm` opens it."""

    def __exit__(self, *_):
        return None

    def __enter__(self):
        return self


@pytest.fixture
def visits(tmp_path, monkeypatch):
    monkeypatch.setattr("animation.web.visits.open_pcm", lambda path: Sound())
    monkeypatch.setattr("animation.web.visits.provenance.read_marks", lambda path: [])
    for kind in ("picture", "sound"):
        (tmp_path / kind).write_bytes(b"example")
    visits = Visits(Animator(), {kind: tmp_path / kind for kind in ("picture", "sound")})
    yield visits
    for name in list(visits.visits):  # what waits is dropped
        visits.leave(name)
    visits.animator.let.set()
    visits.close()


@pytest.fixture
def port(visits):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, visits)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def raw(port: int, request: bytes, then: bytes = b"") -> bytes:
    """Everything that comes back until the server closes; b"" where it does not answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.replace(b"\n", b"\r\n") + then)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def post(port: int, path: str, body: bytes, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    said = answer.status, json.loads(answer.read())
    connection.close()
    return said


HIDDEN = b"POST /enter HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"POST /enter HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://evil.example\n", b"403"),
        (b"POST /enter HTTP/1.1\nHost: evil.example\n", b"403"),
        (b"POST /nothing/here HTTP/1.1\nHost: 127.0.0.1\n", b"404"),
        (b"POST /ended/picture/a.png HTTP/1.1\nHost: 127.0.0.1\n", b"400"),
        (b"GET /nothing HTTP/1.1\nHost: 127.0.0.1\n", b"404"),
        (b"PUT /enter HTTP/1.1\nHost: 127.0.0.1\n", b"501"),
    ],
)
def test_a_body_is_never_taken_for_the_next_request(port, visits, start, status):
    answers = raw(port, start + b"Content-Length: %d\n\n" % len(HIDDEN), HIDDEN)
    assert answers.startswith(b"HTTP/1.1 " + status) and answers.count(b"HTTP/1.1 ") == 1
    assert not visits.visits


def test_too_large_an_upload_gets_the_sentence(port, visits):
    name = visits.enter()
    status, said = post(port, f"/{name}/picture/a.png", bytes(21 * 2**20))
    assert status == 400 and said["error"] == "this is too large; at most 20 MB are taken"
    status, said = post(port, f"/{name}/make", bytes(3000))
    assert status == 400 and said["error"] == "this is too large; at most 2000 bytes are taken"


@pytest.mark.parametrize(
    ("header", "status", "why"),
    [
        (b"", b"411", b"does not say how long it is"),
        (b"Transfer-Encoding: chunked\n", b"411", b"does not say how long it is"),
        (b"Content-Length: 3\nTransfer-Encoding: chunked\n", b"411", b"does not say how long it is"),
        (b"Content-Length: \xb2\n", b"400", b"is no number of bytes"),
        (b"Content-Length: -1\n", b"400", b"is no number of bytes"),
        (b"Content-Length: \n", b"400", b"is no number of bytes"),
        (b"Content-Length: " + b"9" * 5000 + b"\n", b"400", b"this is too large; at most 50 MB are taken"),
    ],
)
def test_a_body_of_unknown_length_is_refused(port, visits, capsys, header, status, why):
    name = visits.enter().encode()
    answer = raw(
        port, b"POST /" + name + b"/sound/a.wav HTTP/1.1\nHost: 127.0.0.1\n" + header + b"\n", b"3\r\nabc\r\n0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 " + status) and why in answer
    assert capsys.readouterr().err == ""


def test_a_body_that_breaks_off_is_refused(port, visits):
    name = visits.enter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        start = f"POST /{name}/sound/a.wav HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc"
        connection.sendall(start.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert b"broke off" in answer and not visits.visit(name).files


def test_a_visitor_who_hangs_up_leaves_no_traceback(port, capsys):
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() resets
    connection.sendall(b"GET / HTT")
    time.sleep(0.2)
    connection.close()
    time.sleep(0.5)
    assert capsys.readouterr().err == ""


def visit_of(visits: Visits, picture: bytes = b"face") -> str:
    name = visits.enter()
    visits.keep(name, "picture", "mine.png", picture)
    visits.keep(name, "sound", "mine.wav", b"words")
    return name


def until_made(visits: Visits, name: str) -> dict:
    visits.animator.let.set()
    end = time.monotonic() + 20
    while (now := visits.progress(name))["state"] not in ("ready", "failed"):
        assert time.monotonic() < end, now
        time.sleep(0.02)
    return now


def test_a_refused_order_leaves_the_finished_video(port, visits):
    name = visit_of(visits)
    visits.order(name, WISHES)
    assert until_made(visits, name)["state"] == "ready"
    visits.animator.let.clear()
    for place in range(5):  # one is being made, four are waiting
        other = visit_of(visits)
        visits.order(other, WISHES)
        while place == 0 and visits.progress(other)["state"] == "waiting":
            time.sleep(0.02)
    status, said = post(port, f"/{name}/make", json.dumps(WISHES).encode())
    assert status == 400 and "too many videos are waiting" in said["error"]
    assert visits.progress(name)["state"] == "ready"
    assert b"".join(visits.growing(name)) == b"face says words"


def test_a_finished_video_that_is_missing_ends_at_once(visits):
    name = visit_of(visits)
    visits.order(name, WISHES)
    until_made(visits, name)
    visits.visit(name).video.job.output.unlink()
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(visits.growing(name)), daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive() and pieces == []


@pytest.mark.parametrize("file_name", ["next.png", "mine.png"])
def test_what_is_chosen_after_an_order_is_for_the_next_one(visits, file_name):
    first, name = visit_of(visits), visit_of(visits)
    visits.order(first, WISHES)
    visits.order(name, WISHES)
    visits.keep(name, "picture", file_name, b"another face")
    visits.take_example(name, "sound")
    now = until_made(visits, name)
    assert now["state"] == "ready" and now["said"] == ["mine.png and talking_head.mp4"]
    assert b"".join(visits.growing(name)) == b"face says words"
    visits.order(name, WISHES)
    assert until_made(visits, name)["state"] == "ready"
    assert b"".join(visits.growing(name)) == b"another face says example"
    folder = visits.visit(name).folder
    kept = {path.name for path in folder.rglob("*") if path.is_file()}
    assert kept == {file_name, "talking_head.mp4"}  # nothing that nobody needs any more


def test_of_several_orders_at_once_one_is_taken(visits, monkeypatch):
    name = visit_of(visits)
    put = visits.orders.put_nowait
    monkeypatch.setattr(
        visits.orders, "put_nowait", lambda order: (time.sleep(0.2), put(order))
    )  # others come meanwhile
    start, said = threading.Barrier(12), []

    def order():
        start.wait()
        try:
            visits.order(name, WISHES)
            said.append("taken")
        except Refused as refusal:
            said.append(str(refusal))

    threads = [threading.Thread(target=order) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["taken"] + 11 * ["your video is still being made"]


@pytest.mark.parametrize("file_name", ["..", "%2e%2e", "a/..", "a%00b.png", "a%5C.."])
def test_what_is_no_file_name_is_refused(port, visits, capsys, file_name):
    name = visit_of(visits)
    status, said = post(port, f"/{name}/picture/{file_name.replace('/', '%2F')}", b"another face")
    assert status == 400 and said["error"].endswith("is no file name; rename the picture and choose it again")
    assert visits.visit(name).files["picture"].read_bytes() == b"face" and capsys.readouterr().err == ""


@pytest.mark.parametrize("letter", ["脸", "a", "👩"])
def test_a_long_file_name_is_kept_with_its_ending(port, visits, letter):
    name = visits.enter()
    assert post(port, f"/{name}/picture/{quote(letter * 90 + '.png')}", b"face") == (200, {})
    file = visits.visit(name).files["picture"]
    assert file.read_bytes() == b"face" and file.name.strip(letter) == ".png"


def test_a_file_that_cannot_be_kept_is_refused(port, visits, monkeypatch, capsys):
    name = visit_of(visits)

    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    status, said = post(port, f"/{name}/sound/next.wav", b"other words")
    assert status == 400 and said["error"].startswith("this sound cannot be kept (No space left on device);")
    assert visits.visit(name).files["sound"].read_bytes() == b"words" and capsys.readouterr().err == ""
    assert len(list(visits.visit(name).folder.iterdir())) == 2  # nothing half written is left


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        (b"[" * 2000, "no list of wishes"),
        (b"[]", "no list of wishes"),
        (b'"head"', "no list of wishes"),
        (b"\xff", "no list of wishes"),
        (b"1" * 1999, "no list of wishes"),
        (b"{}", "head should be one of still, little, usual, much"),
        (b'{"head": []}', "head should be one of still, little, usual, much"),
        (b'{"head": {"usual": 1}}', "head should be one of still, little, usual, much"),
        (b'{"head": "usual", "mouth": null}', "mouth should be one of model, little, much"),
        (json.dumps(WISHES | {"label": "yes"}).encode(), "label should be true or false"),
        (json.dumps(WISHES | {"label": []}).encode(), "label should be true or false"),
    ],
)
def test_wishes_of_another_kind_are_refused(port, visits, capsys, wishes, why):
    name = visit_of(visits)
    status, said = post(port, f"/{name}/make", wishes)
    assert status == 400 and why in said["error"] and capsys.readouterr().err == ""
    assert visits.progress(name) == {"state": "none"}


@pytest.mark.parametrize("number", ["99999", "-1"])
def test_a_port_that_there_is_not_is_refused(monkeypatch, capsys, number):
    monkeypatch.setattr("sys.argv", ["animation.web", "--port", number])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: --port {number}: ports go from 0 (any that is free) to 65535\n"


def test_a_port_in_use_is_named(monkeypatch, capsys, small_weights, tmp_path):
    save_weights(tmp_path / "model.safetensors", small_weights(64))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["--port", str(port), "--device", "cpu", "--checkpoint", str(tmp_path / "model.safetensors")]
        monkeypatch.setattr("sys.argv", ["animation.web", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: --port {port} cannot be opened (Address already in use); name another\n"
