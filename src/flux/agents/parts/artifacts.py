"""The artifacts of sessions: for people over the API, and for the tools of an agent."""

from __future__ import annotations

from flux.agents.history.results import SCHEME
from flux.agents.service.sessions import Sessions
from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.errors import ArtifactNotFound
from flux.store import artifacts
from flux.store.artifacts import Artifact
from flux.store.database import Database, Scope
from flux.tools.files import READER
from flux.tools.references import SECLUDED
from flux.tools.text import MAX_LINE


class Artifacts:
    """Artifacts of sessions. Every method takes the caller's scope and finds only what is theirs."""

    def __init__(self, database: Database, sessions: Sessions) -> None:
        self._database = database
        self._sessions = sessions

    async def page(
        self, scope: Scope, session: str, after: tuple[float, str] | None = None, limit: int = 50
    ) -> list[Artifact]:
        """The artifacts of a session, oldest first.

        :raises SessionNotFound: there is none
        """
        await self._sessions.get(scope, session)
        return await self._database.read(artifacts.page(scope, session, after, limit))

    async def get(self, scope: Scope, session: str, id: str) -> tuple[Artifact, bytes]:
        """One artifact, with its bytes.

        :raises SessionNotFound, ArtifactNotFound: there is none
        """
        await self._sessions.get(scope, session)
        found = await self._database.scan(artifacts.get(scope, session, id))
        if found is None:
            raise ArtifactNotFound(f"session {session} has no artifact {id[:80]!r}")
        return found


async def artifact_kit(session: Session) -> Kit:
    """Lets a session read what it and its sub-agents have kept, as soon as there is something."""
    run, log = session.run, session.log
    offered = log.kept and session.policy.definition.approval_mode != "never"

    async def read(path: str) -> bytes:
        found = await run.database.scan(artifacts.read_in_tree(run.scope, run.id, path))
        if found is None or found[0].startswith(SECLUDED):
            raise FileNotFoundError(f"there is no artifact {path[:80]!r} in this session")
        media_type, data = found
        return readable(data) if media_type.startswith("text/") or media_type == "application/json" else data

    return Kit(
        resources={SCHEME: read},
        readable=offered,
        stale=lambda: log.kept and not offered and session.policy.definition.approval_mode != "never",
        outdates=lambda context: offered and all(tool["name"] != READER for tool in context.tools),
    )


def readable(data: bytes) -> bytes:
    """A text whose lines a tool can show whole: of one longer line it makes several."""
    text = data.decode(errors="replace")
    lines = text.split("\n")
    if all(len(line) <= MAX_LINE for line in lines):
        return data
    pieces = (line[at : at + MAX_LINE] for line in lines for at in range(0, max(len(line), 1), MAX_LINE))
    return "\n".join(pieces).encode()
