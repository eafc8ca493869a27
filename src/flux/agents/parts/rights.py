"""What a session's owner may let its agent do: tools without a permission are not offered, nor are other agents."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flux.agents.turn.kits import Kit
from flux.agents.turn.loop import Session
from flux.engine.service.identity import Identities
from flux.permissions import Permissions, quoted
from flux.store.database import Scope

WHY = "is not offered to this session's owner; it needs the permission"


def permission_for(tool: str) -> str:
    """What it takes to let an agent use a tool."""
    return f"workflow:agents:agent_chat:task:{quoted(tool)}:execute"


def withheld(tools: Iterable[str], permissions: Permissions) -> list[str]:
    """Those of the tools that somebody's agents may not use."""
    return [name for name in tools if not permissions.allow(permission_for(name))]


class Rights:
    """Makes the kit that keeps tools back. What the code of a workflow gives an agent is a part of that workflow."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None where everybody may do everything."""
        if not self._identities.enabled or (session.given is not None and session.given.by_code):
            return None
        scope = session.run.scope
        permissions = await self._identities.permissions(scope)
        return Kit(
            withheld=lambda name: bool(withheld((name,), permissions)),
            stale=lambda: self._identities.glance(scope) not in (None, permissions),
        )

    async def colleagues(self, scope: Scope) -> Callable[[str], bool]:
        """Which stored agents somebody's agents may hand work to."""
        permissions = await self._identities.permissions(scope)
        return lambda name: permissions.allow(f"agent:{quoted(name)}:start")
