"""`agent()` and workflows with agents in a script: no server, no worker."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flux import ExecutionContext, task, workflow
from flux.errors import AgentFailed, NotPaused
from flux.tasks.ai import agent

done: list[str] = []


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path))
    monkeypatch.setenv("FLUX_DATABASE_URL", f"sqlite:///{tmp_path / 'flux.db'}")
    monkeypatch.chdir(tmp_path)
    done.clear()
    return tmp_path


def script(home: Path, name: str, *turns: Any) -> str:
    """The name of a model that follows a script."""
    path = home / f"{name}.yaml"
    path.write_text(yaml.safe_dump(list(turns)))
    return f"scripted/{path}"


def calling(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """The turn that calls a tool."""
    return {"calls": [{"name": name, "args": args}]}


def rows(home: Path, sql: str) -> list[Any]:
    """What is in the database."""
    with closing(sqlite3.connect(home / "flux.db")) as connection:
        return connection.execute(sql).fetchall()


@task
async def note(text: str) -> str:
    """Note something."""
    done.append(text)
    return "noted"


@task.with_options(requires_approval=True)
async def wipe(disk: str) -> str:
    """Wipe a disk."""
    done.append(disk)
    return f"{disk} wiped"


@pytest.mark.behaviour("inline:alone:twice")
async def test_a_script_asks_an_agent_again_and_again() -> None:
    parrot = await agent("Repeat.", model="scripted/echo", name="parrot")
    for text in ("one", "two", "one"):
        assert await parrot(text) == text


@pytest.mark.behaviour("inline:alone:together")
async def test_agents_of_one_name_that_a_script_asks_at_once_do_not_answer_for_each_other(home: Path) -> None:
    model = script(home, "both", calling("note", {"text": "x"}), {"text": "ok"})
    first = await agent("First.", model=model, name="helper", tools=[note])
    second = await agent("Second.", model=model, name="helper")
    answers = await asyncio.gather(first("a"), second("b"), first("c"))
    assert [*answers] == ["ok", "ok", "ok"]
    assert done == ["x", "x"]


@pytest.mark.behaviour("inline:alone:failed")
async def test_an_agent_that_fails_alone_raises_what_is_wrong() -> None:
    broken = await agent("Break.", model="scripted/nothing", name="broken")
    with pytest.raises(AgentFailed, match="unknown scripted model 'nothing'"):
        await broken("hello")


@pytest.mark.behaviour("inline:alone:asks")
async def test_an_agent_that_waits_for_a_person_alone_says_how_to_see_what_it_asks(home: Path) -> None:
    model = script(home, "wiper", calling("wipe", {"disk": "sda"}), {"text": "ok"})
    wiper = await agent("Wipe.", model=model, name="wiper", tools=[wipe])
    with pytest.raises(NotPaused, match="flux execution approvals"):
        await wiper("go")
    assert rows(home, "select state, waiting_for from executions where driver is null") == [("waiting", "approval")]


@workflow.with_options(namespace="agents_alone")
async def wiping(ctx: ExecutionContext[Any]) -> Any:
    """An agent that asks before it acts."""
    return await (await agent("Wipe.", model=ctx.input, name="wiper", tools=[wipe]))("go")


@pytest.mark.behaviour("inline:alone:go-on")
async def test_a_workflow_whose_agent_waits_goes_on_in_another_run_of_the_script(home: Path) -> None:
    model = script(home, "wiper", calling("wipe", {"disk": "sda"}), {"text": "ok"})
    paused = await wiping.run_async(model)
    assert paused.is_paused
    again = await wiping.run_async(None, execution_id=paused.execution_id)
    assert again.is_paused
    assert done == []


@pytest.mark.behaviour("inline:alone:interrupted")
async def test_a_script_that_is_interrupted_leaves_its_agent_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @task
    async def slow(text: str) -> str:
        """Take its time."""
        begun.set()
        await go.wait()
        done.append(text)
        return "slow"

    @workflow
    async def interrupted(ctx: ExecutionContext[Any]) -> Any:
        helper = await agent("Help.", model=ctx.input, name="helper", tools=[slow.with_options(effect="idempotent")])
        return await helper("go")

    model = script(home, "slow", calling("slow", {"text": "x"}), {"text": "ok"})
    running = asyncio.create_task(interrupted.run_async(model))
    await asyncio.wait_for(begun.wait(), 20)
    running.cancel()
    await asyncio.wait((running,))
    assert rows(home, "select state, failures from executions where driver is null") == [("scheduled", 0)]
    assert rows(home, "select type from events where type in ('cancelled', 'cancel_requested')") == []
    (id,) = rows(home, "select id from executions where driver is null")[0]
    go.set()
    again = await interrupted.run_async(None, execution_id=id)
    assert again.output == "ok"
    assert done == ["x"]
