"""The routes of configs and secrets."""

import json
from typing import Any

import pytest

from flux.store import agents
from flux.store.database import LOCAL
from tests.integration.server.models import says
from tests.integration.server.serving import Served
from tests.integration.server.test_sessions import call, refused


@pytest.mark.behaviour("server:configs:life")
async def test_a_config_is_set_shown_listed_and_removed(served: Served) -> None:
    values: list[Any] = ["text", 3, None, {"a": [1.5, "\0"]}, False]
    for value in values:
        put = await call(served, "PUT", "/configs/limits", 200, {"value": value})
        assert put == await call(served, "GET", "/configs/limits", 200) == {"name": "limits", "value": value}
    await call(served, "PUT", "/configs/other", 200, {"value": 1})
    assert [row async for row in served.client.pages("/configs", limit=1)] == [{"name": "limits"}, {"name": "other"}]
    for name in ("limits", "other"):
        await call(served, "DELETE", f"/configs/{name}", 204)
    for method in ("GET", "DELETE"):
        assert await refused(served, method, "/configs/limits", 404) == "config_not_found"
    assert await refused(served, "PUT", "/configs/a%20b", 400, {"value": 1}) == "invalid_input"
    wrong = await call(served, "PUT", "/configs/a", 400, {"valeu": 1})
    assert "did you mean 'value'" in wrong["error"]["message"]


@pytest.mark.behaviour("server:configs:agent")
async def test_an_agents_definition_is_read_as_a_config_and_not_set_as_one(served: Served) -> None:
    name = await served.agent(says("hi"), system_prompt="Help.")
    view = (await call(served, "GET", f"/configs/agent:{name}", 200))["value"]
    assert view == {"name": name, "model": f"test/{name}", "system_prompt": "Help."}
    for method, body, instead in (("PUT", {"value": view}, "update"), ("DELETE", None, "delete")):
        wrong = await call(served, method, f"/configs/agent:{name}", 400, body)
        assert f"`flux agent {instead} {name}`" in wrong["error"]["message"]
    missing = await call(served, "GET", "/configs/agent:nobody", 404)
    assert "`flux agent list`" in missing["error"]["message"]


@pytest.mark.behaviour("server:configs:agent")
@pytest.mark.parametrize(("given", "seen"), [("postgresql://me:hunter2@host/db", None), ("secret:DB", "secret:DB")])
async def test_the_view_of_an_agent_tells_no_connection(in_memory: Served, given: str, seen: str | None) -> None:
    text = json.dumps({"long_term_memory": {"provider": "postgresql", "connection": given}})
    await in_memory.process.database.write(agents.put(LOCAL, "kept", given, text, create=True, update=True))
    view = (await call(in_memory, "GET", "/configs/agent:kept", 200))["value"]
    assert view["long_term_memory"].get("connection") == seen


@pytest.mark.behaviour("server:secrets:life")
async def test_only_a_get_of_a_secret_tells_its_value(served: Served) -> None:
    assert await call(served, "PUT", "/secrets/token", 200, {"value": "s3cr3t"}) == {"name": "token"}
    assert await call(served, "GET", "/secrets/token", 200) == {"name": "token", "value": "s3cr3t"}
    listed = await call(served, "GET", "/secrets", 200)
    assert listed == {"items": [{"name": "token"}], "next_cursor": None}
    for body in ({"value": ["s3cr3t"]}, {"value": "s3cr3t\0"}, {"value": "s3cr3t", "more": 1}, {"value": ""}):
        wrong = await call(served, "PUT", "/secrets/token", 400, body)
        assert "s3cr3t" not in str(wrong)
    await call(served, "DELETE", "/secrets/token", 204)
    for method in ("GET", "DELETE"):
        assert await refused(served, method, "/secrets/token", 404) == "secret_not_found"
