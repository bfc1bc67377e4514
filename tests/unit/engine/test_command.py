"""engine.command: how scripts start and end."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.command import LOCK, Busy, clean_exit, from_torchrun, only_one
from engine.config import ConfigError

ROOT = Path(__file__).parents[3]


def test_a_rank_whose_peer_has_gone_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    lost = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended, clean_exit(KeyError):
        raise lost
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: another rank has ended, and this one with it")
    with pytest.raises(RuntimeError, match="shapes"), clean_exit(KeyError):
        raise RuntimeError("shapes differ")
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(RuntimeError, match="gloo"), clean_exit(KeyError):
        raise lost


def test_a_process_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert from_torchrun() == (0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert from_torchrun() == (5, 8, 1)
    for wrong in ("x", "-1", "8"):
        monkeypatch.setenv("RANK", wrong)
        with pytest.raises(ConfigError, match=f"RANK={wrong} WORLD_SIZE=8 LOCAL_RANK=1 in the environment is no place"):
            from_torchrun()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("x"), 2, "error: 'x'"),
        (OSError(28, "No space left on device", "out.mp4"), 2, "no space left on the disk while writing 'out.mp4'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_mistakes_are_a_sentence_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, clean_exit(KeyError):
        raise error
    assert ended.value.code == code and said in capsys.readouterr().err


def test_a_name_that_cannot_be_printed_is_printed_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    with clean_exit():
        print("ü\udce9")
    assert raw.getvalue() == b"\\xfc\\udce9\n"


HOLD = """
import sys
from pathlib import Path
from engine.command import only_one
with only_one(Path(sys.argv[1]), "run"):
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("name", [LOCK, "list.csv"])
def test_a_second_process_is_told_that_the_first_is_at_work(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name != LOCK:
        path.write_text("image,audio,output\n")
    command = [sys.executable, "-c", HOLD, str(path)]
    first = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "holding\n"
    with pytest.raises(Busy, match="another run is at work"), only_one(path, "run"):
        pass
    first.kill()  # a lock does not outlive its process, however that ends
    first.communicate()
    with only_one(path, "run"):
        assert path.exists()
    assert path.exists() == (name != LOCK)


def test_reading_a_held_list_and_forking_leave_the_lock_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("image,audio,output\n")
    with only_one(path, "run"):
        path.read_text()
        child = os.fork()
        if not child:  # outlives the block, as a worker outlives a process that is killed
            time.sleep(20)
            os._exit(0)
        with pytest.raises(Busy):
            hold_once(path)
    hold_once(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def hold_once(path: Path) -> None:
    """As another process would: a lock is of a file that is opened anew."""
    with only_one(path, "run"):
        pass


def test_our_own_mistakes_stay_tracebacks() -> None:
    with pytest.raises(ZeroDivisionError), clean_exit(KeyError):
        raise ZeroDivisionError
