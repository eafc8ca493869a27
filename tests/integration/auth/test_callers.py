"""Who may call: keys, and what their principals may do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flux.client import FluxClient
from flux.errors import Forbidden, Unauthorized
from tests.integration.auth.serving import Guarded, guarded
from tests.integration.server.models import says


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(tmp_path) as running:
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
