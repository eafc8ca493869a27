"""What of an artifact a model can read on."""

import pytest

from flux.agents.parts.artifacts import readable
from flux.tools.text import MAX_LINE


@pytest.mark.behaviour("artifacts:read")
def test_a_line_that_is_too_long_to_be_shown_is_read_as_several() -> None:
    assert readable(b"a\n\nb\r\n") == b"a\n\nb\r\n"
    long = "é" * (2 * MAX_LINE + 1)
    assert readable(f"a\n{long}\n\nb".encode()).decode().split("\n") == [
        "a",
        "é" * MAX_LINE,
        "é" * MAX_LINE,
        "é",
        "",
        "b",
    ]
