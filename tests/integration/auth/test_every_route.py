"""Every route, called by everybody: who gets what, told here a second time, row by row."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from flux.engine.intake.inputs import NewSession
from flux.server.rules import RULES
from flux.store import interrupts, memories
from flux.store.database import LOCAL, Scope
from tests.integration.auth.serving import Guarded, guarded
from tests.integration.server.models import says

ROLES = ("nobody", "worker", "viewer", "operator", "admin")

#: By role: Y it is done, F forbidden, H hidden; where there are two, the second is for what is one's own.
EXPECTED: dict[str, str | tuple[str, str]] = {
    "GET /health": "YYYYY",
    "GET /ready": "YYYYY",
    "GET /metrics": "FFFFY",
    "GET /oauth/callback": "YYYYY",
    "GET /oauth/client.json": "YYYYY",
    "GET /auth/me": "YYYYY",
    "POST /sessions": "FFFYY",
    "GET /sessions": "YYYYY",
    "GET /agents/sessions": "YYYYY",
    "GET /agents/{name}/sessions": "YYYYY",
    "GET /sessions/{id}": ("HHYYY", "YYYYY"),
    "GET /sessions/{id}/events": ("HHYYY", "YYYYY"),
    "GET /sessions/{id}/messages": ("HHYYY", "YYYYY"),
    "GET /sessions/{id}/interrupts": ("HHYYY", "YYYYY"),
    "GET /sessions/{id}/artifacts": ("HHYYY", "YYYYY"),
    "GET /sessions/{id}/artifacts/{aid}": ("HHHHH", "HHHHH"),
    "POST /sessions/{id}/messages": ("HHFYY", "FFFYY"),
    "POST /sessions/{id}/interrupts/{iid}": ("HHFYY", "FFFYY"),
    "POST /sessions/{id}/fork": ("HHFYY", "FFFYY"),
    "POST /sessions/{id}/compact": ("HHFYY", "FFFYY"),
    "GET /sessions/{id}/export": ("HHYYY", "YYYYY"),
    "POST /sessions/{id}/cancel": ("HHFYY", "YYYYY"),
    "POST /sessions/{id}/stop": ("HHFYY", "YYYYY"),
    "PUT /sessions/{id}/name": ("HHFYY", "YYYYY"),
    "DELETE /sessions/{id}": ("HHFYY", "YYYYY"),
    "POST /agents": "FFFYY",
    "GET /agents": "YYYYY",
    "GET /agents/{name}": "HHYYY",
    "GET /agents/{name}/versions": "HHYYY",
    "PUT /agents/{name}": "HHFYY",
    "DELETE /agents/{name}": "HHFYY",
    "POST /agents/{name}/{id}": "HHFHH",  # this server has no project
    "POST /agents/{name}/{id}/dispatch": "HHFHH",
    "WS /agents/{name}/{id}": "HHFHH",
    "GET /dispatches/{id}": "HHHHH",
    "POST /webhooks": "FFFFY",
    "GET /webhooks": "FFFFY",
    "GET /webhooks/{name}": "FFFFY",
    "DELETE /webhooks/{name}": "FFFFY",
    "GET /webhooks/{name}/deliveries": "FFFFY",
    "POST /webhooks/{name}/deliveries/{id}/redeliver": "FFFFH",
    "POST /schedules": "FFFYY",
    "GET /schedules": "YYYYY",
    "GET /schedules/{name}": "HHYYY",
    "GET /schedules/{name}/history": "HHYYY",
    "PUT /schedules/{name}": "HHFYY",
    "DELETE /schedules/{name}": "HHFYY",
    "POST /schedules/{name}/pause": "HHFYY",
    "POST /schedules/{name}/resume": "HHFYY",
    "GET /workers": "YYYYY",
    "GET /workers/{name}": "HYHHY",
    "POST /workers/{name}/drain": "HYHHY",
    "POST /workflows": "FFFYY",
    "GET /workflows": "YYYYY",
    "GET /workflows/{namespace}/{name}": "HYYYY",
    "GET /workflows/{namespace}/{name}/versions": "HYYYY",
    "GET /workflows/{namespace}/{name}/versions/{version}": "HYYYY",
    "DELETE /workflows/{namespace}/{name}": "HFFYY",
    "POST /workflows/{namespace}/{name}/run/{mode}": "HFFYY",
    "POST /workflows/{namespace}/{name}/resume/{id}/{mode}": ("HFFYY", "FFFYY"),
    "POST /workflows/{name}": "HHHHH",
    "GET /runs/{id}": ("HYYYY", "YYYYY"),
    "GET /runs/{id}/events": ("HYYYY", "YYYYY"),
    "GET /runs/{id}/stream": ("HYYYY", "YYYYY"),
    "GET /executions": "YYYYY",
    "GET /executions/{id}": ("HYYYY", "YYYYY"),
    "GET /executions/{id}/events": ("HYYYY", "YYYYY"),
    "POST /executions/{id}/cancel": ("HFFYY", "YYYYY"),
    "PUT /executions/{id}/name": ("HFFYY", "YYYYY"),
    "GET /approvals": "YYYYY",
    "GET /executions/{id}/approvals": ("HYYYY", "YYYYY"),
    "POST /executions/{id}/approvals/{call}/approve": ("HFFYY", "FFFYY"),
    "POST /executions/{id}/approvals/{call}/reject": ("HFFYY", "FFFYY"),
    "GET /configs": "YYYYY",
    "GET /configs/{name}": "HYYYY",
    "PUT /configs/{name}": "FFFYY",
    "DELETE /configs/{name}": "HFFYY",
    "GET /secrets": "FYFFY",
    "GET /secrets/{name}": "FYFFY",
    "PUT /secrets/{name}": "FFFFY",
    "DELETE /secrets/{name}": "FFFFY",
    "POST /secrets/rotate-key": "FFFFY",
    "GET /audit": "FFFFY",
    "GET /memories": "YYYYY",
    "GET /memories/{key:path}": "HHHHY",
    "DELETE /memories/{key:path}": "HHHHY",
    "POST /principals": "FFFFY",
    "GET /principals": "FFFFY",
    "GET /principals/{subject}": "FFFFY",
    "DELETE /principals/{subject}": "FFFFY",
    "POST /principals/{subject}/enable": "FFFFY",
    "POST /principals/{subject}/disable": "FFFFY",
    "PUT /principals/{subject}/roles/{role}": "FFFFY",
    "DELETE /principals/{subject}/roles/{role}": "FFFFY",
    "POST /principals/{subject}/keys": "FFFFY",
    "GET /principals/{subject}/keys": "FFFFY",
    "DELETE /principals/{subject}/keys/{name}": "FFFFY",
    "POST /roles": "FFFFY",
    "GET /roles": "FFFFY",
    "GET /roles/{name}": "FFFFY",
    "PUT /roles/{name}": "FFFFY",
    "DELETE /roles/{name}": "FFFFY",
}

WORKFLOW = b"""\
from flux import workflow

@workflow
async def {}(ctx):
    return 1
"""


def routes_of(app: FastAPI) -> Iterator[str]:
    """Every route of an application, as the rules name it."""
    todo = list(app.routes)
    while todo:
        route: Any = todo.pop()
        todo += getattr(getattr(route, "original_router", None), "routes", ())
        if isinstance(route, WebSocketRoute):
            yield f"WS {route.path}"
        for method in getattr(route, "methods", None) or ():
            if route.path not in ("/openapi.json",) and method != "HEAD":
                yield f"{method} {route.path}"


HOOK = {"url": "https://hooks.example.com/x", "events": ["run.finished"]}


class Things:
    """Makes what a route is about, a new one each time; rows belong to `owner`."""

    def __init__(self, world: Guarded) -> None:
        self.world = world
        self.process = world.served.process
        self._numbers = itertools.count()

    async def path(self, route: str, owner: Scope) -> tuple[str, str]:
        """The method and the address of a route, with names of what is there."""
        method, _, path = route.partition(" ")
        self.name = f"n{next(self._numbers)}"
        values = {"mode": "async", "aid": "none", "version": "1", "namespace": "default", "name": self.name}
        make = getattr(self, f"_{path.split('/')[1]}", None)
        if make is not None:
            values |= await make(path, owner)
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", value)
        return method, path

    def body(self, route: str) -> Any:
        """What the route takes."""
        name = self.name
        times = {"agent": "helper", "message": "hi", "interval": "1h"}
        bodies: dict[str, Any] = {
            "POST /sessions": {"agent": "helper"},
            "POST /sessions/{id}/messages": {"message": "hi"},
            "POST /sessions/{id}/interrupts/{iid}": {"decision": "approve"},
            "PUT /sessions/{id}/name": {"name": "x"},
            "PUT /executions/{id}/name": {"name": "x"},
            "POST /agents": {"name": f"{name}x", "model": "test/helper"},
            "PUT /agents/{name}": {"model": "test/helper", "system_prompt": "other"},
            "POST /webhooks": {"name": f"{name}x", **HOOK},
            "POST /sessions/{id}/fork": {},
            "POST /agents/{name}/{id}": {"message": "hi"},
            "POST /agents/{name}/{id}/dispatch": {"input": "hi"},
            "POST /workflows/{name}": {},
            "POST /schedules": {"name": f"{name}x", **times},
            "PUT /schedules/{name}": times,
            "PUT /configs/{name}": {"value": 1},
            "PUT /secrets/{name}": {"value": "x"},
            "POST /principals": {"subject": f"{name}x"},
            "POST /principals/{subject}/keys": {},
            "POST /roles": {"name": f"{name}x", "permissions": ["agent:a:read"]},
            "PUT /roles/{name}": {"permissions": ["agent:b:read"]},
        }
        return bodies.get(route)

    async def _sessions(self, path: str, owner: Scope) -> dict[str, str]:
        if "{id}" not in path:
            return {}
        session = NewSession("helper", "", 1)
        id = (await self.process.sessions._admission.start(owner, session)).id
        if "{iid}" not in path:
            return {"id": id}
        return {"id": id, "iid": await self._asked(owner, id, "approval", {"tool": "shell"})}

    async def _executions(self, path: str, owner: Scope) -> dict[str, str]:
        if "{id}" not in path:
            return {}
        id = (await self.process.executions.start(owner, "default/flow", None)).id
        return {"id": id, "call": await self._asked(owner, id, "approval", {"tool": "pay", "args": {}})}

    async def _workflows(self, path: str, owner: Scope) -> dict[str, str]:
        if "{id}" in path:
            id = (await self.process.executions.start(owner, "default/flow", None)).id
            await self._asked(owner, id, "pause", {"name": "more"})
            return {"id": id, "name": "flow"}
        await self.process.workflows.register(LOCAL, WORKFLOW.replace(b"{}", self.name.encode()))
        return {}

    async def _agents(self, path: str, owner: Scope) -> dict[str, str]:
        await self.world.admin.post("/agents", {"name": self.name, "model": "test/helper"})
        return {}

    async def _schedules(self, path: str, owner: Scope) -> dict[str, str]:
        times = {"agent": "helper", "message": "hi", "interval": "1h"}
        await self.world.admin.post("/schedules", {"name": self.name, **times})
        return {}

    async def _runs(self, path: str, owner: Scope) -> dict[str, str]:
        return await self._executions(path, owner)

    async def _webhooks(self, path: str, owner: Scope) -> dict[str, str]:
        await self.world.admin.post("/webhooks", {"name": self.name, **HOOK})
        return {"id": "none"}

    async def _workers(self, path: str, owner: Scope) -> dict[str, str]:
        return {"name": self.process.who.name}

    async def _configs(self, path: str, owner: Scope) -> dict[str, str]:
        await self.process.configs.set(LOCAL, self.name, 1)
        return {}

    async def _secrets(self, path: str, owner: Scope) -> dict[str, str]:
        await self.process.secrets.set(LOCAL, self.name, "x")
        return {}

    async def _memories(self, path: str, owner: Scope) -> dict[str, str]:
        await self.process.database.write(memories.put(LOCAL, "area", self.name, "1", ["one"], self.name))
        return {"key:path": self.name}

    async def _principals(self, path: str, owner: Scope) -> dict[str, str]:
        await self.process.principals.create(LOCAL, self.name, "service_account", ["viewer"])
        await self.process.principals.create_key(LOCAL, self.name, self.name, None)
        return {"subject": self.name, "role": "viewer"}

    async def _roles(self, path: str, owner: Scope) -> dict[str, str]:
        await self.process.principals.create_role(LOCAL, self.name, ["agent:a:read"])
        return {}

    async def _asked(self, owner: Scope, id: str, kind: str, payload: Any) -> str:
        asked = f"{self.name}-{kind}"
        await self.process.database.write(
            interrupts.open_interrupt(owner, id=asked, execution_id=id, call=None, kind=kind, payload=payload)
        )
        return asked


@pytest.fixture(scope="module")
async def things(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Things]:
    async with guarded(tmp_path_factory.mktemp("home"), worker=False) as world:
        for role in ROLES:
            await world.member(role, *([role] if role != "nobody" else []))
        await world.member("owner", "operator")
        world.served.models["helper"] = says("hi")
        await world.admin.post("/agents", {"name": "helper", "model": "test/helper"})
        process = world.served.process
        await process.workflows.register(LOCAL, WORKFLOW.replace(b"{}", b"flow"))
        await process.workers.join(process.who)
        yield Things(world)


async def _outcome(things: Things, route: str, role: str, owner: str) -> str:
    method, path = await things.path(route, Scope(LOCAL.tenant, owner))
    headers = {"Authorization": f"Bearer {things.world.keys[role]}"} if role else {}
    if method == "WS":
        return await _socket_outcome(things.world.served.app, path, headers)
    body = things.body(route)
    files = {"file": ("w.py", WORKFLOW.replace(b"{}", b"other"))} if route == "POST /workflows" else None
    http = things.world.served.http
    async with http.stream(method, path, json=body, files=files, headers=headers) as answer:
        if answer.status_code >= 500:
            raise AssertionError((route, role, await answer.aread()))
    return {401: "A", 403: "F", 404: "H"}.get(answer.status_code, "Y")


async def _socket_outcome(app: FastAPI, path: str, headers: dict[str, str]) -> str:
    """What a WebSocket is told first."""
    sent: list[Any] = []
    came = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(came, {"type": "websocket.disconnect", "code": 1000})

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(b"host", b"localhost"), *((name.lower().encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "websocket", "path": path, "headers": lines, "query_string": b"", "subprotocols": []}
    await app({**scope, "raw_path": path.encode(), "root_path": "", "scheme": "ws"}, receive, send)
    if sent[0]["type"] == "websocket.close":
        return "A"
    told = json.loads(next(message["text"] for message in sent if message["type"] == "websocket.send"))
    return {"forbidden": "F", "agent_not_found": "H"}.get(told.get("error", {}).get("type"), "Y")


@pytest.mark.behaviour("auth:routes:all")
async def test_every_route_has_a_rule_and_is_tried(things: Things) -> None:
    assert set(routes_of(things.world.served.app)) == set(RULES) == set(EXPECTED)


@pytest.mark.behaviour("auth:routes:all")
@pytest.mark.parametrize("route", EXPECTED)
async def test_everybody_gets_what_they_should(things: Things, route: str) -> None:
    wanted = EXPECTED[route]
    foreign, own = wanted if isinstance(wanted, tuple) else (wanted, None)
    assert "".join([await _outcome(things, route, role, "owner") for role in ROLES]) == foreign
    if own is not None:
        assert "".join([await _outcome(things, route, role, role) for role in ROLES]) == own
    anonymous = await _outcome(things, route, "", "owner")
    open_to_all = route in ("GET /health", "GET /ready") or "/oauth/" in route
    assert (anonymous != "A") == open_to_all
