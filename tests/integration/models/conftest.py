import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from flux.models.base import ToolSchema
from flux.models.registry import ModelRegistry, ProviderSettings
from tests.aimock import Aimock, aimock, environment
from tests.integration.models.server import Server, serving
from tests.integration.models.wires import WIRES, Wire

WEATHER = ToolSchema(
    "get_weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(params=WIRES, ids=lambda wire: wire.provider)
def wire(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.param
    return found


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


Connect = Callable[..., ModelRegistry]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A function that gives models whose providers are all at one address."""
    async with contextlib.AsyncExitStack() as stack:

        def make(url: str, **options: Any) -> ModelRegistry:
            own = ProviderSettings("own", f"{url}/v1", "OWN_KEY")
            variables = {**environment(url), "OWN_KEY": "test-key-of-nobody"}
            registry = ModelRegistry(variables, {"own": own}, **options)
            stack.push_async_callback(registry.aclose)
            return registry

        yield make


FORECAST = '{"city": "Rome", "days": [{"sky": "rain"}]}'

FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "hello"},
        "response": {"content": "Hello, this is an answer of several chunks."},
    },
    {"match": {"userMessage": "think"}, "response": {"content": "Done.", "reasoning": "Let me think."}},
    {"match": {"toolResultContains": "rain"}, "response": {"content": "Take an umbrella."}},
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {
            "toolCalls": [
                {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
            ],
            "finishReason": "stop",
        },
    },
    {
        "match": {"userMessage": "call me a forecast"},
        "response": {"toolCalls": [{"name": "final_result", "arguments": FORECAST}], "finishReason": "stop"},
    },
    {"match": {"userMessage": "forecast"}, "response": {"content": FORECAST}},
    {
        "match": {"userMessage": "busy"},
        "response": {
            "error": {"message": "Slow down", "type": "rate_limit_error"},
            "status": 429,
            "retryAfter": 7,
        },
    },
]


@pytest.fixture(scope="session")
def mock(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    program = require_tool("llmock")
    with aimock(program, FIXTURES, tmp_path_factory.mktemp("aimock")) as running:
        yield running
