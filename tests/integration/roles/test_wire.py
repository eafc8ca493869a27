"""What a runtime sends to providers: the key of a layered prompt, to the address and with the key that it was told."""

from pathlib import Path

import pytest

from flux.roles import define_runtime, define_specialist, define_tenant, layered_prompt
from flux.settings import Settings
from tests.integration.models.server import Reply, serving
from tests.integration.models.wires import BY_NAME

PROMPT = layered_prompt([("identity", "You count."), ("rules", "Be exact.")])


@pytest.mark.behaviour("roles:prompt:wire")
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_layered_prompt_is_cached_by_the_provider(tmp_path: Path, provider: str) -> None:
    wire = BY_NAME[provider]
    async with serving() as server:
        server.replies = [Reply(wire.answer(["Seven."])) for _ in range(2)]
        address = server.url if provider == "anthropic" else f"{server.url}/v1"
        runtime = define_runtime(
            tenant=define_tenant("acme"),
            agents=[define_specialist("one", model=wire.model.partition("/")[2], prompt=PROMPT)],
            providers={provider: {"base_url": address, "api_key_env": "SHOP_KEY", "retries": 0}},
        )
        variables = {"SHOP_KEY": "key-of-the-shop"}
        async with runtime.on(settings=Settings(home=tmp_path), environment=variables, workspace=tmp_path) as opened:
            for _ in range(2):
                assert (await opened.run_specialist("one", "How many?")).text == "Seven."
    assert any("key-of-the-shop" in value for value in server.requests[0].headers.values())
    bodies = [request.body for request in server.requests]
    if provider == "openai":
        assert [body["prompt_cache_key"] for body in bodies] == [PROMPT.cache_key] * 2
    else:
        assert [body["system"] for body in bodies] == [bodies[0]["system"]] * 2
        assert bodies[0]["system"][-1]["cache_control"]["type"] == "ephemeral"
        assert PROMPT.text in bodies[0]["system"][0]["text"]
