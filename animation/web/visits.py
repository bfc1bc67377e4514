"""Who is visiting the page, what they have sent, and the one worker that makes their videos in turn.

Everything a visitor sends or gets lies in a temporary folder of the visit, which is deleted when it ends: when the page
is closed, or nothing was heard of it for `SILENT_S`.
"""

from __future__ import annotations

import queue
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from animation.generate import Animator
from animation.job import Job
from animation.options import AnimationOptions, OptionError
from datasets import provenance
from datasets.errors import DataError
from datasets.media.sound import open_pcm
from datasets.media.streams import SAMPLE_RATE
from datasets.media.video_stream import StreamWriter
from engine.command import os_error_sentence
from engine.config import ConfigError, load

MOST_VISITS = 8
MOST_WAITING = 4  # videos in the queue
MOST_BYTES = {"picture": 20 * 2**20, "sound": 50 * 2**20}
NAME_BYTES = 100  # of a file's name are kept, the last ones
LONGEST_S = 120  # of sound
SILENT_S = 60  # a page that is open asks every second
# Plain names on the page -> options of inference.
HEAD = {"still": ["still=true"], "little": ["head_motion_scale=0.5"], "usual": [], "much": ["head_motion_scale=1.5"]}
MOUTH = {"model": [], "little": ["expression_scale=1.0"], "much": ["expression_scale=2.5"]}
VIEW = {"whole": [], "square": ["view=square"]}


class Refused(Exception):
    """A sentence for the visitor."""


class Gone(Exception):
    """The visitor has left: what is being made for them is dropped."""


@dataclass
class Video:
    """One video, from its order to its end."""

    job: Job
    options: AnimationOptions
    done: int = 0
    total: int = 0
    state: str = "waiting"  # then making, ready or failed
    said: list[str] = field(default_factory=list)  # notices; what went wrong
    marks: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in ("ready", "failed")


@dataclass
class Visit:
    """One open page. Each of its files lies in a numbered folder of its own and is never written over."""

    folder: Path
    heard_of: float = field(default_factory=time.monotonic)
    files: dict[str, Path] = field(default_factory=dict)
    video: Video | None = None
    made: int = 0  # folders
    gone: bool = False

    def new_file(self, name: str) -> Path:
        """Where one more file may be written."""
        self.made += 1
        return self.folder / str(self.made) / name

    def tidy(self) -> None:
        """Delete what is neither chosen nor of the last order."""
        needed = set(self.files.values())
        if self.video is not None:
            needed.update((*self.video.job.inputs, *self.video.job.outputs))
        for folder in self.folder.iterdir():
            if all(file.parent != folder for file in needed):
                shutil.rmtree(folder, ignore_errors=True)


class Visits:
    """All visits, and the worker. Methods may be called from any thread."""

    def __init__(self, animator: Animator, examples: dict[str, Path]) -> None:
        self.animator, self.examples = animator, examples
        self.folder = Path(tempfile.mkdtemp(prefix="audio2head-web-"))
        self.visits: dict[str, Visit] = {}
        self.lock = threading.Lock()  # held by whoever changes a visit
        self.orders: queue.Queue[tuple[Visit, Video]] = queue.Queue(MOST_WAITING)
        for work in (self._make_all, self._forget_the_silent):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what pages ask for; each raises Refused

    def enter(self) -> str:
        """-> a new visit's name, which nobody can guess."""
        with self.lock:
            if len(self.visits) >= MOST_VISITS:
                raise Refused("too many people are here at the moment; come back in a few minutes")
            name = secrets.token_urlsafe(16)
            folder = self.folder / name
            folder.mkdir()
            self.visits[name] = Visit(folder)
            return name

    def visit(self, name: str) -> Visit:
        visit = self.visits.get(name)
        if visit is None:
            raise Refused("this visit has ended; load the page again")
        visit.heard_of = time.monotonic()
        return visit

    def leave(self, name: str) -> None:
        with self.lock:
            visit = self.visits.pop(name, None)
        if visit is not None:
            visit.gone = True
            shutil.rmtree(visit.folder, ignore_errors=True)

    def keep(self, name: str, kind: str, file_name: str, content: bytes) -> None:
        """Take a visitor's picture or sound in place of the one before."""
        plain = Path(file_name.replace("\\", "/")).name
        if plain in ("", "..") or "\0" in plain:
            raise Refused(f"{file_name!r} is no file name; rename the {kind} and choose it again")
        with self.lock:
            visit = self.visit(name)
            file = visit.new_file(plain.encode()[-NAME_BYTES:].decode(errors="ignore"))
            try:
                file.parent.mkdir()
                file.write_bytes(content)
                visit.files[kind] = file
            except OSError as error:
                raise Refused(f"this {kind} cannot be kept ({error.strerror}); try another, or later again") from None
            finally:
                visit.tidy()

    def take_example(self, name: str, kind: str) -> None:
        with self.lock:
            visit = self.visit(name)
            visit.files[kind] = self.examples[kind]
            visit.tidy()

    def order(self, name: str, wishes: dict[str, Any]) -> None:
        """Queue a video of the picture and sound that are there."""
        overrides = ["device=cpu" if self.animator.device.type == "cpu" else "device=auto"]
        for wish, choices in (("head", HEAD), ("mouth", MOUTH), ("view", VIEW)):
            if wishes.get(wish) not in [*choices]:  # a list is asked: what was sent may have no hash
                raise Refused(f"{wish} should be one of {', '.join(choices)}")
            overrides += choices[wishes[wish]]
        label = wishes.get("label", False)
        if not isinstance(label, bool):
            raise Refused("label should be true or false")
        if label:
            overrides.append("label=true")
        options = load(AnimationOptions, None, overrides, below=self.animator.models.animation)
        with self.lock:
            visit = self.visit(name)
            for kind in MOST_BYTES:
                if kind not in visit.files:
                    raise Refused(f"choose a {kind} first")
            if visit.video is not None and not visit.video.ended:
                raise Refused("your video is still being made")
            job = Job(visit.files["picture"], visit.new_file("talking_head.mp4"), visit.files["sound"])
            video = Video(job, options)
            try:
                self.orders.put_nowait((visit, video))
            except queue.Full:
                raise Refused("too many videos are waiting at the moment; try again in a minute") from None
            visit.video = video
            visit.tidy()

    def progress(self, name: str) -> dict[str, Any]:
        """How far the visitor's video is."""
        video = self.visit(name).video
        if video is None:
            return {"state": "none"}
        return {each: getattr(video, each) for each in ("state", "done", "total", "said", "marks")}

    def growing(self, name: str) -> Iterator[bytes]:
        """Bytes of the visitor's video while it is written, to its end."""
        visit = self.visit(name)
        video = visit.video
        if video is None:
            raise Refused("there is no video yet")
        while True:
            ended = video.ended  # asked before looking: nothing comes after it
            try:
                file = video.job.output.open("rb")
                break
            except FileNotFoundError:
                if ended or visit.gone:
                    return
                time.sleep(0.05)
        with file:
            while not visit.gone:
                ended = video.ended
                data = file.read(2**16)
                if data:
                    yield data
                elif ended:
                    return
                else:
                    time.sleep(0.05)

    # ---- the worker

    def _make_all(self) -> None:
        while True:
            visit, video = self.orders.get()
            if visit.gone:
                continue
            try:
                video.state = "making"
                self._make(visit, video)
                video.state = "ready"
            except Gone:
                pass
            except Exception as error:  # whatever it is, the next visitor must get a video
                video.said = [_without(_sentence(error), video.job)]
                video.state = "failed"
            if visit.gone:
                shutil.rmtree(visit.folder, ignore_errors=True)

    def _make(self, visit: Visit, video: Video) -> None:
        def progress(done: int, total: int) -> None:
            video.done, video.total = done, total
            if visit.gone:
                raise Gone

        with open_pcm(video.job.audio) as pcm:
            if len(pcm) > LONGEST_S * SAMPLE_RATE:
                length_s = len(pcm) / SAMPLE_RATE
                raise Refused(f"the sound lasts {length_s:.0f} s; on this page it may last {LONGEST_S} s")
        self.animator.options = video.options
        summary = self.animator.animate(video.job, progress, StreamWriter)
        video.said = [_without(notice, video.job) for notice in summary.notices]
        video.marks = provenance.read_marks(video.job.output)

    def _forget_the_silent(self) -> None:
        while True:
            time.sleep(1)
            now = time.monotonic()
            for name in [name for name, visit in list(self.visits.items()) if now - visit.heard_of > SILENT_S]:
                self.leave(name)


def _sentence(error: Exception) -> str:
    """What the command line says of an error."""
    if isinstance(error, (DataError, OptionError, ConfigError, Refused)):
        return str(error)
    if isinstance(error, OSError):
        return os_error_sentence(error)
    return f"unexpected {type(error).__name__}; the server's terminal may say more"


def _without(sentence: str, job: Job) -> str:
    """A sentence that names files and not where the server keeps them."""
    for file in (*job.inputs, *job.outputs):
        sentence = sentence.replace(f"{file.parent}/", "")
    return sentence
