"""Progress is shown of long work on a terminal, and nowhere else."""

import io
import sys

import pytest

from stagewise.files import progress
from stagewise.files.progress import followed, stages


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_a_terminal(monkeypatch):
    """Of the test itself: pytest sets the streams anew between fixtures and tests."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_what_is_followed_comes_out_as_it_went_in(monkeypatch):
    at_a_terminal(monkeypatch)
    assert list(followed([3, 1, 2], "reading probes")) == [3, 1, 2]


def test_long_work_is_counted_on_a_terminal(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    for number in followed(range(3), "reading probes"):
        seen = terminal.getvalue()
        assert "stagewise: reading probes" in seen
        assert number or "0/3" in seen


def test_short_work_shows_nothing(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    assert len(list(followed(range(1000), "reading probes"))) == 1000
    assert "reading" not in terminal.getvalue()


@pytest.mark.parametrize("patience", [0.0, 2.0])
def test_nothing_is_written_into_a_file(monkeypatch, patience):
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    list(followed(range(5), "reading probes"))
    with stages(2) as line:
        line.begin("drawing figures")
        line.begin("writing the page")
    assert log.getvalue() == ""


def test_the_present_stage_is_named_and_the_line_cleared(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with stages(2) as line:
        line.begin("drawing figures")
        assert "stagewise: drawing figures ... (0 of 2 done" in terminal.getvalue()
        line.begin("writing the page")
        assert "stagewise: writing the page ... (1 of 2 done" in terminal.getvalue()
    assert terminal.getvalue().rpartition("done")[2].split("\r")[-1].strip() == ""


def test_the_line_is_cleared_after_an_error(monkeypatch):
    terminal = at_a_terminal(monkeypatch)

    def fails():
        with stages(2) as line:
            line.begin("drawing figures")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert "drawing figures" in terminal.getvalue()
    assert terminal.getvalue().split("\r")[-1].strip() == ""
