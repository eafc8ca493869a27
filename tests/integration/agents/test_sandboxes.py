"""Where the tools of an agent act."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flux.errors import DefinitionInvalid
from flux.events import ApprovalRequired, ChatResponse, ContextFrozen, Entry, RunFailed, ToolDone
from flux.sandboxes import contained
from flux.sandboxes.contained import isolation_problem
from flux.settings import ApiKeys, Auth
from flux.store import files
from flux.store.database import LOCAL
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.agents.world import World, of, opened

needs_isolation = pytest.mark.skipif(bool(isolation_problem()), reason=f"no isolated sandbox: {isolation_problem()}")


def using(*calls: Call) -> list[Reply]:
    return [*(Reply("", calls=(call,)) for call in calls), Reply("done")]


def shell(command: str) -> Call:
    return Call("shell", {"command": command})


async def said(world: World) -> list[str]:
    return [done.content for done in of(await world.log(), ToolDone)]


@pytest.mark.behaviour("sandbox:virtual:kept")
async def test_virtual_files_outlive_the_run_and_the_process(tmp_path: Path, database_url: str) -> None:
    make = "mkdir -p src; printf 'a\\0b' > src/data; ln -s src/data link; chmod 755 src/data; echo x > gone; rm gone"
    script = using(shell(make), Call("write_file", {"path": "notes.md", "content": "hi\n"}))
    async with opened(tmp_path, database_url=database_url) as world:
        await world.agent(script, tools=["shell", "files"], sandbox="virtual")
        await world.ask("make files")
        await world.rest()
        id = world.id
    assert not (tmp_path / "notes.md").exists()
    async with opened(tmp_path, database_url=database_url) as world:
        world.id = id
        look = shell("cat notes.md; od -c link | head -1; ls -l src")
        more = using(look, shell("rm -r src link"), shell("ls"))
        world.models["main"] = ScriptedModel([*script, *more])
        await world.say("look")
        await world.rest()
        *_, looked, _, left = await said(world)
        assert "hi\n0000000   a  \\0   b" in looked
        assert "-rwxr-xr-x" in looked
        assert "stdout:\nnotes.md" in left
        kept = await world.process.database.read(files.load(LOCAL, id))
        assert [(file.path, file.data) for file in kept] == [("/notes.md", b"hi\n")]
        await world.process.sessions.end(LOCAL, id)
        await world.process.sessions.delete(LOCAL, id)
        assert await world.process.database.read(files.load(LOCAL, id)) == []


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'flux.db'}"


@pytest.mark.behaviour("sandbox:virtual:kept")
async def test_two_sessions_see_nothing_of_each_other(world: World) -> None:
    script = [Reply("", calls=(shell("ls; echo x > mine"),)), Reply("done")]
    await world.agent(script * 2, tools=["shell"], sandbox="virtual")
    await world.ask("one")
    world.id = ""
    await world.ask("two")
    assert "stdout: (empty)" in (await said(world))[0]


@pytest.mark.behaviour("sandbox:virtual:forked")
async def test_a_fork_has_the_files_of_its_source(world: World) -> None:
    script = using(shell("echo one > file"))
    look = using(shell("cat file; echo two > file"))
    await world.agent([*script, *look, *look], tools=["shell"], sandbox="virtual")
    await world.ask("go")
    source = world.id
    forked = await world.process.sessions.fork(LOCAL, source)
    for world.id in (forked.id, source):
        await world.ask("go on")
        assert "one" in (await said(world))[-1]


@pytest.mark.behaviour("sandbox:virtual:shared")
async def test_a_sub_agent_of_a_virtual_one_acts_in_the_same_files(world: World) -> None:
    script = using(
        shell("echo for you > task.txt"),
        Call("delegate", {"agent": "helper", "instruction": "read the task"}),
        shell("cat answer.txt"),
    )
    world.models["helper"] = ScriptedModel(using(shell("cat task.txt; echo from me > answer.txt")))
    helper = {"name": "helper", "model": "test/helper", "description": "Helps.", "tools": ["shell"]}
    await world.agent(script, tools=["shell"], sandbox="virtual", subagents=[helper])
    await world.ask("go")
    assert "from me" in (await said(world))[-1]
    assert "for you" in world.prompts("helper")[1][-1]


@pytest.mark.behaviour("sandbox:virtual:nothing-of-the-host")
async def test_a_virtual_agent_sees_no_notes_and_skills_of_the_host(world: World, tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("the host's notes")
    (tmp_path / ".agents" / "skills" / "deploy").mkdir(parents=True)
    (tmp_path / ".agents" / "skills" / "deploy" / "SKILL.md").write_text("---\nname: deploy\ndescription: D.\n---\n")
    skill = "---\nname: own\ndescription: Made inside.\n---\nDo it."
    script = using(
        Call("write_file", {"path": ".agents/skills/own/SKILL.md", "content": skill}), Call("list_directory", {})
    )
    await world.agent([*script, Reply("again")], tools=["files", "directory"], sandbox="virtual")
    await world.ask("go")
    system = of(await world.log(), ContextFrozen)[0].system
    assert "host" not in system
    assert "deploy" not in system
    assert (await said(world))[-1] == ".agents/"


@pytest.fixture
async def local_world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path, sandbox="local") as world:
        yield world


WRITES = (shell("echo hi > made"), Call("write_file", {"path": "made", "content": "x"}))


@pytest.mark.behaviour("sandbox:agent:approvals")
async def test_in_local_what_changes_the_host_asks_first(local_world: World) -> None:
    await local_world.agent(using(*WRITES), tools=["shell", "files"])
    await local_world.ask("go")
    assert [one.tool for one in of(await local_world.log(), ApprovalRequired)] == ["shell"]


@pytest.mark.behaviour("sandbox:agent:approvals")
@pytest.mark.parametrize("sandbox", ["virtual", pytest.param("isolated", marks=needs_isolation)])
async def test_in_any_other_sandbox_it_is_allowed(world: World, tmp_path: Path, sandbox: str) -> None:
    await world.agent(using(*WRITES, shell("cat made; hostname")), tools=["shell", "files"], sandbox=sandbox)
    await world.ask("go")
    assert of(await world.log(), ApprovalRequired) == []
    assert "x" in (await said(world))[-1]
    assert "sandbox" in (await said(world))[-1]
    assert (tmp_path / "made").exists() == (sandbox == "isolated")
    told = next(tool for tool in of(await world.log(), ContextFrozen)[0].tools if tool["name"] == "shell")
    assert f"`{sandbox}`" in told["description"]


@pytest.mark.behaviour("sandbox:agent:auto")
@needs_isolation
async def test_auto_is_isolated_where_that_works(world: World) -> None:
    await world.agent(using(shell("hostname")), tools=["shell"])
    await world.ask("go")
    assert "sandbox" in (await said(world))[-1]


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    monkeypatch.setattr(contained, "PATH", "/nowhere")
    isolation_problem.cache_clear()
    return isolation_problem.cache_clear


@pytest.mark.behaviour("sandbox:agent:auto")
async def test_auto_is_local_elsewhere_and_isolated_refuses(
    without_bubblewrap: Callable[[], None], world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.agent(using(shell("hostname")), tools=["shell"])
    await world.ask("go")
    assert of(await world.log(), ApprovalRequired) != []
    assert "without isolation" in caplog.text
    world.id = ""
    await world.agent(using(shell("hostname")), tools=["shell"], sandbox="isolated")
    log = await world.ask("go")
    assert "install the package bubblewrap" in of(log, RunFailed)[0].message
    without_bubblewrap()


@pytest.mark.behaviour("sandbox:agent:refused")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sandbox": "virtual", "cwd": "src"}, "cwd: a virtual sandbox has a directory of its own"),
        ({"sandbox": "docker"}, "sandbox"),
        ({"sandbox": "local", "cwd": "none"}, "cwd: the workspace"),
    ],
)
async def test_what_cannot_be_is_refused_when_the_agent_is_made(
    world: World, fields: dict[str, Any], said: str
) -> None:
    makes: Awaitable[None] = world.agent([Reply("hi")], tools=["shell"], **fields)
    with pytest.raises(DefinitionInvalid, match=said):
        await makes


@pytest.mark.behaviour("sandbox:agent:guarded")
@pytest.mark.parametrize(("setting", "end"), [("auto", RunFailed), ("local", ChatResponse)])
async def test_where_callers_must_say_who_they_are_local_needs_a_setting(
    tmp_path: Path, setting: str, end: type[Entry]
) -> None:
    async with opened(tmp_path, sandbox=setting, auth=Auth(api_keys=ApiKeys(enabled=True))) as world:
        await world.agent([Reply("hi")], tools=["shell"], sandbox="local")
        log = await world.ask("go")
    assert of(log, end) != []
    assert all("FLUX_SANDBOX=local" in failed.message for failed in of(log, RunFailed))
