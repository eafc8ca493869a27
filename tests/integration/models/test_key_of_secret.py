"""The key of a provider may be a secret."""

import pytest

from flux.errors import SecretNotFound, SettingsInvalid
from flux.models.registry import ModelRegistry
from tests.integration.models.calls import answered, asking, failed
from tests.integration.models.conftest import Connect
from tests.integration.models.server import Reply, Server, error
from tests.integration.models.wires import chat


@pytest.mark.behaviour("models:keys:secret")
async def test_the_key_is_asked_for_at_each_call(server: Server, connect: Connect) -> None:
    registry = connect(server.url, keys={"own": "own_key"})
    keys = {"own_key": "first-key-of-own"}

    async def secret(name: str) -> str:
        if name not in keys:
            raise SecretNotFound(f"there is no secret {name!r}")
        return keys[name]

    registry.secret = secret
    model = registry.get("own/gpt-4.1")
    for key in ("first-key-of-own", "second-key-of-own"):
        keys["own_key"] = key
        server.replies = [Reply(chat(["Hello."]))]
        await answered(model, asking("hello"))
        assert server.requests[-1].headers["authorization"] == f"Bearer {key}"
    server.replies = [error(401, {})]
    assert "refused the key in the secret own_key" in (await failed(model, asking("hello"))).message
    keys.clear()
    assert (await failed(model, asking("hello"))).message == "the key of own: there is no secret 'own_key'"


@pytest.mark.behaviour("models:keys:secret")
def test_a_provider_with_a_secret_needs_no_variable() -> None:
    ModelRegistry({}, keys={"anthropic": "claude_key"}).check("anthropic/claude-x")
    with pytest.raises(SettingsInvalid, match="did you mean 'anthropic'"):
        ModelRegistry({}, keys={"antropic": "claude_key"})
