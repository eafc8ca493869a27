"""Leaving a call ends its connection at once."""

import asyncio

import pytest

from flux.messages import TextDelta
from tests.integration.models.calls import answered, asking
from tests.integration.models.conftest import Connect
from tests.integration.models.server import Reply, Server
from tests.integration.models.wires import Wire


@pytest.mark.behaviour("models:cancel:closes-connection")
async def test_closing_the_iterator_closes_the_connection(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["first"], finish=None), end="hang")]
    stream = connect(server.url).get(wire.model).stream(asking("hello"))
    assert await anext(stream) == TextDelta("first")
    await stream.aclose()
    await asyncio.wait_for(server.disconnected.wait(), 2)


@pytest.mark.behaviour("models:cancel:closes-connection")
@pytest.mark.parametrize("pieces", [0, 1], ids=["before the first piece", "after it"])
async def test_cancelling_the_task_closes_the_connection(
    wire: Wire, server: Server, connect: Connect, pieces: int
) -> None:
    server.replies = [Reply(wire.answer(["first"] * pieces, finish=None), end="hang")]
    model = connect(server.url).get(wire.model)
    got = asyncio.Event()

    async def consume() -> None:
        async for _ in model.stream(asking("hello")):
            got.set()

    task = asyncio.create_task(consume())
    if pieces:
        await asyncio.wait_for(got.wait(), 5)
    else:
        await asyncio.wait_for(server.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.disconnected.wait(), 2)


async def test_a_model_can_be_called_again_after_a_cancel(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [
        Reply(wire.answer(["first"], finish=None), end="hang"),
        Reply(wire.answer(["second"])),
    ]
    model = connect(server.url).get(wire.model)
    stream = model.stream(asking("hello"))
    await anext(stream)
    await stream.aclose()
    assert (await answered(model, asking("hello"))).stop == "stop"
    assert server.connections == 2


async def test_calls_share_connections_where_the_sdk_can(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [Reply(wire.answer(["fine"]))]
    model = connect(server.url).get(wire.model)
    for _ in range(3):
        await answered(model, asking("hello"))
    assert server.connections == (3 if wire.provider == "google" else 1)
