"""Providers as code configures them: addresses, headers, gateways, and models of its own."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from flux import configure_provider
from flux.errors import DefinitionInvalid, MissingKey, SettingsInvalid
from flux.messages import ModelFailure
from flux.models.base import ModelRequest
from flux.models.configured import forget_provider
from flux.models.registry import ModelRegistry
from flux.testing import Reply, ScriptedModel


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for name in ("mine", "anthropic", "openai"):
        forget_provider(name)


async def heard(name: str, **how: Any) -> tuple[str, dict[str, str]]:
    """The first line and the headers of the request that a call of a provider's model sends."""
    got: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        if not got.done():
            got.set_result(head)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        configure_provider(name, base_url=f"http://127.0.0.1:{port}/gate", **how)
        registry = ModelRegistry({})
        events = [event async for event in registry.get(f"{name}/some").stream(ModelRequest("", ()))]
        await registry.aclose()
    assert isinstance(events[-1], ModelFailure)
    first, *lines = await got
    return first, {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines if line}


@pytest.mark.behaviour("models:configured:gateway")
async def test_a_known_provider_is_reached_through_a_gateway() -> None:
    first, headers = await heard("anthropic", headers={"x-api-key": "of the gateway", "X-Team": "desk"})
    assert first.startswith("POST /gate/v1/messages")
    assert (headers["x-api-key"], headers["x-team"]) == ("of the gateway", "desk")


@pytest.mark.behaviour("models:configured:gateway")
async def test_a_provider_of_its_own_speaks_the_usual_format() -> None:
    first, headers = await heard("mine", api_key="k-1", headers={"X-Team": "desk"})
    assert first.startswith("POST /gate/chat/completions")
    assert (headers["authorization"], headers["x-team"]) == ("Bearer k-1", "desk")


@pytest.mark.behaviour("models:configured:own")
async def test_code_may_make_its_models_and_change_its_mind() -> None:
    registry = ModelRegistry({})
    with pytest.raises(DefinitionInvalid, match='unknown provider "mine"'):
        registry.get("mine/a")
    configure_provider("mine", model=lambda name: ScriptedModel([Reply(name)], name=f"mine/{name}"))
    assert registry.get("mine/a") is registry.get("mine/a")
    assert registry.get("mine/b").name == "mine/b"
    configure_provider("openai", headers={"X-Team": "desk"})
    registry.check("openai/x")
    forget_provider("openai")
    with pytest.raises(MissingKey):
        registry.check("openai/x")


@pytest.mark.behaviour("models:configured:refused")
@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("no/slash", {}, "cannot be the name of a provider"),
        ("mine", {"base_url": "ftp://x"}, "base_url must be an address"),
        ("mine", {"wire": "morse"}, "wire must be one of"),
        ("mine", {"headers": {"a b": "x"}}, "headers: 'a b' is no header"),
        ("mine", {"headers": {"a": "x\ny"}}, "headers: 'a' is no header"),
        ("mine", {"model": str, "api_key": "k"}, "give it alone"),
    ],
)
def test_what_cannot_be_is_refused(name: str, how: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        configure_provider(name, **how)


@pytest.mark.behaviour("models:configured:refused")
def test_a_new_provider_needs_an_address() -> None:
    configure_provider("mine", api_key="k")
    with pytest.raises(SettingsInvalid, match="configure_provider mine: base_url is missing"):
        ModelRegistry({}).get("mine/x")
