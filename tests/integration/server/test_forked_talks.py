"""Forks of sessions whose agent talks by a workflow."""

import itertools
from contextlib import aclosing
from typing import Any

import pytest

from flux.events import type_of
from flux.models.base import Model
from flux.models.scripted import Reply, ScriptedModel
from tests.integration.server.conversations import greeted, talker
from tests.integration.server.models import Held, says
from tests.integration.server.serving import Served
from tests.integration.server.streams import body, history
from tests.integration.server.test_conversations import answered, kinds, told, until
from tests.integration.server.test_sessions import call

_names = itertools.count()

HEAD = """
from flux import call, create_agent, pause, task, workflow
from flux.agents.types import ChatResponseOutput
from flux.tasks import parallel, sleep
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory

"""
REMEMBERING = """
@workflow.with_options(namespace="agents")
async def remembering(ctx):
    ask = await agent("Remember.", model=MODEL, working_memory=working_memory())
    said, turn = "Welcome!", 0
    while True:
        given = await pause("turn", output=ChatResponseOutput(said, turn))
        said, turn = await ask(given["message"]), turn + 1
"""
HARNESSED = """
helper = create_agent(lambda context: {"model": MODEL}, name="helper")

@workflow.with_options(namespace="agents")
async def harnessed(ctx):
    harness = await ctx.init(helperINSTANCE)
    session = await harness.session()
    said, turn = "Welcome!", 0
    while True:
        given = await pause("turn", output=ChatResponseOutput(said, turn))
        said, turn = (await session.prompt(given["message"])).text, turn + 1
"""
TIMED = """
@workflow.with_options(namespace="agents")
async def timed(ctx):
    said = "Welcome!"
    for turn in range(9):
        given = await pause("turn", output=ChatResponseOutput(said, turn), after=3600)
        said = "you left" if given is None else given["message"].upper()
"""
SILENT = """
@workflow.with_options(namespace="agents")
async def silent(ctx):
    await sleep(3600)
"""


async def begun(served: Served, source: str, model: Model) -> str:
    """A session of a new agent that talks by this workflow; its id."""
    name = f"forked{next(_names)}"
    served.models[name] = model
    file = {"name": "talk.py", "source": HEAD + source.replace("MODEL", repr(f"test/{name}"))}
    await served.client.post("/agents", {"name": name, "model": f"test/{name}", "workflow_file": file})
    return (await served.client.start_session(name)).id


async def entries(served: Served, id: str) -> list[dict[str, Any]]:
    return [one async for one in served.client.pages(f"/sessions/{id}/events")]


def place(log: list[dict[str, Any]], type: str, n: int = -1) -> int:
    """The seq of the n-th entry of a type."""
    return int([one["seq"] for one in log if one["type"] == type][n])


def request_texts(model: ScriptedModel, n: int = -1) -> str:
    return str(model.requests[n].messages)


@pytest.mark.behaviour("fork:talk:goes-on")
@pytest.mark.parametrize("at", ["assistant_message", "chat_response", "WORKFLOW_PAUSED", None])
async def test_a_workflow_goes_on_in_a_fork_from_an_answer(stored: Served, at: str | None) -> None:
    id = await greeted(stored)
    await told(stored, id, "hello")
    source = await entries(stored, id)
    if at is not None:
        await told(stored, id, "more")
    forked = await stored.client.session(id).fork(place(source, at) if at is not None else None)
    row = await forked.info()
    assert (row["state"], row["turns"], row["title"]) == ("idle", 1, "hello")
    copied = await entries(stored, forked.id)
    assert [one | {"epoch": 0} for one in copied[:-1]] == [one | {"epoch": 0} for one in source]
    assert (copied[-1]["type"], copied[-1]["from"]) == ("forked", id)
    assert not copied[-1].get("dropped")
    ended = await told(stored, forked.id, "again")
    assert (ended[-1].content, ended[-1].turn) == ("AGAIN", 2)
    # No task that the copy holds is done again.
    assert len([one for one in await entries(stored, forked.id) if one["type"] == "TASK_COMPLETED"]) == 2
    assert (await told(stored, id, "there"))[-1].content == "THERE"


@pytest.mark.behaviour("fork:talk:last-rest")
async def test_a_fork_in_the_middle_of_a_run_ends_at_the_answer_before(in_memory: Served) -> None:
    model = Held([Reply("slow")])
    id = await greeted(in_memory, model=model)
    await told(in_memory, id, "hello")
    rested = (await until(in_memory, id, "idle"))["head"]
    session = in_memory.client.session(id)
    await session.post("ask")
    await model.asked.wait()
    await session.post("behind")
    forked = await session.fork()
    assert len(await entries(in_memory, forked.id)) == rested + 1
    assert kinds(await told(in_memory, forked.id, "other"))[-1] == "chat_response"
    model.open()
    assert [body(one)["content"] for one in await history(in_memory.client, id, ends=4) if one.type == "chat_response"][
        2:
    ] == ["slow", "BEHIND"]


@pytest.mark.behaviour("fork:talk:anywhere")
async def test_wherever_it_is_cut_a_forked_conversation_takes_the_next_message(in_memory: Served) -> None:
    id = await greeted(in_memory)
    session = in_memory.client.session(id)
    await told(in_memory, id, "hello")
    await told(in_memory, id, "ask")
    (asked,) = [one for one in await told(in_memory, id, "pay 5") if type_of(one) == "approval_required"]
    await answered(in_memory, id, asked.id, "approve")
    await told(in_memory, id, "login")
    await session.cancel()
    await until(in_memory, id, "idle")
    await told(in_memory, id, "bye")
    log = await entries(in_memory, id)
    for at in range(1, len(log) + 1):
        forked = await session.fork(at)
        copied = await entries(in_memory, forked.id)
        assert [one["seq"] for one in copied] == list(range(1, len(copied) + 1))
        assert (await forked.info())["state"] in ("idle", "scheduled", "running", "waiting")
        ended = (await told(in_memory, forked.id, "next"))[-1]
        assert ended.content == "NEXT"
        turns = [one["turn"] for one in await entries(in_memory, forked.id) if one["type"] == "chat_response"]
        assert turns == list(range(len(turns)))
        assert await forked.interrupts() == []
    assert await entries(in_memory, id) == log


@pytest.mark.behaviour("fork:talk:ended")
async def test_a_conversation_that_ended_or_failed_goes_on_in_a_fork(in_memory: Served) -> None:
    for last in ("bye", "fail"):
        id = await greeted(in_memory)
        await told(in_memory, id, "hello")
        await told(in_memory, id, last)
        await until(in_memory, id, "ended")
        forked = await in_memory.client.session(id).fork()
        assert (await forked.info())["state"] == "idle"
        assert (await told(in_memory, forked.id, "on"))[-1].content == "ON"
        assert "session_end" not in [one["type"] for one in await entries(in_memory, forked.id)]


@pytest.mark.behaviour("fork:talk:memory")
async def test_what_the_agents_of_the_workflow_remember_is_as_at_the_cut(stored: Served) -> None:
    model = says("first answer", "second answer", "third answer")
    id = await begun(stored, REMEMBERING, model)
    await history(stored.client, id)
    await told(stored, id, "one thing")
    cut = place(await entries(stored, id), "chat_response")
    await told(stored, id, "another thing")
    forked = await stored.client.session(id).fork(cut)
    assert (await told(stored, forked.id, "and then"))[-1].content == "second answer"
    sent = request_texts(model)
    assert "one thing" in sent
    assert "first answer" in sent
    assert "another" not in sent
    second = await stored.client.session(forked.id).fork(cut)
    assert (await told(stored, second.id, "or else"))[-1].content == "second answer"
    sent = request_texts(model)
    assert "first answer" in sent
    assert "and then" not in sent
    assert (await told(stored, id, "here"))[-1].content == "third answer"
    assert "another thing" in request_texts(model)
    spent = [(await stored.client.session(one).info())["usage"]["total"] for one in (id, forked.id, second.id)]
    assert spent[0] > spent[1] > 0
    assert spent[2] > 0
    assert len(model.requests) == 5


@pytest.mark.behaviour("fork:talk:harness")
async def test_sessions_of_a_harness_in_the_workflow_are_copied_too(in_memory: Served) -> None:
    model = says("first answer", "in the fork")
    id = await begun(in_memory, HARNESSED.replace("INSTANCE", ""), model)
    await history(in_memory.client, id)
    await told(in_memory, id, "one thing")
    forked = await in_memory.client.session(id).fork()
    assert (await told(in_memory, forked.id, "and then"))[-1].content == "in the fork"
    assert "first answer" in request_texts(model)


@pytest.mark.behaviour("fork:talk:only-one")
async def test_a_workflow_that_talks_in_a_session_of_which_there_is_one_is_not_forked(in_memory: Served) -> None:
    id = await begun(in_memory, HARNESSED.replace("INSTANCE", ', id="till-7"'), says("first answer"))
    await history(in_memory.client, id)
    await told(in_memory, id, "one thing")
    error = (await call(in_memory, "POST", f"/sessions/{id}/fork", 409, {}))["error"]
    assert "helper/till-7" in error["message"]
    assert "ctx.init" in error["message"]


@pytest.mark.behaviour("fork:talk:timer")
async def test_a_timer_that_is_open_at_the_cut_is_taken_up(stored: Served) -> None:
    id = await begun(stored, TIMED, says())
    await history(stored.client, id)
    await told(stored, id, "hello")
    forked = await stored.client.session(id).fork()
    row = await until(stored, forked.id, "waiting")
    assert row["waiting_for"] == "message"
    assert (await told(stored, forked.id, "again"))[-1].content == "AGAIN"


@pytest.mark.behaviour("fork:talk:nothing-said")
async def test_where_the_workflow_has_not_waited_for_a_message_it_is_not_forked(in_memory: Served) -> None:
    silent = await begun(in_memory, SILENT, says())
    await until(in_memory, silent, "waiting")
    error = (await call(in_memory, "POST", f"/sessions/{silent}/fork", 409, {}))["error"]
    assert "has not waited for a message yet" in error["message"]


@pytest.mark.behaviour("fork:talk:last-rest")
async def test_a_fork_in_front_of_the_first_message_is_greeted(in_memory: Served) -> None:
    session = await in_memory.client.start_session(await talker(in_memory, "Welcome!"), "hello")
    await history(in_memory.client, session.id, ends=2)
    log = await entries(in_memory, session.id)
    first = place(log, "WORKFLOW_PAUSED", 0)
    before = place(log, "user_message", 0) - 1
    assert before < first
    forked = await session.fork(before)
    copied = await entries(in_memory, forked.id)
    assert (len(copied), copied[-1]["dropped"]) == (first + 1, [log[before]["id"]])
    assert (await told(in_memory, forked.id, "other"))[-1].content == "OTHER"


@pytest.mark.behaviour("fork:talk:goes-on")
async def test_the_events_of_a_forked_conversation_are_those_of_a_session(in_memory: Served) -> None:
    id = await greeted(in_memory)
    await told(in_memory, id, "hello")
    forked = await in_memory.client.session(id).fork()
    async with aclosing(forked.send("again")) as events:
        assert [event.event async for event in events][-1].content == "AGAIN"  # type: ignore[union-attr]
    shown = await call(in_memory, "GET", f"/executions/{forked.id}", 200)
    assert (shown["state"], shown["output"]["content"]) == ("PAUSED", "AGAIN")
