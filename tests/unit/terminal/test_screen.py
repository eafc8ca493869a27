"""Drawing finished lines and a tail that is redrawn, checked on a terminal emulator."""

import io

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.surfaces.terminal import screen
from flux.surfaces.terminal.live import LiveView
from flux.surfaces.terminal.markdown import Markdown
from flux.surfaces.terminal.screen import Screen

LINES = st.lists(st.text("ab ", max_size=12).map(str.strip), max_size=6)


class Emulator(io.StringIO):
    """A terminal that remembers what scrolled away."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=5_000, ratio=1.0)
        self.screen.set_mode(pyte.modes.LNM)  # a pseudo terminal turns "\n" into "\r\n"
        self.stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self.stream.feed(text)
        return len(text)

    def shown(self) -> list[str]:
        above = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        lines = [line.rstrip() for line in [*above, *self.screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "8")


def plain(lines: list[str]) -> list[screen.Line]:
    return [screen.Line(line, len(line)) for line in lines]


@pytest.mark.behaviour("terminal:answer:once")
@given(st.lists(st.tuples(LINES, LINES), max_size=12))
def test_the_scrollback_has_each_line_once_and_the_tail_is_replaced(steps: list[tuple[list[str], list[str]]]) -> None:
    emulator = Emulator(20, 8)
    drawn = Screen(emulator)
    expected: list[str] = []
    tail: list[str] = []
    for finished, tail in steps:
        drawn.draw(plain(finished), plain(tail))
        expected += finished
    whole = [*expected, *tail[-7:]]
    while whole and not whole[-1]:
        whole.pop()
    assert emulator.shown() == whole


@pytest.mark.behaviour("terminal:answer:once")
@given(st.text("ab \n`-#*1.|", max_size=200), st.integers(1, 7))
def test_streaming_ends_like_printing_at_once(text: str, size: int) -> None:
    def shown(pieces: list[str]) -> list[str]:
        emulator = Emulator(20, 8)
        view = LiveView(emulator)
        view.markdown = Markdown
        view.begin()
        for piece in pieces:
            view.text(piece)
            view.tick()
        view.end_text()
        view.rest()
        return emulator.shown()

    assert shown([text[i : i + size] for i in range(0, len(text), size)]) == shown([text])


@pytest.mark.behaviour("terminal:safety:controls-shown")
@given(
    st.lists(st.sampled_from(["[a](", "<http://x/%1b>", "&#27;", "&#x202e;", "&#155;", "`", ")", "![", "](u)", "a\n"]))
)
def test_markdown_makes_no_control_characters(pieces: list[str]) -> None:
    lines = Screen(io.StringIO()).lines(Markdown("".join(pieces)))
    assert not any(sign in line.replace("\x1b[", "") for line in lines for sign in "\x1b\x9b\u202e")
    assert all(line.cells <= 20 for line in lines)


def test_raw_html_and_link_definitions_stay_visible() -> None:
    lines = Screen(io.StringIO()).lines(Markdown("<b>x</b>\n\n[a]: http://b\n\n![alt](http://c)"))
    assert lines == ["<b>x</b>", "", "[a]: http://b", "", "[image: alt]", "(http://c)"]


@pytest.mark.behaviour("terminal:errors:reconnecting")
def test_what_was_the_case_for_a_while_leaves_no_trace() -> None:
    emulator = Emulator(20, 8)
    view = LiveView(emulator)
    view.begin()
    view.text("Some words")
    view.status("reconnecting…")
    assert emulator.shown() == ["Some words", "", "reconnecting…"]
    view.status("")
    view.text(" more")
    view.end_text()
    view.rest()
    assert emulator.shown() == ["Some words more"]
