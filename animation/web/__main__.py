"""A page on this machine: a picture and a sound in, a talking head out, playing while it is made.

    python -m animation.web [--port 8000] [--checkpoint A B ...]

Only this machine can reach it (127.0.0.1), and it asks nothing of any other. docs/STREAM.md has its limits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import skimage.data

from animation.generate import Animator
from animation.models import load_models
from animation.options import AnimationOptions, OptionError
from animation.web.visits import LONGEST_S, MOST_BYTES, Refused, Visits
from animation.weights import DEMO_WEIGHTS
from datasets.errors import DataError
from datasets.media.image import write_png
from engine.checkpoint import CheckpointError
from engine.command import clean_exit
from engine.config import ConfigError, load

PAGE = Path(__file__).with_name("page.html")
SPEECH = Path(__file__).resolve().parents[2] / "assets" / "speech.wav"
HERE = "127.0.0.1"
# The page brings everything along; the browser is told to fetch nothing from elsewhere.
POLICY = "default-src 'self' blob: data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"
SMALL_BYTES = 2000  # of a request that is no file
WAITING_S = 30  # for the next byte of a request


class NoLength(Refused):
    """A request whose end cannot be told."""


class Handler(BaseHTTPRequestHandler):
    """Requests of the page. Paths: /, /example/KIND, /enter, and /VISIT/...

    Each connection carries one request: what was not read of it can never be taken for another.
    """

    protocol_version = "HTTP/1.1"
    timeout = WAITING_S

    def __init__(self, visits: Visits, *arguments: object) -> None:
        self.visits = visits
        super().__init__(*arguments)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the visitor has hung up
            super().handle()

    def finish(self) -> None:
        """Wait for what is still coming: a connection closed before is reset, and the answer may be lost."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            end = time.monotonic() + WAITING_S
            while self.rfile.read1(2**16) and time.monotonic() < end:
                pass
        super().finish()

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, answer: Callable[[], None]) -> None:
        try:
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in (HERE, "localhost"):  # another site's name that leads here
                return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine")
            answer()
        except NoLength as refusal:
            self._send_json({"error": str(refusal)}, HTTPStatus.LENGTH_REQUIRED)
        except Refused as refusal:
            self._send_json({"error": str(refusal)}, HTTPStatus.BAD_REQUEST)

    def _get(self) -> None:
        match self.path.split("?")[0].strip("/").split("/"):
            case [""]:
                page = PAGE.read_text().replace("LONGEST", str(LONGEST_S))
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode())
            case ["example", kind] if kind in MOST_BYTES:
                example = self.visits.examples[kind]
                kinds = {".png": "image/png", ".wav": "audio/wav"}
                self._send(HTTPStatus.OK, kinds[example.suffix], example.read_bytes())
            case [name, "progress"]:
                self._send_json(self.visits.progress(name))
            case [name, "video"]:
                self._send_video(name)
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")

    def _post(self) -> None:
        if self.headers.get("Origin", f"http://{self.headers['Host']}") != f"http://{self.headers['Host']}":
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"another site may not ask this")
        match self.path.strip("/").split("/"):
            case ["enter"]:
                self._body(SMALL_BYTES)
                return self._send_json({"visit": self.visits.enter()})
            case [name, "leave"]:
                self._body(SMALL_BYTES)
                self.visits.leave(name)
            case [name, ("picture" | "sound") as kind, file_name]:
                self.visits.visit(name)
                self.visits.keep(name, kind, unquote(file_name), self._body(MOST_BYTES[kind]))
            case [name, "example", ("picture" | "sound") as kind]:
                self._body(SMALL_BYTES)
                self.visits.take_example(name, kind)
            case [name, "make"]:
                try:
                    wishes = json.loads(self._body(SMALL_BYTES))
                except (ValueError, RecursionError):  # no JSON, or too deep
                    wishes = None
                if not isinstance(wishes, dict):
                    raise Refused("the page sent something that is no list of wishes; load it again")
                self.visits.order(name, wishes)
            case _:
                return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")
        self._send_json({})

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None or "Transfer-Encoding" in self.headers:
            raise NoLength("the request does not say how long it is; send it in one piece, with a Content-Length")
        if not (length.isascii() and length.isdigit()):
            raise Refused(f"the request's Content-Length {length[:20]!r} is no number of bytes; send it with one")
        if len(length) > 15 or int(length) > most:
            bound = f"{most // 2**20} MB" if most >= 2**20 else f"{most} bytes"
            raise Refused(f"this is too large; at most {bound} are taken")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused("the request broke off before its end; send it again")
        return body

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _send_json(self, answer: dict[str, object], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, "application/json", json.dumps(answer).encode())

    def _send_video(self, name: str) -> None:
        """The video as far as it is made, then the rest as it comes."""
        pieces = self.visits.growing(name)
        first = next(pieces, b"")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in itertools.chain([first] if first else [], pieces):
            self.wfile.write(b"%X\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *arguments: object) -> None:
        """Nothing is written down about visitors."""


def opened(port: int, visits: Visits) -> ThreadingHTTPServer:
    """The server at its port, not serving yet."""
    try:
        return ThreadingHTTPServer((HERE, port), partial(Handler, visits))
    except OSError as error:
        raise OptionError(f"--port {port} cannot be opened ({error.strerror}); name another") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[DEMO_WEIGHTS], help="as of inference.py")
    parser.add_argument("--device", default="auto", help="as of inference.py")
    arguments = parser.parse_args()
    with clean_exit(DataError, OptionError, CheckpointError, ConfigError), tempfile.TemporaryDirectory() as folder:
        if not 0 <= arguments.port <= 65535:
            raise OptionError(f"--port {arguments.port}: ports go from 0 (any that is free) to 65535")
        portrait = Path(folder) / "portrait.png"
        write_png(portrait, skimage.data.astronaut())
        device = load(AnimationOptions, overrides=[f"device={arguments.device}"]).chosen_device()
        models = load_models(arguments.checkpoint, device)
        animator = Animator(models, load(AnimationOptions, below=models.animation))
        visits = Visits(animator, {"picture": portrait, "sound": SPEECH})
        try:
            with opened(arguments.port, visits) as server:
                print(f"http://{HERE}:{server.server_port} is open; Ctrl-C closes it", flush=True)
                server.serve_forever()
        finally:
            visits.close()


if __name__ == "__main__":
    main()
