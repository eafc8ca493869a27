"""Agents whose functions are named: modules are imported when they are needed, and never on the loop."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flux.agents.define.definition import AgentDefinition
from flux.agents.process import Process, open_process
from flux.agents.service import agents as stored
from flux.engine.intake.inputs import NewMessage
from flux.errors import DefinitionInvalid
from flux.settings import Settings
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel

BEGUN, OPEN = threading.Event(), threading.Event()
SLOW = f'''
from {__name__} import BEGUN, OPEN

BEGUN.set()
if not OPEN.wait(20):
    raise TimeoutError("the loop stood still")


def greet() -> str:
    """Greet."""
    return "hello"
'''
BROKEN = "1 / 0\n"


def naming(module: str) -> AgentDefinition:
    """An agent with a function of a module."""
    return AgentDefinition(name="helper", model="test/one", tools=({"function": f"{module}:greet"},))


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Process]:
    """A process with a model that calls the function."""
    model = ScriptedModel([Reply(calls=(Call("greet"),)), Reply("Done.")], name="test/one")
    settings = Settings(home=home / "home", synchronous="normal")
    async with open_process(settings, environment={}, workspace=home, factories={"test": lambda _: model}) as process:
        yield process


async def end_of(process: Process) -> str:
    """Say something to the agent; the kind of its run's end."""
    admitted = await process.sessions.start(LOCAL, "helper", NewMessage("go"))
    async for frames in process.sessions.follow(LOCAL, admitted.id):
        for frame in frames:
            if frame.type in ("chat_response", "error"):
                return frame.type + frame.data.decode()
    raise AssertionError("the session has no more to say")


@pytest.mark.behaviour("roles:named:off-the-loop")
@pytest.mark.timeout(60)
async def test_a_module_is_imported_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slow_greetings", "slower_greetings"):
        (tmp_path / f"{name}.py").write_text(SLOW)
        monkeypatch.delitem(sys.modules, name, raising=False)
    async with opened(tmp_path) as process:
        OPEN.clear()
        asyncio.get_running_loop().call_soon(OPEN.set)
        await process.agents.put(LOCAL, naming("slow_greetings"), create=True, update=False)
        OPEN.clear()
        BEGUN.clear()
        other = naming("slower_greetings")  # stored by a process that had the module
        await process.database.write(stored.put(LOCAL, other, None, create=False, update=True))
        running = asyncio.create_task(end_of(process))
        assert await asyncio.to_thread(BEGUN.wait, 20)
        OPEN.set()
        assert (await running).startswith("chat_response")
    for name in ("slow_greetings", "slower_greetings"):
        sys.modules.pop(name)


@pytest.mark.behaviour("roles:named:broken")
async def test_what_a_module_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_greetings.py").write_text(BROKEN)
    (tmp_path / "leaving_greetings.py").write_text("raise SystemExit(3)\n")
    async with opened(tmp_path) as process:
        for module, said in (("broken_greetings", "ZeroDivisionError"), ("leaving_greetings", "SystemExit")):
            with pytest.raises(DefinitionInvalid, match=f"{module}:greet: the module cannot be imported: {said}"):
                await process.agents.put(LOCAL, naming(module), create=True, update=False)
        await process.database.write(stored.put(LOCAL, naming("broken_greetings"), None, create=True, update=False))
        assert "cannot be imported" in await end_of(process)
