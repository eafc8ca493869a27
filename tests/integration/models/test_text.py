"""Text streams as it comes, and ends in one answer."""

import pytest
from msgspec.structs import replace

from flux.messages import FREE, AssistantMessage, TextDelta, TextPart, Usage
from tests.aimock import Aimock
from tests.integration.models.calls import answered, asking, events
from tests.integration.models.conftest import WEATHER, Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import Wire


@pytest.mark.behaviour("models:text:streams")
async def test_text_comes_in_pieces_and_then_as_one_answer(wire: Wire, mock: Aimock, connect: Connect) -> None:
    found = await events(connect(mock.url).get(wire.model), asking("hello", tools=(WEATHER,)))
    *deltas, answer = found
    assert len(deltas) > 1
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    text = "Hello, this is an answer of several chunks."
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == text
    assert isinstance(answer, AssistantMessage)
    assert answer.model == wire.model
    assert answer.stop == "stop"
    assert answer.parts[-1] == TextPart(text)


@pytest.mark.behaviour("models:usage:counted")
async def test_usage_includes_the_cache_and_prices_are_known(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    answer = await answered(connect(server.url).get(wire.model), asking("hello"))
    assert replace(answer.usage, costs=FREE) == Usage(input=11, output=7, cache_read=4)
    assert answer.usage.costs.total == pytest.approx(answer.cost or 0)
    assert (answer.cost or 0) > 0 if wire.provider not in ("ollama", "own") else answer.cost is None


async def test_an_output_limit_is_the_stop_reason(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["too lo"], finish="length"))]
    answer = await answered(connect(server.url).get(wire.model), asking("hello"))
    assert (answer.stop, answer.parts[-1]) == ("length", TextPart("too lo"))


async def test_an_empty_answer_is_an_answer(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer([])), Reply(wire.answer(["more"]))]
    model = connect(server.url).get(wire.model)
    empty = await answered(model, asking("hello"))
    assert (empty.parts, empty.calls) == ((), ())
    await answered(model, asking("hello", empty, "and?"))
