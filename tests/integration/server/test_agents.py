"""The routes of agents and of health."""

import pytest

import flux
from tests.integration.server.serving import Served
from tests.integration.server.test_sessions import call, refused

MODEL = "scripted/echo"


@pytest.mark.behaviour("server:agents:create")
async def test_an_agent_is_created_shown_changed_and_deleted(served: Served) -> None:
    made = await call(served, "POST", "/agents", 201, {"name": "crud", "model": MODEL})
    assert (made["name"], made["version"], made["definition"]) == ("crud", 1, {"name": "crud", "model": MODEL})
    assert await call(served, "GET", "/agents/crud", 200) == made
    changed = await call(served, "PUT", "/agents/crud", 200, {"model": MODEL, "system_prompt": "Be kind."})
    assert (changed["version"], changed["definition"]["system_prompt"]) == (2, "Be kind.")
    same = await call(served, "PUT", "/agents/crud", 200, {"name": "crud", "model": MODEL, "system_prompt": "Be kind."})
    assert same["version"] == 2
    assert made.pop("problems") == changed.pop("problems") == []
    versions = await call(served, "GET", "/agents/crud/versions", 200)
    assert versions == {"items": [changed, made], "next_cursor": None}
    first = await call(served, "GET", "/agents/crud/versions?limit=1", 200)
    rest = await call(served, "GET", f"/agents/crud/versions?limit=1&cursor={first['next_cursor']}", 200)
    assert (first["items"], rest) == ([changed], {"items": [made], "next_cursor": None})
    await call(served, "DELETE", "/agents/crud", 204)
    for method, path in (("GET", ""), ("GET", "/versions"), ("DELETE", "")):
        assert await refused(served, method, f"/agents/crud{path}", 404) == "agent_not_found"


@pytest.mark.behaviour("server:agents:refused")
async def test_what_cannot_be_stored_is_refused_with_the_reason(served: Served) -> None:
    await call(served, "PUT", "/agents/taken?create=true", 200, {"model": MODEL})
    assert await refused(served, "POST", "/agents", 409, {"name": "taken", "model": MODEL}) == "agent_exists"
    assert await refused(served, "PUT", "/agents/nobody", 404, {"model": MODEL}) == "agent_not_found"
    wrong = await call(served, "PUT", "/agents/taken", 400, {"name": "other", "model": MODEL})
    assert wrong["error"]["message"] == "name: the definition says 'other', the address 'taken'"
    for body in ({"name": "x"}, {"name": "1x", "model": MODEL}, {"name": "x", "model": "echo"}):
        assert await refused(served, "POST", "/agents", 400, body) == "definition_invalid"
    close = await call(served, "POST", "/agents", 400, {"name": "x", "model": MODEL, "sytem_prompt": "x"})
    assert close["error"]["message"] == "unknown field 'sytem_prompt'; did you mean 'system_prompt'?"


@pytest.mark.behaviour("server:agents:list")
async def test_agents_are_listed_by_name_page_by_page(served: Served) -> None:
    names = [f"a-list-{n}" for n in range(5)]
    for name in names:
        await call(served, "PUT", f"/agents/{name}?create=true", 200, {"model": MODEL})
    listed = [row["name"] async for row in served.client.pages("/agents", limit=2)]
    assert listed == sorted(listed)
    assert set(names) <= set(listed)


@pytest.mark.behaviour("server:health:answers")
async def test_health_and_readiness_are_told(served: Served) -> None:
    assert await call(served, "GET", "/health", 200) == {
        "status": "ok",
        "version": flux.__version__,
        "database": "ok",
    }
    assert (await call(served, "GET", "/ready", 200))["database"] == "ok"
