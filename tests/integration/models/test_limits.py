"""What a model can take: known beforehand, or asked of Ollama."""

import json
from typing import Any

import pytest

from flux.models.base import ModelLimits
from tests.integration.models.conftest import Connect
from tests.integration.models.server import Reply, Server


def shown(parameters: str = "", modelfile: str = "", trained: int | None = 131072) -> dict[str, Any]:
    info = {"general.architecture": "llama"} | ({"llama.context_length": trained} if trained else {})
    return {"model_info": info, "parameters": parameters, "modelfile": modelfile}


def json_reply(body: Any, status: int = 200) -> Reply:
    return Reply([json.dumps(body).encode()], status, {"content-type": "application/json"})


@pytest.mark.behaviour("models:limits:ollama")
@pytest.mark.parametrize(
    ("show", "window"),
    [
        (shown(), 4096),
        (shown('stop   "<|eot|>"\nnum_ctx   8192'), 8192),
        (shown(modelfile="FROM llama3.2\nPARAMETER num_ctx 16384\n"), 16384),
        (shown("num_ctx 999999"), 131072),
        (shown(trained=2048), 2048),
        (shown(trained=None), None),
    ],
)
async def test_ollama_is_asked_for_the_window_it_gives(
    server: Server, connect: Connect, show: Any, window: int | None
) -> None:
    server.replies = [json_reply({"models": []}), json_reply(show)]
    limits = await connect(server.url).get("ollama/llama3.2").limits()
    assert limits == ModelLimits(context=window)
    assert [request.path for request in server.requests] == ["/api/ps", "/api/show"]
    assert server.requests[1].body == {"model": "llama3.2"}


@pytest.mark.behaviour("models:limits:ollama")
async def test_the_window_of_a_loaded_model_counts(server: Server, connect: Connect) -> None:
    server.replies = [json_reply({"models": [{"name": "llama3.2:latest", "context_length": 32768}]})]
    model = connect(server.url).get("ollama/llama3.2")
    assert await model.limits() == ModelLimits(context=32768)
    assert await model.limits() == ModelLimits(context=32768)
    assert len(server.requests) == 1


ODD = [
    json_reply({"error": "no"}, 404),
    Reply([b"<html>"]),
    Reply(end="cut"),
    json_reply({"models": 5}),
    json_reply({"models": ["llama3.2"]}),
]


@pytest.mark.parametrize("reply", ODD)
async def test_an_ollama_that_cannot_say_leaves_them_unknown(server: Server, connect: Connect, reply: Reply) -> None:
    server.replies = [reply]
    assert await connect(server.url).get("ollama/llama3.2").limits() == ModelLimits()


@pytest.mark.behaviour("models:limits:known")
@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("openai/gpt-4.1", ModelLimits(1_000_000, 32_768)),
        ("openai-chat/gpt-4o", ModelLimits(128_000, 16_384)),
        ("anthropic/claude-haiku-4-5", ModelLimits(200_000, 64_000)),
        ("google/gemini-2.5-flash", ModelLimits(1_048_576, 65_535)),
        ("own/some-model", ModelLimits()),
    ],
)
async def test_limits_of_known_models(connect: Connect, name: str, limits: ModelLimits) -> None:
    assert await connect("http://127.0.0.1:1").get(name).limits() == limits
