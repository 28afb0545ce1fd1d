"""Signs of life: a line each minute where output is no terminal, also of a step that takes longer; else silence."""

import io
import time

import pytest

from lcmat import alive
from lcmat.alive import Progress


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let minutes be a fifth of a second."""
    monkeypatch.setattr(alive, "RHYTHM", alive.Rhythm(line=0.2, look=0.02, gap=0.1))
    monkeypatch.setattr(alive, "WATCH", alive.Watch())


pytestmark = pytest.mark.usefixtures("quick")


def test_a_long_step_of_an_inner_loop_is_no_silence(capsys: pytest.CaptureFixture) -> None:
    """One line says where the outer loop stands, with its time, and then the inner one."""
    with Progress(total=4, desc="search") as outer:
        outer.update()
        outer.set_postfix(loss="0.5")
        for _ in Progress(range(3), desc="training"):
            time.sleep(0.5)
            break
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "search 1 of 4 (loss 0.5), 0 s, about 1 s left; training 0 of 3"


def test_what_is_short_or_silent_says_nothing(capsys: pytest.CaptureFixture) -> None:
    for _ in Progress(range(5), desc="short"):
        time.sleep(0.01)
    with Progress(desc="silent", disable=True):
        time.sleep(0.4)
    assert capsys.readouterr().err == ""


def test_a_loop_that_an_error_ends_is_forgotten(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyError), Progress(desc="broken"):
        raise KeyError
    time.sleep(0.4)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """Takes what a bar draws."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def test_on_a_terminal_the_bar_is_drawn_while_a_step_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "RHYTHM", alive.Rhythm(drawing=0.1, look=0.02, gap=0.1))
    output = Terminal()
    monkeypatch.setattr(alive.sys, "stderr", output)
    time.sleep(0.3)
    with Progress(total=2, desc="slow") as loop:
        drawn = output.getvalue().count("slow")
        time.sleep(0.5)
        assert output.getvalue().count("slow") > drawn
        loop.update()
