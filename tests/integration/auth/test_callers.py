"""Who may call: keys, and what their principals may do."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flux.client import FluxClient
from flux.client.transport import InProcessTransport
from flux.engine.service import identity
from flux.errors import AgentNotFound, Conflict, Forbidden, SessionNotFound, Unauthorized
from flux.server.app import create_app
from flux.store import memories, principals
from flux.store.database import LOCAL, one
from tests.integration.auth.serving import Guarded, guarded
from tests.integration.server.models import asks, says
from tests.integration.server.serving import serving
from tests.integration.server.streams import body, frames, nth, read


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(tmp_path) as running:
        running.served.models["x"] = says("x")
        yield running


async def _agent(world: Guarded, client: FluxClient, name: str = "helper") -> str:
    world.served.models[name] = says("Hello.")
    await client.post("/agents", {"name": name, "model": f"test/{name}"})
    return name


@pytest.mark.behaviour("auth:keys:roles")
async def test_anonymous_a_viewer_and_an_operator_get_what_they_should(world: Guarded) -> None:
    operator = await world.member("olga", "operator")
    viewer = await world.member("vera", "viewer")
    agent = await _agent(world, operator)
    session = await operator.start_session(agent, "Hi")

    for path in ("/agents", "/sessions", f"/sessions/{session.id}", "/openapi.json", "/metrics", "/nowhere"):
        refused = await world.served.http.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["type"] == "unauthorized"
    for path in ("/health", "/ready"):
        assert (await world.served.http.get(path)).status_code == 200

    assert [row["name"] for row in (await viewer.get("/agents"))["items"]] == [agent]
    assert (await viewer.get(f"/sessions/{session.id}"))["agent_name"] == agent
    with pytest.raises(Forbidden, match="agent:helper:start"):
        await viewer.start_session(agent, "Hi")
    with pytest.raises(Forbidden, match=r"workflow:agents:agent_chat:run and agent:helper:start"):
        await viewer.post(f"/sessions/{session.id}/messages", {"message": "Hi"})
    with pytest.raises(Forbidden, match=r"agent:\*:create"):
        await viewer.post("/agents", {"name": "other", "model": "test/x"})
    with pytest.raises(Unauthorized, match="not valid"):
        await world.served.new_client("flux_made-up").get("/agents")


@pytest.mark.behaviour("auth:keys:ends")
@pytest.mark.parametrize("what", ["revoked", "disabled", "deleted", "changed", "expired"])
async def test_a_stream_ends_when_its_caller_is_lost(
    world: Guarded, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    olga = await world.member("olga", "operator")
    agent = await _agent(world, olga)
    session = await olga.start_session(agent)
    service, key = world.served.process.principals, world.keys["olga"]
    if what == "expired":
        monkeypatch.setattr(identity, "LOOK_SECONDS", 0.01)
        key = (await service.create_key(LOCAL, "olga", "short", 0.3)).secret
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    async with asyncio.timeout(10):
        async with world.served.http.stream("GET", f"/sessions/{session.id}/events", headers=headers) as stream:
            pieces = stream.aiter_raw()
            assert b"session_started" in await anext(pieces)
            match what:
                case "revoked":
                    await service.revoke_key(LOCAL, "olga", "test")
                case "disabled":
                    await service.set_state(LOCAL, "olga", "disabled")
                case "deleted":
                    await service.delete(LOCAL, "olga")
                case "changed":
                    await service.revoke(LOCAL, "olga", "operator")
            assert b"".join([piece async for piece in pieces]).replace(b": ping\n\n", b"") == b""
    again = await world.served.http.get(f"/sessions/{session.id}/events", headers={"Authorization": f"Bearer {key}"})
    assert again.status_code == (200 if what == "changed" else 401)  # it is still Olga's own session


@pytest.mark.behaviour("auth:keys:ends")
async def test_a_key_that_another_process_revokes_is_useless_soon(
    world: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "FRESH_SECONDS", 0.0)
    olga = await world.member("olga", "operator")
    assert (await olga.get("/auth/me"))["roles"] == ["operator"]
    await world.served.process.database.write(principals.revoke_key(LOCAL, "olga", "test"))
    with pytest.raises(Unauthorized):
        await olga.get("/auth/me")


@pytest.mark.behaviour("auth:lists:filtered")
async def test_lists_show_what_the_caller_may_read(world: Guarded) -> None:
    olga = await world.member("olga", "operator")
    some = ("agent:helper3:read", "agent:helper7:*", "execution:*:read", "config:seen:read", "memory:mine%3A1:read")
    sam = await world.member("sam", permissions=some)
    sessions = {}
    for n in range(9):
        await _agent(world, olga, f"helper{n}")
        sessions[n] = (await olga.start_session(f"helper{n}")).id
        await olga.put(f"/configs/{'seen' if n == 3 else f'c{n}'}", {"value": n})
    for area in ("mine:1", "mine"):
        await world.served.process.database.write(memories.put(LOCAL, area, "k", "1", ["one"], area))

    async def names(client: FluxClient, path: str, field: str = "name") -> list[str]:
        return [row[field] async for row in client.pages(path, limit=1)]

    assert await names(sam, "/agents") == ["helper3", "helper7"]
    assert await names(sam, "/configs") == ["seen"]
    assert await names(sam, "/memories", "scope") == ["mine:1"]
    assert await names(sam, "/sessions", "id") == [sessions[7]]
    assert await names(sam, "/executions", "execution_id") == [sessions[7]]
    assert await names(sam, "/schedules") == await names(sam, "/workflows") == await names(sam, "/workers") == []
    assert len(await names(olga, "/sessions", "id")) == 9
    nobody = await world.member("nobody")
    assert await names(nobody, "/agents") == await names(nobody, "/sessions") == await names(nobody, "/approvals") == []


@pytest.mark.behaviour("auth:hidden:same")
async def test_what_is_hidden_looks_like_what_is_not_there(world: Guarded) -> None:
    admin, nobody = await world.member("admin", "admin"), await world.member("nobody")
    await _agent(world, admin)
    times = {"agent": "helper", "message": "hi", "interval": "1h"}
    await admin.post("/schedules", {"name": "helper", **times})
    await admin.put("/configs/helper", {"value": 1})
    await admin.upload("/workflows", "w.py", b"from flux import workflow\n\n@workflow\nasync def helper(ctx): ...\n")
    id = (await admin.start_session("helper")).id
    await world.served.process.database.write(memories.put(LOCAL, "helper", "helper", "1", ["one"], "c"))
    tried = [
        ("GET", "/agents/{}"), ("GET", "/agents/{}/versions"), ("DELETE", "/agents/{}"), ("GET", "/schedules/{}"),
        ("DELETE", "/schedules/{}"), ("GET", "/schedules/{}/history"), ("POST", "/schedules/{}/pause"),
        ("GET", "/configs/{}"), ("DELETE", "/configs/{}"), ("GET", "/workflows/default/{}"),
        ("DELETE", "/workflows/default/{}"), ("POST", "/workflows/default/{}/run/async"), ("GET", "/workers/{}"),
        ("GET", "/configs/agent:{}"), ("GET", "/memories/{}"), ("DELETE", "/memories/{}"),
    ]  # fmt: skip
    for method, path in tried:
        hidden = await _said(world, "nobody", method, path.format("helper"))
        absent = await _said(world, "admin", method, path.format("absent"))
        assert hidden == {**absent, "message": absent["message"].replace("absent", "helper")}, path
    other = str(uuid.uuid4())
    for method, path in [
        ("GET", "/sessions/{}"), ("GET", "/executions/{}"), ("POST", "/sessions/{}/stop"), ("DELETE", "/sessions/{}"),
        ("GET", "/sessions/{}/events"), ("POST", "/executions/{}/cancel"), ("GET", "/sessions/{}/artifacts"),
    ]:  # fmt: skip
        hidden = await _said(world, "nobody", method, path.format(id))
        absent = await _said(world, "nobody", method, path.format(other))
        assert hidden == {**absent, "message": absent["message"].replace(other, id)}, path
    with pytest.raises(AgentNotFound):
        await nobody.put("/agents/helper", {"model": "test/x"})


async def _said(world: Guarded, subject: str, method: str, path: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {world.keys[subject]}"}
    answer = await world.served.http.request(method, path, headers=headers)
    assert answer.status_code == 404, (path, answer.text)
    error: dict[str, Any] = answer.json()["error"]
    return error


TOOL = {"name": "t.py", "source": "from flux import task\n\n@task\nasync def f(): ...\n"}
SKILL = {"name": "s", "description": "d", "instructions": "i", "files": {"run.py": "print(1)"}}
TALKS = {"name": "w.py", "source": "from flux import workflow\n\n@workflow\nasync def t(ctx): ...\n"}
CODE = "workflow:*:*:register"


#: Names what is imported where the agent runs.
FUNCTION = {"function": "subprocess:getoutput"}
#: Asks for secrets in the way of code.
ASKS = "from flux import task\n@task.with_options(secret_requests=['a.b', *['key']])\nasync def asks(secrets): ...\n"
PLAN = {"name": "p", "json_schema": {"type": "object"}, "lists": ["l"], "actions": {"a": "read_file"}}


@pytest.mark.behaviour("auth:definitions:register")
@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"mcp_servers": [{"command": "cat"}]}, CODE),
        ({"sandbox": "local"}, CODE),
        ({"tools_file": TOOL}, CODE),
        ({"tools": [{"file": TOOL}]}, CODE),
        ({"tools": [FUNCTION]}, CODE),
        ({"tools": [{"catalog": {"url": "sqlite:////srv/flux.db"}}]}, CODE),
        ({"tools": [{"files": {"workspace": "/etc"}}]}, CODE),
        ({"approvals": {"tools": "always", "predicates": {"big": "subprocess:getoutput"}}}, CODE),
        ({"plan": PLAN | {"actions": {"a": FUNCTION}}}, CODE),
        ({"plan": PLAN | {"model": "shop.plans:Plan"}}, CODE),
        ({"workflow_file": TALKS}, CODE),
        ({"skills": [SKILL]}, CODE),
        ({"skills_dir": "/srv/skills"}, CODE),
        ({"cwd": "/etc"}, CODE),
        ({"cwd": "~"}, CODE),
        ({"cwd": "a/../../b"}, CODE),
        ({"long_term_memory": {"provider": "sqlite", "connection": "/etc/x.db"}}, CODE),
        ({"subagents": [{"name": "x", "description": "d", "model": "test/x", "sandbox": "local"}]}, CODE),
        ({"mcp_servers": [{"url": "https://x.example", "auth": "bearer", "secret": "key"}]}, "secret:key:use"),
        ({"mcp_servers": [{"url": "https://x.example", "headers": {"X": "secret:key"}}]}, "secret:key:use"),
        ({"long_term_memory": {"provider": "sqlite", "connection": "secret:a.b"}}, "secret:a.b:use"),
        ({"tools_file": TOOL | {"source": ASKS + TOOL["source"]}}, "secret:a.b:use"),
        ({"workflow_file": TALKS | {"source": ASKS + TALKS["source"]}}, "secret:key:use"),
    ],
)
async def test_what_a_definition_brings_along_needs_its_right(
    world: Guarded, fields: dict[str, Any], needed: str
) -> None:
    ann = await world.member("ann", permissions=("agent:*:*",))
    await ann.post("/agents", {"name": "plain", "model": "test/x", "cwd": "."})
    for method, path in (("POST", "/agents"), ("PUT", "/agents/plain"), ("PUT", "/agents/new?create=true")):
        with pytest.raises(Forbidden) as refused:
            await ann.request(method, path, {"name": path[8:13].split("?")[0] or "other", "model": "test/x", **fields})
        assert needed in refused.value.details["missing"]


@pytest.mark.behaviour("auth:definitions:register")
async def test_a_directory_of_the_server_is_chosen_by_who_may_register(world: Guarded) -> None:
    admin = await world.member("admin", "admin")
    await _agent(world, admin)
    ann = await world.member("ann", permissions=("agent:*:start", "workflow:agents:agent_chat:run"))
    assert (await ann.post("/sessions", {"agent": "helper"}))["agent_name"] == "helper"
    with pytest.raises(Forbidden, match="register"):
        await ann.post("/sessions", {"agent": "helper", "workspace": "/"})


@pytest.mark.behaviour("auth:definitions:code")
async def test_code_is_shown_to_who_may_register(world: Guarded) -> None:
    admin, viewer = await world.member("admin", "admin"), await world.member("vera", "viewer")
    inner = {"name": "inner", "description": "d", "model": "test/x", "tools_file": TOOL}
    fields: dict[str, Any] = {
        "tools": [{"file": TOOL | {"name": "b.py", "source": TOOL["source"].replace("f(", "g(")}}]
    }
    fields |= {"tools_file": TOOL, "skills": [SKILL], "workflow_file": TALKS}
    await admin.post("/agents", {"name": "shipped", "model": "test/x", "subagents": [inner], **fields})
    whole = json.dumps(await admin.get("/agents/shipped"))
    assert whole.count("async def") == 4
    for path in ("/agents/shipped", "/agents", "/agents/shipped/versions", "/configs/agent:shipped"):
        shown = json.dumps(await viewer.get(path))
        assert "shipped" in shown
        assert "async def" not in shown
        assert "print(1)" not in shown
    assert "source" not in await viewer.get("/workflows/agents/shipped")
    with pytest.raises(Forbidden, match="register"):
        await viewer.get("/workflows/agents/shipped", source=True)
    with pytest.raises(Forbidden, match="register"):
        await viewer.get("/workflows/agents/shipped/versions/1", source=True)
    assert "async def" in (await admin.get("/workflows/agents/shipped", source=True))["source"]


@pytest.mark.behaviour("auth:sessions:shared")
async def test_a_session_is_shared_by_permission(world: Guarded) -> None:
    olga, omar = await world.member("olga", "operator"), await world.member("omar", "operator")
    only = ("workflow:agents:agent_chat:run", "agent:helper:start", "agent:helper:read")
    ann = await world.member("ann", permissions=only)
    world.served.models["helper"] = asks("Which?")
    await olga.post("/agents", {"name": "helper", "model": "test/helper", "tools": ["ask_user"]})
    session = await olga.start_session("helper", "Hi")
    [asked] = await _questions(omar, session.id)
    await ann.post(f"/sessions/{session.id}/interrupts/{asked['id']}", {"decision": "answer", "content": "That"})
    answered = await _until(ann, session.id, "interrupt_answered")
    assert answered["by"] == "ann"
    assert (await ann.get(f"/sessions/{session.id}"))["id"] == session.id
    with pytest.raises(SessionNotFound):
        await (await world.member("eve", permissions=("agent:other:*", only[0]))).get(f"/sessions/{session.id}")


async def _questions(client: FluxClient, id: str) -> list[dict[str, Any]]:
    await _until(client, id, "input_required")
    found: list[dict[str, Any]] = (await client.get(f"/sessions/{id}/interrupts"))["items"]
    return found


async def _until(client: FluxClient, id: str, type: str) -> dict[str, Any]:
    async with asyncio.timeout(10), aclosing(frames(client, id)) as stream:
        return body((await read(stream, nth(type, 1)))[-1])


@pytest.mark.behaviour("auth:principals:managed")
async def test_nobody_gives_what_they_do_not_have(world: Guarded) -> None:
    admin = await world.member("admin", "admin")
    manages = ("admin:principals:manage", "admin:principals:read", "admin:roles:manage", "agent:*:read")
    bob = await world.member("bob", permissions=manages)
    await bob.post("/principals", {"subject": "carl"})
    await bob.post("/roles", {"name": "reader", "permissions": ["agent:helper:read"]})
    await bob.put("/principals/carl/roles/reader", None)
    for method, path, given in [
        ("PUT", "/principals/bob/roles/admin", None),
        ("PUT", "/principals/carl/roles/viewer", None),
        ("POST", "/principals", {"subject": "dora", "roles": ["operator"]}),
        ("POST", "/principals/admin/keys", {}),
        ("DELETE", "/principals/admin", None),
        ("POST", "/principals/admin/disable", None),
        ("DELETE", "/principals/admin/roles/admin", None),
        ("DELETE", "/principals/admin/keys/test", None),
        ("POST", "/roles", {"name": "all", "permissions": ["*"]}),
        ("PUT", "/roles/reader", {"permissions": ["agent:*:start"]}),
        ("PUT", "/roles/reader", {"permissions": ["agent:*"]}),
    ]:
        with pytest.raises(Forbidden, match="may do what you may not"):
            await bob.request(method, path, given)
    with pytest.raises(Conflict, match="built in"):
        await admin.put("/roles/viewer", {"permissions": ["*"]})
    made = await admin.post("/principals/carl/keys", {"name": "ci", "expires_in": 60})
    assert made["key"].startswith("flux_")
    assert made["key"] not in json.dumps(await admin.get("/principals/carl/keys"))
    assert (await world.served.new_client(made["key"]).get("/auth/me"))["permissions"] == ["agent:helper:read"]
    rows = await world.served.process.database.read(one("select * from api_keys"))
    assert made["key"] not in str(rows)


@pytest.mark.behaviour("auth:off:operator")
async def test_with_auth_off_nobody_is_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, in_process=True) as served:
        found = await served.client.get("/auth/me")
        assert (found["subject"], found["roles"], found["auth"]) == ("local", ["admin"], False)
        assert (await served.new_client("anything").get("/agents"))["items"] == []


@pytest.mark.behaviour("auth:off:operator")
async def test_a_command_without_a_server_acts_as_the_operator(world: Guarded) -> None:
    olga = await world.member("olga", "operator")
    session = await olga.start_session(await _agent(world, olga))
    app = create_app(world.served.process, operator=True)
    async with FluxClient("http://localhost", transport=InProcessTransport(app)) as client:
        assert (await client.get("/auth/me"))["subject"] == "local"
        assert [row["id"] for row in (await client.get("/sessions"))["items"]] == [session.id]
        await client.post(f"/sessions/{session.id}/stop")
