from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.tools.text import Tap, clip, is_binary, lines_of, printable, shorten


@given(st.text("ab\n[.", max_size=400), st.integers(0, 300))
@pytest.mark.behaviour("tools:output:clipped")
def test_clipped_text_keeps_its_head_and_tail_and_says_what_is_missing(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    if len(text) <= limit:
        assert clipped == text
        return
    head, _, rest = clipped.partition("\n[... ")
    count, _, tail = rest.partition(" characters left out ...]\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(count) + len(tail) == len(text)
    assert len(clipped) <= max(limit, len(f"\n[... {len(text)} characters left out ...]\n"))


@pytest.mark.behaviour("tools:output:clipped")
def test_clipping_copies_no_more_than_it_keeps() -> None:
    class Text(str):
        copied = 0

        def __getitem__(self, key: Any) -> str:
            piece = super().__getitem__(key)
            Text.copied += len(piece)
            return piece

    assert len(clip(Text("x" * 50_000_000), 100_000)) == 100_000
    assert Text.copied < 100_001


@given(st.lists(st.text("ab", max_size=9)), st.integers(0, 30))
@pytest.mark.behaviour("tools:output:tapped")
def test_a_tap_passes_so_much_and_then_one_note(pieces: list[str], limit: int) -> None:
    passed: list[str] = []
    tap = Tap(passed.append, limit)
    for piece in pieces:
        tap(piece)
    text = "".join(pieces)
    note = "" if len(text) <= limit else "\n[... what follows is not shown live ...]\n"
    assert "".join(passed) == text[:limit] + note
    assert all(passed)


def test_a_long_line_is_cut_with_a_note() -> None:
    assert shorten("x" * 2_000) == "x" * 2_000
    assert shorten("x" * 2_005) == "x" * 2_000 + " [... 5 more characters in this line]"


@given(st.binary(min_size=1, max_size=30))
def test_a_file_name_is_shown_on_one_line_that_can_be_encoded(name: bytes) -> None:
    shown = printable(name.decode("utf-8", "surrogateescape"))
    assert shown.encode()
    assert "\n" not in shown


def test_lines_end_with_lf_or_crlf_and_nothing_else() -> None:
    assert lines_of("\ufeffone\r\ntwo\x0b\u2028\n\nlast".encode()) == ["one", "two\x0b\u2028", "", "last"]
    assert lines_of(b"one\n") == ["one"]
    assert lines_of(b"") == []
    assert lines_of("é\n".encode("utf-16")) == ["é"]


def test_text_with_a_nul_is_binary() -> None:
    assert is_binary(b"\x7fELF\0")
    assert not is_binary("grüße".encode("latin-1"))
    assert not is_binary("grüße".encode("utf-16"))
