"""What one principal may ask of a server that it shares with others."""

from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from flux.settings import ApiKeys, Auth, Settings
from tests.integration.auth.serving import Guarded, guarded
from tests.integration.server.models import says
from tests.integration.server.test_instances import project
from tests.integration.server.test_socket import hear


async def statuses(world: Guarded, subject: str, path: str, count: int) -> list[int]:
    headers = {"Authorization": f"Bearer {world.keys[subject]}"}
    return [(await world.served.http.get(path, headers=headers)).status_code for _ in range(count)]


@pytest.mark.behaviour("auth:limits:refused")
@pytest.mark.parametrize(("path", "refused"), [("/secrets", 403), ("/sessions/nothing", 404), ("/auth/me", 200)])
async def test_what_is_refused_counts_too(tmp_path: Path, path: str, refused: int) -> None:
    async with guarded(tmp_path, limits={"max_requests_per_second": 1.0}) as world:
        await world.member("ann", permissions=("agent:helper:read",))
        await world.member("bob", "viewer")
        assert await statuses(world, "ann", path, 3) == [refused, refused, 429]
        assert await statuses(world, "bob", "/agents", 1) == [200]


@pytest.mark.behaviour("auth:limits:frames")
async def test_each_frame_of_a_socket_counts(tmp_path: Path) -> None:
    shop = project(tmp_path)
    async with guarded(tmp_path, in_process=False, limits={"max_requests_per_second": 1.0}, project=shop) as world:
        world.served.models["support"] = says("fine")
        await world.member("ann", "operator")
        headers = {"Authorization": f"Bearer {world.keys['ann']}"}
        url = f"{world.served.url.replace('http', 'ws', 1)}/agents/support/t-1"
        async with connect(url, proxy=None, additional_headers=headers) as socket:
            for n in range(20):
                await socket.send(f'{{"type": "ping", "request_id": "{n}"}}')
            heard = await hear(socket, "error")
        assert heard[-1]["error"]["type"] == "too_many_requests"
        assert len(heard) < 10


@pytest.mark.behaviour("auth:limits:default")
def test_with_auth_on_there_is_a_limit_unless_one_is_set(tmp_path: Path) -> None:
    auth = Auth(api_keys=ApiKeys(enabled=True))
    alone, shared = Settings(home=tmp_path), Settings(home=tmp_path, auth=auth)
    assert (alone.request_rate, alone.runs) == (0, 0)
    assert (shared.request_rate, shared.runs) == (200, 1_000)
    lifted = Settings(home=tmp_path, auth=auth, max_requests_per_second=0.0, max_runs=0)
    assert (lifted.request_rate, lifted.runs) == (0, 0)
