"""Where a person forks their session: the place in front of one of its last messages."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from flux.client import FluxClient
from flux.errors import InvalidInput

PAGE = 200


class Cut(Struct, frozen=True):
    """The seq to fork at, and the text of the message behind it."""

    at: int
    text: str = ""


async def cut_before(client: FluxClient, session: str, head: int, back: int) -> Cut:
    """In front of the run that is `back` runs from the end, 1 being the last.

    :raises InvalidInput: there are not so many
    """
    rows: list[dict[str, Any]] = []
    after, found = head, 0
    while after > 0:
        upto, after = after, max(0, after - PAGE)
        page = await client.get(f"/sessions/{session}/events", after=after, limit=upto - after)
        rows = [*page["items"], *rows]
        starts = [row for row in rows if row["type"] == "run_started"]
        found = len(starts)
        # One page more, unless it is the first: what a run consumed stands in front of it.
        if found > back or (found == back and after == 0):
            return _in_front(rows, starts[-back])
    raise InvalidInput(f"this session has {found} message{'' if found == 1 else 's'} to go back behind")


def _in_front(rows: list[dict[str, Any]], start: dict[str, Any]) -> Cut:
    said = [row for row in rows if row["type"] == "user_message" and row["id"] in start["inputs"]]
    text = "\n".join(part["text"] for row in said for part in row["parts"] if part["type"] == "text")
    first = said[0]["seq"] if said else start["seq"]
    # Where others have happened between the message and its run, the cut is at the run: the message is left out there.
    between = {row["type"] for row in rows if first < row["seq"] < start["seq"]} - {"user_message"}
    return Cut((start["seq"] if between else first) - 1, text)
