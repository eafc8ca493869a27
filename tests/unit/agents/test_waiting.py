"""Calls that came to wait by themselves, and calls that were interrupted."""

import pytest

from flux.events import ApprovalRequired, Entry, ToolWaiting
from tests.unit.agents import logs

BEGUN = (logs.session(), logs.user("u"), logs.run("u"), logs.answer("", "c"))
START = logs.started("c")
WAIT = ToolWaiting(call="c")
ASK = ApprovalRequired(id="q", call="inner", agent="", tool="pay", args={}, digest="", within="c")
TOLD = logs.answered("q")


@pytest.mark.behaviour("toolfiles:run:durable")
@pytest.mark.parametrize(
    ("entries", "rested"),
    [
        ((), False),
        ((START,), False),
        ((START, ASK, WAIT), True),
        ((START, ASK, WAIT, TOLD), True),
        ((START, ASK, TOLD), False),  # answered while it went on: what it did since is not known
        ((START, ASK, TOLD, WAIT), True),
        ((START, ASK, WAIT, TOLD, START), False),
    ],
)
def test_only_a_call_that_came_to_wait_has_rested(entries: tuple[Entry, ...], rested: bool) -> None:
    log = logs.transcript(*BEGUN, *entries)
    assert log.has_rested("c") is rested
    assert log.has_rested("other") is False
