"""Where people are told apart, the tools of a file run in a process of their own."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from flux.agents.define.definition import define
from flux.events import RunFailed, ToolDone
from flux.settings import ApiKeys, Auth
from flux.store.database import LOCAL
from flux.store.interrupts import payload_of
from flux.testing import Call, Reply
from tests.integration.agents.test_tool_files import calling, file
from tests.integration.agents.world import World, of, opened

SEEN = '''
import os, signal, sys, threading
from flux import task

@task
def seen() -> dict:
    """What the process can see."""
    return {"pid": os.getpid(), "names": sorted(os.environ), "files": len(os.listdir("/proc/self/fd")),
            "database": "sqlite3" in sys.modules and any("flux.db" in os.readlink(f"/proc/self/fd/{fd}")
                for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))}

@task.with_options(effect="idempotent")
def end(how: str) -> str:
    """End it."""
    print("leaving with hunter2-hunter2", flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else os._exit(3)
'''

WORK = '''
import asyncio
from flux import task
from flux.tasks import parallel, progress, sleep
from flux.tasks.config_task import get_config

TRIED = []

@task.with_options(effect="read")
async def half(n: int) -> tuple:
    await asyncio.sleep(0)
    return (n / 2, {"n": n})

async def instead(n: int) -> str:
    return f"instead of {n}"

@task.with_options(retry_max_attempts=2, retry_delay=0.001, fallback=instead)
async def fails(n: int) -> str:
    TRIED.append(n)
    raise ValueError("no")

@task.with_options(requires_approval=lambda n: n > 1)
async def pays(n: int) -> int:
    return n

@task.with_options(config_requests=["place"])
async def where(config: dict) -> str:
    return config["place"]

@task
async def work(n: int) -> str:
    """All that a tool may do."""
    await progress({"at": 1})
    await sleep(0.001)
    halves = await parallel(*(half(one) for one in range(3)))
    said = await fails(n)
    paid = await pays(1) + await pays(2)
    return f"{halves} {said} {len(TRIED)} {paid} {await where()} {await get_config('place')}"

@task
async def caught() -> str:
    """A failure that it answers."""
    try:
        await fails("x" * 3)
    except Exception as error:
        return type(error).__name__
    return "went well"
'''


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path, run_failures=2, auth=Auth(api_keys=ApiKeys(enabled=True))) as opened_world:
        yield opened_world


@pytest.mark.behaviour("toolfiles:apart:alone")
async def test_it_sees_neither_keys_nor_the_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-server")
    await world.agent(calling(Call("seen")), tools_file=file(SEEN))
    (done,) = of(await world.ask("go"), ToolDone)
    seen = msgspec.json.decode(done.content)
    assert seen["pid"] != os.getpid()
    assert set(seen["names"]) <= {"LC_CTYPE", "PYTHONPATH"}
    assert (seen["database"], seen["files"] < 16) == (False, True)


@pytest.mark.behaviour("toolfiles:apart:ends")
@pytest.mark.parametrize("how", ["kill", "exit"])
async def test_a_tool_that_ends_its_process_fails_and_the_next_call_has_another(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    await world.agent(calling(Call("seen"), Call("end", {"how": how}), Call("seen")), tools_file=file(SEEN))
    before, ended, after = of(await world.ask("go"), ToolDone)
    assert ended.content.startswith("the process of the tools of shop.py ended")
    assert msgspec.json.decode(before.content)["pid"] != msgspec.json.decode(after.content)["pid"]
    assert await world.faults() == []


@pytest.mark.behaviour("toolfiles:apart:engine")
async def test_its_tasks_are_remembered_tried_again_and_approved_as_in_the_worker(world: World) -> None:
    await world.process.configs.set(LOCAL, "place", "Bonn")
    await world.agent(calling(Call("work", {"n": 7}), Call("caught")), tools_file=file(WORK))
    await world.ask("go")
    (question,) = await world.questions()
    assert (payload_of(question)["tool"], payload_of(question)["args"]) == ("pays", {"n": 2})
    await world.answer(question, "approve")
    await world.rest("idle")
    worked, caught = of(await world.log(), ToolDone)
    halves = "[(0.0, {'n': 0}), (0.5, {'n': 1}), (1.0, {'n': 2})]"
    assert worked.content == f"{halves} instead of 7 3 3 Bonn Bonn"
    assert caught.content == "went well"
    assert await world.faults() == []


@pytest.mark.behaviour("toolfiles:apart:stopped")
async def test_a_run_that_is_stopped_stops_its_tool(world: World, tmp_path: Path) -> None:
    path = tmp_path / "told"
    source = f'''
import asyncio
from pathlib import Path
from flux import task

@task.with_options(effect="read")
async def hang() -> str:
    """Wait."""
    Path({str(path)!r}).write_text("began")
    try:
        await asyncio.Event().wait()
    finally:
        Path({str(path)!r}).write_text("stopped")

@task
def said() -> str:
    """What was told."""
    return Path({str(path)!r}).read_text()
'''
    await world.agent([Reply("", calls=(Call("hang"),)), *calling(Call("said"))], tools_file=file(source))
    await world.start("go")

    async def began() -> bool:
        return path.exists()

    await world.until(began)
    await world.cancel()
    await world.rest("idle")
    log = await world.ask("and now?")
    assert of(log, ToolDone)[-1].content == "stopped"


@pytest.mark.behaviour("toolfiles:apart:refused")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "the source of shop.py cannot be used: it fails when it is loaded: line 2: ZeroDivisionError"),
        ("import os; os._exit(0)", "cannot be used: its process ended while it was loaded"),
        ("from flux.tools.base import ToolContext", "while auth is on, the tools of a file cannot have n: ToolContext"),
    ],
)
async def test_what_does_not_load_there_fails_the_run(world: World, body: str, message: str) -> None:
    kind = "ToolContext" if "ToolContext" in body else "int"
    source = f"from flux import task\n{body}\n@task\nasync def pay(n: {kind}): return n"
    await world.agent(calling(Call("pay")), tools_file=file(source))
    (failed,) = of(await world.ask("go"), RunFailed)
    assert message in failed.message
    assert await world.faults() == []


@pytest.mark.behaviour("toolfiles:apart:secrets")
async def test_a_secret_that_the_file_does_not_write_out_is_not_given(world: World) -> None:
    await world.process.secrets.set(LOCAL, "KEY", "s3cret-s3cret")
    source = """
from flux import task
NAMES = ["K" + "EY"]

@task
async def steal() -> str:
    \"\"\"Ask for it inside.\"\"\"
    async def take(secrets: dict) -> str:
        return secrets["KEY"][::-1]
    return await task(take).with_options(secret_requests=NAMES)()
"""
    await world.agent(calling(Call("steal")), tools_file=file(source))
    (done,) = of(await world.ask("go"), ToolDone)
    assert "write 'KEY' out in the file" in done.content
    declared = "from flux import task\nNAMES = ['K' + 'EY']\n@task.with_options(secret_requests=NAMES)\n"
    world.id = ""
    await world.process.agents.put(
        LOCAL,
        define({"name": "agent", "model": "test/main", "tools_file": file(declared + "async def take(secrets): ...")}),
        create=False,
        update=True,
    )
    (failed,) = of(await world.ask("go"), RunFailed)
    assert "write 'KEY' out in the file" in failed.message
