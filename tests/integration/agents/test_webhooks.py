"""Webhooks: told once of what happens, again when a receiver fails, never where they may not lead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flux.agents.webhooks import deliverer
from flux.agents.webhooks.sender import Answer, Sender
from flux.errors import InvalidInput, WebhookExists, WebhookNotFound
from flux.messages import ModelFailure
from flux.models.base import ModelRequest
from flux.store.database import LOCAL, Scope, one
from flux.store.webhooks import Delivery
from flux.testing import Call, Reply
from flux.tools.base import Tool
from flux.tools.function import tool_of
from flux.webhooks import new_secret
from tests.integration.agents.receiving import Receiver, receiving
from tests.integration.agents.world import World, opened

HOSTS = ("127.0.0.1",)


def wiping() -> dict[str, Tool]:
    async def wipe() -> str:
        """Wipe."""
        return "wiped"

    return {"wipe": tool_of(wipe, requires_approval=True)}


def told(request: ModelRequest) -> Reply | ModelFailure:
    last = str(request.messages[-1])
    if "'fail'" in last:
        return ModelFailure("the key was refused", "auth")
    return Reply("", calls=(Call("wipe"),)) if "'wipe'" in last and "wiped" not in last else Reply("ok")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with opened(tmp_path, wiping(), database_url=database_url, webhook_hosts=HOSTS) as made:
        await made.agent(told, tools=["wipe"])
        yield made


async def hook(world: World, receiver: Receiver, name: str = "audit", **more: object) -> None:
    _, receiver.secret = await world.process.webhooks.create(LOCAL, name, receiver.url, **more)  # type: ignore[arg-type]


async def settled(world: World, *states: str, name: str = "audit") -> list[Delivery]:
    """The deliveries, newest first, when they are all in these states."""

    async def reached() -> bool:
        found = await world.process.webhooks.deliveries(LOCAL, name)
        return bool(found) and all(one.state in states for one in found)

    await world.until(reached)
    return await world.process.webhooks.deliveries(LOCAL, name)


@pytest.mark.behaviour("webhooks:events:told")
async def test_what_becomes_of_sessions_is_told_signed(world: World, receiver: Receiver) -> None:
    await hook(world, receiver)
    id = await world.start("hello")
    (first,) = await receiver.until(1)
    assert first[1]["type"] == "run.finished"
    data = first[1]["data"]
    assert (data["session"], data["agent"], data["outcome"], data["turn"]) == (id, "agent", "completed", 1)
    assert first[1]["timestamp"].endswith("Z")
    await world.say("wipe")
    waiting = (await receiver.until(2))[1][1]
    (question,) = await world.questions()
    assert waiting["type"] == "session.waiting"
    assert (waiting["data"]["waiting_for"], waiting["data"]["interrupts"]) == ("approval", [question.id])
    await world.answer(question, "approve")
    assert (await receiver.until(3))[2][1]["data"]["outcome"] == "completed"
    await world.say("fail")
    failed = (await receiver.until(4))[3][1]
    assert (failed["type"], failed["data"]["error"]) == ("run.failed", "the key was refused")
    await world.say("wipe")
    await receiver.until(5)
    await world.process.sessions.end(LOCAL, id)
    assert (await receiver.until(6))[5][1]["data"]["outcome"] == "cancelled"
    found = await settled(world, "delivered")
    assert [(one.attempts, one.status, one.error) for one in found] == [(1, 204, None)] * 6
    assert len({id for id, _ in receiver.came}) == 6


@pytest.mark.behaviour("webhooks:events:chosen")
async def test_a_webhook_hears_of_its_events_its_agent_and_its_tenant(world: World, receiver: Receiver) -> None:
    await hook(world, receiver, "others", agent="somebody")
    await hook(world, receiver, "failures", events=["run.failed"])
    secret = receiver.secret
    stranger = Scope("elsewhere", "eve")
    await world.process.webhooks.create(stranger, "audit", receiver.url)
    receiver.secret = secret
    await world.ask("hello")
    await world.ask("fail")
    await receiver.until(1)
    await settled(world, "delivered", name="failures")
    assert receiver.types == ["run.failed"]
    assert await world.process.webhooks.deliveries(stranger, "audit") == []
    assert await world.process.webhooks.deliveries(LOCAL, "others") == []
    with pytest.raises(WebhookNotFound):
        await world.process.webhooks.get(stranger, "failures")


@pytest.mark.behaviour("webhooks:retry")
async def test_a_failure_is_tried_again_with_the_same_id(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "BACKOFFS", (0.01,) * 3)
    await hook(world, receiver)
    receiver.answers = [500, 302, 204]
    await world.ask("hello")
    await receiver.until(3)
    (found,) = await settled(world, "delivered")
    assert (found.attempts, found.status, found.error) == (3, 204, None)
    assert len({id for id, _ in receiver.came}) == 1
    receiver.answers = [500] * 4
    await world.ask("hello")
    newest = (await settled(world, "delivered", "failed"))[0]
    assert (newest.attempts, newest.state, newest.error) == (4, "failed", "the receiver answered 500")


@pytest.mark.behaviour("webhooks:retry")
async def test_a_receiver_that_is_gone_is_not_asked_again_until_somebody_wants_it(
    world: World, receiver: Receiver
) -> None:
    await hook(world, receiver)
    receiver.answers = [410]
    await world.ask("hello")
    (found,) = await settled(world, "failed")
    again = await world.process.webhooks.redeliver(LOCAL, "audit", found.id)
    assert (again.id, again.state, again.attempts) == (found.id, "pending", 0)
    await settled(world, "delivered")
    assert [id for id, _ in receiver.came] == [found.id] * 2
    with pytest.raises(WebhookNotFound, match="no delivery"):
        await world.process.webhooks.redeliver(LOCAL, "audit", "msg_nothing")


@pytest.mark.behaviour("webhooks:slow")
async def test_a_receiver_that_does_not_answer_holds_up_nobody(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "LEAVE_SECONDS", 0.0)
    async with receiving() as slow, opened(tmp_path, webhook_hosts=HOSTS, webhook_timeout=1.0) as world:
        await world.agent(told)
        slow.gate.clear()
        await hook(world, slow, "slow")
        await hook(world, receiver, "quick")
        for n in range(5):
            await world.ask(f"hello {n}")
        await receiver.until(5)
        assert {one.state for one in await world.process.webhooks.deliveries(LOCAL, "slow")} == {"pending"}

        async def timed_out() -> bool:
            return all(one.error for one in await world.process.webhooks.deliveries(LOCAL, "slow"))

        await world.until(timed_out)
        found = await world.process.webhooks.deliveries(LOCAL, "slow")
        assert {one.error for one in found} == {"no answer after 1 seconds"}
        slow.gate.set()


@pytest.mark.behaviour("webhooks:durable")
async def test_what_was_written_is_told_by_whoever_comes_next(
    tmp_path: Path, database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "LEAVE_SECONDS", 0.0)
    async with opened(tmp_path, database_url=database_url, webhook_hosts=HOSTS) as first:
        await first.agent([Reply("ok")])
        await hook(first, receiver)
        first.process.feed.on_hooked = lambda: None  # it never looks
        await first.ask("hello")
        assert receiver.came == []
    async with opened(tmp_path, database_url=database_url, webhook_hosts=HOSTS) as second:
        await receiver.until(1)
        (found,) = await settled(second, "delivered")
        assert found.attempts <= 2  # the first one may have begun when it left
        await second.process.webhooks.delete(LOCAL, "audit")
        assert await second.process.database.read(one("select id from webhook_deliveries")) == []
        assert await second.process.database.read(one("select name from secrets")) == []


@pytest.mark.behaviour("webhooks:durable")
async def test_a_process_that_leaves_tells_first(tmp_path: Path, database_url: str, receiver: Receiver) -> None:
    async with opened(tmp_path, database_url=database_url, webhook_hosts=HOSTS) as world:
        await world.agent([Reply("ok")])
        await hook(world, receiver)
        world.process.feed.on_hooked = lambda: None
        await world.ask("hello")
        assert receiver.came == []
    assert receiver.types == ["run.finished"]


@pytest.mark.behaviour("webhooks:guard")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/hook", "https://127.0.0.2/hook", "https://localhost/", "https://[::1]/", "https://10.0.0.1/",
        "http://example.org/", "ftp://example.org/", "https://user:pass@example.org/", "https://169.254.169.254/latest",
        "not a url", "https://", "https://example.org/#x", f"https://example.org/{'x' * 2048}",
    ],
)  # fmt: skip
async def test_where_nobody_may_be_led_is_refused(url: str) -> None:
    sender = Sender(HOSTS, 5.0)
    with pytest.raises(InvalidInput, match="url: "):
        await sender.check(url)
    answer = await sender.send(url, "msg_1", b"{}", new_secret())
    assert answer.status is None
    assert answer.error


@pytest.mark.behaviour("webhooks:guard")
async def test_a_host_is_looked_at_again_when_it_is_told(receiver: Receiver) -> None:
    await Sender(HOSTS, 5.0).check(receiver.url)
    assert (await Sender((), 5.0).send(receiver.url, "msg_1", b"{}", new_secret())).error
    assert await Sender(HOSTS, 5.0).send(receiver.url, "msg_1", b'{"type": "x"}', new_secret()) == Answer(204)
    assert receiver.types == ["x"]


@pytest.mark.behaviour("webhooks:managed")
async def test_what_cannot_be_made_is_refused(world: World, receiver: Receiver) -> None:
    await hook(world, receiver)
    service = world.process.webhooks
    with pytest.raises(WebhookExists):
        await hook(world, receiver)
    with pytest.raises(InvalidInput, match=r"did you mean 'run\.failed'"):
        await service.create(LOCAL, "b", receiver.url, ["run.faild"])
    with pytest.raises(InvalidInput):
        await service.create(LOCAL, "a b/c", receiver.url)
    assert [(row[0]) for row in await world.process.database.read(one("select count(*) from secrets"))] == [1]
