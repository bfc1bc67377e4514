"""engine.command: how scripts start and end."""

import pytest

from engine.command import clean_exit, from_torchrun


def test_a_process_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert from_torchrun() == (0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert from_torchrun() == (5, 8, 1)


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


def test_our_own_mistakes_stay_tracebacks() -> None:
    with pytest.raises(ZeroDivisionError), clean_exit(KeyError):
        raise ZeroDivisionError
