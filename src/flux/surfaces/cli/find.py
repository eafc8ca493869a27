"""Finding a session by what a person types: its id, the beginning of it, or nothing for the latest."""

from __future__ import annotations

from flux.client import FluxClient
from flux.errors import InvalidInput, SessionNotFound

ID_LENGTH = 36
LOOKED_AT = 2000


async def find_session(client: FluxClient, given: str | None) -> str:
    """The id of the session that is meant.

    :raises SessionNotFound: there is no session at all, or none that begins so
    :raises InvalidInput: several begin so
    """
    if given is not None and len(given) >= ID_LENGTH:
        return given
    found: list[str] = []
    looked = 0
    async for row in client.pages("/sessions", limit=200):
        if given is None:
            return str(row["id"])
        found += [row["id"]] if row["id"].startswith(given) else []
        looked += 1
        if looked == LOOKED_AT:
            break
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} sessions begin with {given!r}; type more of the id")
    if not found:
        raise SessionNotFound(
            f"there is no session {given!r}; `flux agent session list` shows those that exist"
            if given
            else "there is no session yet; `flux chat` starts one"
        )
    return found[0]
