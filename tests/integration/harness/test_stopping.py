"""Operations that are stopped, and questions that they wait for."""

import asyncio
from typing import Any

import pytest

from flux import (
    CancelSignal,
    define_agent_profile,
    define_tool,
    init_agent,
)
from flux.agents.code.errors import AbortError
from flux.agents.harness.host import close_hosts, host
from flux.engine.intake.answers import Decision
from flux.engine.intake.inputs import NewMessage
from flux.errors import (
    SessionBusyError,
)
from flux.sandboxes import local
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import GUARD, Gate, last_text, texts, written


@pytest.mark.behaviour("harness:session:abort")
async def test_an_abort_stops_what_was_begun_and_the_session_goes_on(desk: MakeAgent) -> None:
    gate = Gate()
    agent = desk([Reply("", calls=(Call("wait"),)), Reply("Fine.")], tools=[gate.tool()])
    session = await (await init_agent(agent, id="t-1")).session()
    handle = session.prompt("Wait")
    await asyncio.wait_for(gate.began.wait(), GUARD)
    handle.abort("enough")
    with pytest.raises(AbortError, match="enough") as aborted:
        await handle
    assert (aborted.value.reason, handle.signal.reason, gate.stopped.is_set()) == ("enough", "enough", True)
    handle.abort("again")
    assert (await session.prompt("Better?")).text == "Fine."
    assert "cancelled while it ran" in texts(await session.history())[2]


@pytest.mark.behaviour("harness:session:abort")
async def test_an_abort_before_the_start_leaves_nothing_and_after_the_end_does_nothing(desk: MakeAgent) -> None:
    session = await (await init_agent(desk([Reply("Hello.")]), id="t-1")).session()
    handle = session.prompt("Never")
    handle.abort("too soon")
    with pytest.raises(AbortError, match="too soon"):
        await handle
    assert await session.history() == []
    signal = CancelSignal()
    signal.cancel("outside")
    with pytest.raises(AbortError, match="outside"):
        await session.prompt("Never", signal=signal)
    done = session.prompt("Hi")
    assert (await done).text == "Hello."
    done.abort("late")
    assert (await done).text == "Hello."


@pytest.mark.behaviour("harness:session:abort")
async def test_who_stops_waiting_stops_the_operation(desk: MakeAgent) -> None:
    gate = Gate()
    session = await (await init_agent(desk([Reply("", calls=(Call("wait"),))], tools=[gate.tool()]), id="1")).session()

    async def ask() -> None:
        await session.prompt("Wait")

    waiting = asyncio.create_task(ask())
    await asyncio.wait_for(gate.began.wait(), GUARD)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.stopped.is_set()
    assert (await (await host()).row(session.id)).state == "idle"


@pytest.mark.behaviour("harness:session:abort")
async def test_an_abort_ends_the_processes_of_a_command(desk: MakeAgent) -> None:
    harness = await init_agent(desk([Reply("Hello.")], sandbox=local()), id="t-1")
    session = await harness.session()
    for shell in (session.shell, harness.shell):
        handle = shell("echo $$ > pid; sleep 60")
        pid = await written(harness, "pid")
        handle.abort()
        with pytest.raises(AbortError):
            await handle
        assert (await harness.shell(f"kill -0 {pid}")).exit_code != 0
        await harness.fs.rm("pid")
    assert "cancelled while it ran" in texts(await session.history())[-1]


@pytest.mark.behaviour("harness:session:answers")
async def test_a_question_is_answered_while_the_operation_waits(desk: MakeAgent) -> None:
    risky = define_tool("risky", lambda args: "did it", description="d", parameters={}, requires_approval=True)
    script = [Reply("", calls=(Call("risky"),)), Reply("Done.")]
    session = await (await init_agent(desk(script, tools=[risky]), id="t-1")).session()
    handle = session.prompt("Go")
    while not (asked := await session.interrupts()):
        assert not handle.done
    with pytest.raises(SessionBusyError):
        await session.prompt("More")
    await session.respond(asked[0].id)
    assert (await handle).text == "Done."
    assert "did it" in texts(await session.history())


@pytest.mark.behaviour("harness:session:answers")
async def test_an_answer_is_kept_until_code_opens_the_session_again(desk: MakeAgent) -> None:
    done = asyncio.Event()

    async def act(args: dict[str, Any]) -> str:
        done.set()
        return "did it"

    risky = define_tool("risky", act, description="d", parameters={}, requires_approval=True)
    agent = desk([Reply("", calls=(Call("risky"),)), Reply("Done."), Reply("Later.")], tools=[risky])
    session = await (await init_agent(agent, id="t-1")).session()
    handle = session.prompt("Go")
    while not (asked := await session.interrupts()):
        assert not handle.done
    await close_hosts()  # the program ends, and nobody waits any more
    with pytest.raises(asyncio.CancelledError):
        await handle
    other = await host()
    assert (await other.row(session.id)).state == "waiting"
    await other.process.sessions.answer(other.scope, session.id, asked[0].id, Decision("approve"))
    assert (await other.row(session.id)).state == "scheduled"
    again = await (await init_agent(agent, id="t-1")).session()
    await asyncio.wait_for(done.wait(), GUARD)
    assert (await again.prompt("And then?")).text == "Later."
    assert "Done." in texts(await again.history())


@pytest.mark.behaviour("harness:session:cancel")
async def test_somebody_else_may_cancel(desk: MakeAgent) -> None:
    gate = Gate()
    session = await (await init_agent(desk([Reply("", calls=(Call("wait"),))], tools=[gate.tool()]), id="1")).session()
    handle = session.prompt("Wait")
    await asyncio.wait_for(gate.began.wait(), GUARD)
    await session.cancel()
    with pytest.raises(AbortError, match="the run was cancelled"):
        await handle
    await session.cancel()


@pytest.mark.behaviour("harness:session:answers")
async def test_a_message_of_somebody_else_is_answered_before_the_next_prompt(desk: MakeAgent) -> None:
    session = await (await init_agent(desk(lambda request: Reply(f"Re: {last_text(request)}")), id="t-1")).session()
    await session.prompt("First")
    other = await host()
    await other.process.sessions.send(other.scope, session.id, NewMessage("From the terminal"))
    assert (await session.prompt("Last")).text == "Re: Last"
    assert texts(await session.history())[2:4] == ["From the terminal", "Re: From the terminal"]


@pytest.mark.behaviour("harness:session:abort")
async def test_an_abort_reaches_what_a_sub_agent_does(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    gate = Gate()
    models["below"] = ScriptedModel([Reply("", calls=(Call("wait"),))])
    below = define_agent_profile(name="below", model="test/below", tools=[gate.tool()])
    session = await (await init_agent(desk([Reply("Fine.")], subagents=[below]), id="t-1")).session()
    handle = session.task("Go", agent="below")
    await asyncio.wait_for(gate.began.wait(), GUARD)
    handle.abort("enough")
    with pytest.raises(AbortError, match="enough"):
        await handle
    assert gate.stopped.is_set()
    assert (await session.prompt("Better?")).text == "Fine."
