"""Cutting growing Markdown into finished blocks and a tail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.surfaces.terminal.blocks import Blocks, continued, is_tight

PIECES = st.sampled_from(
    [
        "a",
        "word ",
        "\n",
        "\n\n",
        "- ",
        "* ",
        "1. ",
        "12) ",
        "```",
        "~~~~",
        "py",
        "    ",
        "  ",
        "\t",
        "> ",
        "# ",
        "---",
        "|",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


def cut(chunks: list[str]) -> tuple[list[str], str]:
    blocks = Blocks()
    return [block for chunk in chunks for block in blocks.feed(chunk)], blocks.tail


@pytest.mark.behaviour("terminal:answer:blocks")
@given(TEXTS, st.data())
def test_nothing_is_lost_and_chunks_do_not_matter(text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    chunks = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    finished, tail = cut(chunks)
    assert "".join(finished) + tail == text
    assert (finished, tail) == cut([text])
    assert all(block.strip() for block in finished)


@pytest.mark.behaviour("terminal:answer:blocks")
@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("one\ntwo\n\nthree", ["one\ntwo\n\n", "three"]),
        ("# head\ntext\n\n", ["# head\ntext\n\n"]),
        ("text\n```py\na\n\nb\n```\nafter", ["text\n", "```py\na\n\nb\n```\n", "after"]),
        ("````\n```\n````\n", ["````\n```\n````\n"]),
        ("- a\n- b\n\n  more\n- c\n", ["- a\n", "- b\n\n  more\n", "- c\n"]),
        ("1. a\n   ```\n   x\n\n   - y\n   ```\n2. b\n", ["1. a\n   ```\n   x\n\n   - y\n   ```\n", "2. b\n"]),
        ("- a\n  - nested\n\npara\n\n", ["- a\n  - nested\n\n", "para\n\n"]),
        ("- a\n```\ncode\n```\n", ["- a\n", "```\ncode\n```\n"]),
        ("text\n- a\n", ["text\n", "- a\n"]),
        ("text\n2. no list\n\n", ["text\n2. no list\n\n"]),
        ("a\n\n***\n\nb", ["a\n\n", "***\n\n", "b"]),
        ("Title\n---\n\nx", ["Title\n---\n\n", "x"]),
    ],
)
def test_where_blocks_end(text: str, blocks: list[str]) -> None:
    finished, tail = cut(list(text))
    assert [*finished, *([tail] if tail else [])] == blocks


def test_items_stand_together_unless_there_is_an_empty_line() -> None:
    assert is_tight("- a\n", "- b")
    assert not is_tight("- a\n\n", "- b")
    assert not is_tight("text\n", "- b")


def test_numbers_go_on() -> None:
    assert continued("1. a\n", "1. b\n") == "2. b\n"
    assert continued("9. a\n", "9. b\n\n   more\n") == "10. b\n\n    more\n"
    assert continued("1. a\n", "1) b") == "1) b"
    assert continued("- a\n", "1. b") == "1. b"
