"""What each route needs: the one table of who may do what over HTTP.

`{name}` and the like stand for the parameters of the path. A route that is not in here answers nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from flux.engine.service.identity import TALK

REGISTER = "workflow:*:*:register"


class Needs(Struct, frozen=True):
    """Permissions, all of them. Who lacks one and may not even do `knows` is told that there is no such thing.

    `sessions`: with them the sessions of the agent are there, whoever owns them.
    """

    all: tuple[str, ...] = ()
    knows: str | None = None
    sessions: bool = False


class Row(Struct, frozen=True):
    """An execution or session named in the path: what one may do there who is not its owner, and who is.

    Who may not see it is told that there is none. `owner`: the owner needs the permission as well.
    `message`: the path names a message in it, ID.SEQ.
    """

    act: Literal["see", "talk", "cancel", "update", "delete", "decide"]
    owner: bool = False
    message: bool = False


class Listing(Struct, frozen=True):
    """A list of executions or sessions: it shows the caller's own, and of others what they may see."""


class Inside(Struct, frozen=True):
    """The body, or what is found, says what is needed: the route asks for it before it does anything."""

    all: tuple[str, ...] = ()


Rule = Needs | Row | Listing | Inside

ANYBODY = Needs()
WORKFLOW = "workflow:{namespace}:{name}"


def _known(action: str, noun: str, *more: str) -> Needs:
    """Needs `noun:{name}:action`; hidden from who may not read it."""
    return Needs((f"{noun}:{{name}}:{action}", *more), f"{noun}:{{name}}:read")


TALKS = Needs((TALK, "agent:{name}:start"), "agent:{name}:read", sessions=True)

RULES: Mapping[str, Rule] = {
    "GET /health": ANYBODY,
    "GET /ready": ANYBODY,
    "GET /metrics": Needs(("admin:metrics:read",)),
    "GET /oauth/callback": ANYBODY,
    "GET /oauth/client.json": ANYBODY,
    "POST /sessions": Inside(),
    "GET /sessions": Listing(),
    "GET /agents/sessions": Listing(),
    "GET /agents/{name}/sessions": Listing(),
    "GET /sessions/{id}": Row("see"),
    "GET /sessions/{id}/events": Row("see"),
    "GET /sessions/{id}/messages": Row("see"),
    "GET /sessions/{id}/interrupts": Row("see"),
    "GET /sessions/{id}/artifacts": Row("see"),
    "GET /sessions/{id}/artifacts/{aid}": Row("see"),
    "POST /sessions/{id}/messages": Row("talk", owner=True),
    "POST /sessions/{id}/interrupts/{iid}": Row("decide", owner=True),
    "POST /sessions/{id}/cancel": Row("cancel"),
    "POST /sessions/{id}/stop": Row("cancel"),
    "POST /sessions/{id}/compact": Row("talk", owner=True),
    "POST /sessions/{id}/fork": Row("talk", owner=True),
    "GET /sessions/{id}/export": Row("see"),
    "PUT /sessions/{id}/name": Row("update"),
    "DELETE /sessions/{id}": Row("delete"),
    "POST /agents": Inside(("agent:*:create",)),
    "GET /agents": Inside(),
    "GET /agents/{name}": _known("read", "agent"),
    "GET /agents/{name}/versions": _known("read", "agent"),
    "PUT /agents/{name}": Inside(),
    "DELETE /agents/{name}": _known("delete", "agent"),
    "POST /agents/{name}/{id}": TALKS,
    "WS /agents/{name}/{id}": TALKS,
    "POST /agents/{name}/{id}/dispatch": TALKS,
    "GET /dispatches/{id}": Row("see", message=True),
    "POST /schedules": Inside(("schedule:*:create",)),
    "GET /schedules": Inside(),
    "GET /schedules/{name}": _known("read", "schedule"),
    "GET /schedules/{name}/history": _known("read", "schedule"),
    "PUT /schedules/{name}": Inside(),
    "DELETE /schedules/{name}": _known("delete", "schedule"),
    "POST /schedules/{name}/pause": _known("update", "schedule"),
    "POST /schedules/{name}/resume": _known("update", "schedule"),
    "POST /webhooks": Needs(("admin:webhooks:manage",)),
    "GET /webhooks": Needs(("admin:webhooks:read",)),
    "GET /webhooks/{name}": Needs(("admin:webhooks:read",)),
    "DELETE /webhooks/{name}": Needs(("admin:webhooks:manage",)),
    "GET /webhooks/{name}/deliveries": Needs(("admin:webhooks:read",)),
    "POST /webhooks/{name}/deliveries/{id}/redeliver": Needs(("admin:webhooks:manage",)),
    "GET /workers": Inside(),
    "GET /workers/{name}": _known("read", "worker"),
    "POST /workers/{name}/drain": _known("manage", "worker"),
    "POST /workflows": Needs((REGISTER,)),
    "GET /workflows": Inside(),
    "GET /workflows/{namespace}/{name}": Inside(),
    "GET /workflows/{namespace}/{name}/versions": Needs((f"{WORKFLOW}:read",), f"{WORKFLOW}:read"),
    "GET /workflows/{namespace}/{name}/versions/{version}": Inside(),
    "DELETE /workflows/{namespace}/{name}": Needs((f"{WORKFLOW}:register",), f"{WORKFLOW}:read"),
    "POST /workflows/{namespace}/{name}/run/{mode}": Inside(),
    "POST /workflows/{namespace}/{name}/resume/{id}/{mode}": Row("talk", owner=True),
    "POST /workflows/{name}": Inside(),
    "GET /runs/{id}": Row("see"),
    "GET /runs/{id}/events": Row("see"),
    "GET /runs/{id}/stream": Row("see"),
    "GET /executions": Listing(),
    "GET /executions/{id}": Row("see"),
    "GET /executions/{id}/events": Row("see"),
    "POST /executions/{id}/cancel": Row("cancel"),
    "PUT /executions/{id}/name": Row("update"),
    "GET /approvals": Listing(),
    "GET /executions/{id}/approvals": Row("see"),
    "POST /executions/{id}/approvals/{call}/approve": Row("decide", owner=True),
    "POST /executions/{id}/approvals/{call}/reject": Row("decide", owner=True),
    "GET /configs": Inside(),
    "GET /configs/{name}": Inside(),
    "PUT /configs/{name}": Needs(("config:{name}:manage",)),
    "DELETE /configs/{name}": _known("manage", "config"),
    "GET /secrets": Needs(("admin:secrets:read",)),
    "POST /secrets/rotate-key": Needs(("admin:secrets:manage",)),
    "GET /audit": Needs(("admin:audit:read",)),
    "GET /secrets/{name}": Needs(("admin:secrets:read",)),
    "PUT /secrets/{name}": Needs(("admin:secrets:manage",)),
    "DELETE /secrets/{name}": Needs(("admin:secrets:manage",)),
    "GET /memories": Inside(),
    "GET /memories/{key:path}": Inside(),
    "DELETE /memories/{key:path}": Inside(),
    "GET /auth/me": ANYBODY,
    "POST /principals": Needs(("admin:principals:manage",)),
    "GET /principals": Needs(("admin:principals:read",)),
    "GET /principals/{subject}": Needs(("admin:principals:read",)),
    "DELETE /principals/{subject}": Needs(("admin:principals:manage",)),
    "POST /principals/{subject}/enable": Needs(("admin:principals:manage",)),
    "POST /principals/{subject}/disable": Needs(("admin:principals:manage",)),
    "PUT /principals/{subject}/roles/{role}": Needs(("admin:principals:manage",)),
    "DELETE /principals/{subject}/roles/{role}": Needs(("admin:principals:manage",)),
    "POST /principals/{subject}/keys": Needs(("admin:principals:manage",)),
    "GET /principals/{subject}/keys": Needs(("admin:principals:read",)),
    "DELETE /principals/{subject}/keys/{name}": Needs(("admin:principals:manage",)),
    "POST /roles": Needs(("admin:roles:manage",)),
    "GET /roles": Needs(("admin:roles:read",)),
    "GET /roles/{name}": Needs(("admin:roles:read",)),
    "PUT /roles/{name}": Needs(("admin:roles:manage",)),
    "DELETE /roles/{name}": Needs(("admin:roles:manage",)),
}
