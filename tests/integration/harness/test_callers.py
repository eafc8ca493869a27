"""Sessions that code runs in its own process: nobody else claims them, and they survive it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from flux import init_agent
from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.admitting import start_session_steps
from flux.engine.intake.inputs import NewSession
from flux.errors import SessionBusy, SessionEnded, SessionNotFound
from flux.events import UserSaid
from flux.messages import TextPart
from flux.store import callers, ownership
from flux.store.database import LOCAL, Database
from flux.store.workers import Presence
from flux.testing import Reply
from tests.integration.harness.conftest import MakeAgent
from tests.integration.harness.test_sessions import texts

ME, OTHER = Presence("me"), Presence("other")
SAID = UserSaid(id="m", mode="reject", parts=(TextPart("Hi"),))

PROGRAM = """
import asyncio, sys
from flux import configure_provider, create_agent, define_tool, init_agent
from flux.testing import Call, Reply, ScriptedModel

configure_provider("test", model=lambda _: ScriptedModel([Reply("", calls=(Call("wait"),)), Reply("Done.")]))

async def wait(args):
    print("began", flush=True)
    await asyncio.Event().wait()

async def main():
    tools = [define_tool("wait", wait, description="Wait.", parameters={})]
    agent = create_agent(lambda: {"model": "test/main", "tools": tools}, name="desk")
    await (await (await init_agent(agent, id="t-1")).session()).prompt("Go")

asyncio.run(main())
"""


async def made(database: Database) -> str:
    new = NewSession("desk", "", instance="t-1", pool="caller")
    admitted, _ = await database.write(start_session_steps(LOCAL, new, None, EmbeddedDispatch(database)))
    return admitted.id


@pytest.mark.behaviour("harness:caller:taken")
async def test_a_session_is_taken_by_one_caller_and_claimed_by_no_worker(database: Database) -> None:
    id = await made(database)
    found = await database.read(callers.find(LOCAL, "desk", "t-1", "default"))
    assert found is not None
    assert (found.id, found.state) == (id, "idle")
    entered = await database.write(callers.enter(LOCAL, id, ME, [SAID], "run", "Hi"))
    row = entered.execution
    assert (row.state, row.worker, row.pool, row.run_id, row.title, row.head) == (
        "running", "me", "caller", "run", "Hi", 2,
    )  # fmt: skip
    assert [one.type for one in entered.rows] == ["user_message"]
    with pytest.raises(SessionBusy, match="the session is working"):
        await database.write(callers.enter(LOCAL, id, OTHER, [SAID], "run", None))
    assert await database.write(ownership.claim(id, "other")) is None
    assert await database.write(ownership.sweep(("default", "caller"), 10)) == ([], None)
    with pytest.raises(SessionNotFound):
        await database.write(callers.enter(LOCAL, "nothing", ME, [], None, None))


@pytest.mark.behaviour("harness:caller:lost")
async def test_what_a_dead_caller_ran_is_taken_over_once_and_not_run_again(database: Database) -> None:
    id = await made(database)
    epoch = (await database.write(callers.enter(LOCAL, id, ME, [SAID], "run", None))).execution.epoch
    assert await database.write(ownership.reap("me", (0.0,))) == []
    assert await database.read(callers.lost("me")) == [id]
    taken = await database.write(callers.take_over(id, "me", OTHER))
    assert taken is not None
    assert (taken.worker, taken.epoch, taken.state) == ("other", epoch + 1, "running")
    assert await database.write(callers.take_over(id, "me", Presence("third"))) is None
    assert not await database.write(ownership.hand_back(id, epoch, failed=True, backoff=0.0))


@pytest.mark.behaviour("harness:caller:taken")
async def test_an_ended_session_cannot_be_taken(database: Database) -> None:
    id = await made(database)
    await database.write(_ended(id))
    with pytest.raises(SessionEnded):
        await database.write(callers.enter(LOCAL, id, ME, [], None, None))
    assert await database.read(callers.find(LOCAL, "desk", "t-1", "default")) is None


def _ended(id: str):  # type: ignore[no-untyped-def]
    yield "update executions set state = 'ended' where id = :id returning id", {"id": id}


@pytest.mark.behaviour("harness:caller:lost")
async def test_a_session_whose_program_was_killed_stays_usable(desk: MakeAgent, tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert program.stdout is not None
    async with asyncio.timeout(30):
        assert await program.stdout.readline() == b"began\n"
    program.send_signal(signal.SIGKILL)
    await program.wait()
    session = await (await init_agent(desk([Reply("x"), Reply("Go on.")]), id="t-1")).session()
    assert (await session.prompt("Are you there?")).text == "Go on."
    said = texts(await session.history())
    assert said[0] == "Go"
    assert "its outcome is unknown and it was not run again" in said[2]
