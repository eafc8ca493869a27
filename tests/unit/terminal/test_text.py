"""Making the text of models and tools harmless and short."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flux.surfaces.terminal.text import call_text, first_line, printed, shorten, value_lines
from flux.surfaces.visible import visible


@pytest.mark.behaviour("terminal:safety:controls-shown")
@given(st.text(st.characters()))
def test_no_control_character_is_left(text: str) -> None:
    kept = {"\n", "\t", "\u200c", "\u200d", "\u00ad"}
    for shown in (visible(text), printed(text), value_lines(text), call_text(text, {text: text}, 40)):
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") and c not in kept]
        assert not [
            c for c in shown if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI")
        ]


@pytest.mark.behaviour("terminal:safety:controls-shown")
@given(st.lists(st.text(max_size=5), max_size=5))
def test_chunks_do_not_matter(chunks: list[str]) -> None:
    assert "".join(map(visible, chunks)) == visible("".join(chunks))


def test_what_is_shown_instead() -> None:
    assert visible("a\x1b[2J\r\n\x07\x7f\x9b\u202e") == "a␛[2J\n␇␡<U+009B><U+202E>"


def test_the_output_of_programs() -> None:
    assert printed("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x") == "red x"
    assert printed("10%\r20%\r30%\ndone\r\n") == "30%\ndone\n"
    assert first_line("\n\n  \x1b[31mfirst\x1b[0m \nsecond") == "first"
    assert first_line("") == ""


@pytest.mark.behaviour("terminal:tools:one-line")
def test_calls_on_one_line() -> None:
    assert call_text("shell", {"command": "echo hi"}) == 'shell(command="echo hi")'
    assert call_text("f", {}) == "f()"
    assert call_text("write", {"text": "a\nb", "mode": None, "n": 3}) == 'write(text="a\\nb", mode=null, n=3)'
    assert call_text("shell", {"command": "x" * 100}, 30) == 'shell(command="' + "x" * 13 + "…)"


@pytest.mark.behaviour("terminal:tools:one-line")
@given(
    st.text("abc漢", min_size=1, max_size=8),
    st.dictionaries(st.text("xy", min_size=1), st.text() | st.integers() | st.lists(st.text())),
    st.integers(20, 120),
)
def test_calls_fit_the_width(name: str, args: dict[str, object], width: int) -> None:
    shown = call_text(name, args, width)
    assert cell_len(shown) <= width
    assert "\n" not in shown


def test_shortening_counts_cells() -> None:
    assert shorten("short", 5) == "short"
    assert shorten("longer", 5) == "long…"
    assert shorten("漢字漢字", 5) == "漢字…"
