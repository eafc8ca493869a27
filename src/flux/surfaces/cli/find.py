"""Finding a session or an execution by what a person types: its id, or the beginning of it."""

from __future__ import annotations

from flux.client import FluxClient
from flux.errors import ArtifactNotFound, ExecutionNotFound, InterruptNotFound, InvalidInput, SessionNotFound

ID_LENGTH = 36
LOOKED_AT = 2000


async def find_session(client: FluxClient, given: str | None) -> str:
    """The id of the session that is meant; None: the latest.

    :raises SessionNotFound: there is no session at all, or none that begins so
    :raises InvalidInput: several begin so
    """
    if given is None:
        async for row in client.pages("/sessions", limit=1):
            return str(row["id"])
        raise SessionNotFound("there is no session yet; `flux chat` starts one")
    found = await _beginning(client, "/sessions", given, "sessions")
    if found is None:
        raise SessionNotFound(f"there is no session {given!r}; `flux agent session list` shows those that exist")
    return found


async def find_execution(client: FluxClient, given: str) -> str:
    """The id of the execution that is meant.

    :raises ExecutionNotFound: there is none that begins so
    :raises InvalidInput: several begin so
    """
    found = await _beginning(client, "/executions", given, "executions")
    if found is None:
        raise ExecutionNotFound(f"there is no execution {given!r}; `flux execution list` shows those that exist")
    return found


async def find_approval(client: FluxClient, execution: str, given: str) -> str:
    """The id of the approval of an execution that is meant.

    :raises InterruptNotFound: there is none that begins so
    :raises InvalidInput: several begin so
    """
    found = await _beginning(client, f"/executions/{execution}/approvals", given, "approvals")
    if found is None:
        raise InterruptNotFound(f"there is no approval {given!r}; `flux execution approvals` shows those that are open")
    return found


async def find_artifact(client: FluxClient, session: str, given: str) -> str:
    """The id of the artifact of a session that is meant.

    :raises ArtifactNotFound: there is none that begins so
    :raises InvalidInput: several begin so
    """
    found = await _beginning(client, f"/sessions/{session}/artifacts", given, "artifacts")
    if found is None:
        raise ArtifactNotFound(f"there is no artifact {given!r} in session {session}")
    return found


async def _beginning(client: FluxClient, path: str, given: str, what: str) -> str | None:
    """The one id of a list that begins so; None: there is none.

    :raises InvalidInput: several begin so
    """
    if len(given) == ID_LENGTH:
        return given
    found: list[str] = []
    looked = 0
    async for row in client.pages(path, limit=200):
        id = str(row["id"] if "id" in row else row["execution_id"])
        found += [id] if id.startswith(given) else []
        looked += 1
        if looked == LOOKED_AT:
            break
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} {what} begin with {given!r}; type more of the id")
    return found[0] if found else None
