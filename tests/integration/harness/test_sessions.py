"""Sessions of a harness: what operations give, refuse and leave behind."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from flux import (
    Harness,
    PromptImage,
    create_agent,
    define_agent_profile,
    define_tool,
    init_agent,
    load_skill,
    tool,
)
from flux.agents.code.errors import ResultUnavailableError
from flux.agents.harness.host import close_hosts, host
from flux.errors import (
    AgentFailed,
    DefinitionInvalid,
    InvalidInput,
    SessionBusyError,
    SessionExists,
    SessionNotFound,
    Unavailable,
)
from flux.messages import ImagePart, ModelFailure, ToolResult, UserMessage, text_of
from flux.models.base import ModelRequest
from flux.sandboxes import local
from flux.testing import Call, Reply, ScriptedModel
from tests.integration.harness.conftest import MakeAgent

GUARD = 20.0


def texts(messages: list[Any]) -> list[str]:
    return [m.content if isinstance(m, ToolResult) else text_of(m.parts) for m in messages]


def last_text(request: ModelRequest) -> str:
    return texts([one for one in request.messages if isinstance(one, UserMessage)])[-1]


def shown(request: ModelRequest) -> list[Any]:
    return [part for message in request.messages if isinstance(message, UserMessage) for part in message.parts]


class City(BaseModel):
    name: str
    people: int


async def written(harness: Harness, path: str) -> int:
    """The number in a file, as soon as it is there."""
    while True:
        text = await harness.fs.read_file(path) if await harness.fs.exists(path) else ""
        if text:
            return int(text)


class Gate:
    """A tool that says when it began, and ends when it is told."""

    def __init__(self) -> None:
        self.began, self.open, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def tool(self) -> Any:
        async def wait(args: dict[str, Any], ctx: Any) -> str:
            self.began.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.stopped.set()
                raise
            return "waited"

        return define_tool("wait", wait, description="Wait.", parameters={})


@pytest.mark.behaviour("harness:session:prompt")
async def test_a_prompt_uses_tools_and_continues_the_conversation(desk: MakeAgent) -> None:
    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    agent = desk([Reply("", calls=(Call("add", {"a": 1, "b": 2}),)), Reply("It is 3."), Reply("Still 3.")], tools=[add])
    async with await init_agent(agent, id="t-1") as harness:
        session = await harness.session()
        first = await session.prompt("1 + 2?")
        assert (first.text, first.model.provider, first.model.id) == ("It is 3.", "test", "main")
        assert (first.usage.total_tokens, first.usage.output) == (first.usage.input + 3, 3)
        assert (await (await harness.session()).prompt("And now?")).text == "Still 3."
        assert texts(await session.history()) == ["1 + 2?", "", "3", "It is 3.", "And now?", "Still 3."]


@pytest.mark.behaviour("harness:session:named")
async def test_sessions_are_apart_by_name_instance_and_agent(desk: MakeAgent) -> None:
    agent = desk(lambda request: Reply(" | ".join(texts(list(request.messages)))))
    odd = ["../x", "a/b", "ünï", "a%2Fb", "a b", "x" * 256]
    for id in odd:
        harness = await init_agent(agent, id=id)
        assert (await (await harness.session()).prompt(f"I am {id[:9]}")).text == f"I am {id[:9]}"
        assert (await (await harness.session(id)).prompt("other")).text == "other"
    for bad in ("", "x" * 10_000, "a\nb", "a\0b", "\ud800", 3):
        with pytest.raises(InvalidInput, match="the id of an instance"):
            await init_agent(agent, id=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the name of a session"):
        await harness.session("a\nb")


@pytest.mark.behaviour("harness:session:named")
async def test_sessions_are_got_created_and_deleted(desk: MakeAgent) -> None:
    harness = await init_agent(desk([Reply("Hello.")]), id="t-1")
    with pytest.raises(SessionNotFound, match="has no session 'billing' for 't-1'"):
        await harness.sessions.get("billing")
    made = await harness.sessions.create("billing")
    await made.prompt("Hi")
    with pytest.raises(SessionExists):
        await harness.sessions.create("billing")
    assert (await harness.sessions.get("billing")).id == made.id
    await harness.sessions.delete("billing")
    await harness.sessions.delete("billing")
    with pytest.raises(SessionNotFound):
        await made.prompt("Are you there?")
    assert texts(await (await harness.session("billing")).history()) == []


@pytest.mark.behaviour("harness:session:busy")
async def test_one_operation_at_a_time(desk: MakeAgent) -> None:
    gate = Gate()
    agent = desk([Reply("", calls=(Call("wait"),)), Reply("Done.")], tools=[gate.tool()])
    harness = await init_agent(agent, id="t-1")
    session = await harness.session()
    running = session.prompt("Wait")
    await asyncio.wait_for(gate.began.wait(), GUARD)
    for second in (session.prompt("x"), session.shell("ls"), session.task("x"), session.delete()):
        with pytest.raises(SessionBusyError):
            await second
    assert (await (await harness.session("other")).shell("echo free")).stdout == "free\n"
    gate.open.set()
    assert (await running).text == "Done."
    assert len(await session.history()) == 4


@pytest.mark.behaviour("harness:session:result")
async def test_a_result_is_checked_and_asked_for_again(desk: MakeAgent) -> None:
    agent = desk(
        [
            Reply("It is Rome."),
            Reply("", calls=(Call("finish", {"name": "Rome"}),)),
            Reply("", calls=(Call("finish", {"name": "Rome", "people": 3}),)),
            Reply("You are welcome."),
        ]
    )
    session = await (await init_agent(agent, id="t-1")).session()
    answer = await session.prompt("Which?", result=City)
    assert answer.data == answer.result == City(name="Rome", people=3)
    said = texts(await session.history())
    assert "`finish`" in said[2]
    assert '"people" is a required property' in said[4]
    assert (await session.prompt("Thanks")).text == "You are welcome."


@pytest.mark.behaviour("harness:session:result")
async def test_no_result_is_an_error_that_says_why(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    session = await (await init_agent(desk([Reply("No idea.")]), id="t-1")).session()
    with pytest.raises(ResultUnavailableError, match="it ended in words") as unavailable:
        await session.prompt("Which?", result=City)
    assert unavailable.value.text == "No idea."
    assert len(models["main"].requests) == 3
    models["main"] = ScriptedModel(lambda _: Reply("", calls=(Call("give_up", {"reason": "no map"}),)))
    await close_hosts()
    session = await (await init_agent(desk(models["main"]), id="t-2")).session()
    with pytest.raises(ResultUnavailableError) as gave_up:
        await session.prompt("Which?", schema=City)
    assert gave_up.value.reason == "no map"
    for wrong in ({"result": City, "schema": City}, {"result": "City"}, {"model": "x"}, {"thinking_level": "hi"}):
        with pytest.raises(InvalidInput):
            await session.prompt("Which?", **wrong)


@pytest.mark.behaviour("harness:session:call-scoped")
async def test_tools_model_and_effort_of_one_operation(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    models["other"] = ScriptedModel([Reply("Other.")])
    session = await (await init_agent(desk([Reply("Main.")]), id="t-1")).session()
    extra = define_tool("extra", lambda args: "x", description="d", parameters={})
    answer = await session.prompt("Hi", tools=[extra], model="test/other", thinking_level="high")
    assert (answer.text, answer.model.id) == ("Other.", "other")
    request = models["other"].requests[0]
    assert ("extra" in {one.name for one in request.tools}, request.reasoning) == (True, "high")
    await session.prompt("Again")
    request = models["main"].requests[0]
    assert ("extra" in {one.name for one in request.tools}, request.reasoning) == (False, None)
    with pytest.raises(DefinitionInvalid, match="two are called read"):
        await session.prompt("Hi", tools=[define_tool("read", lambda a: "", description="d", parameters={})])


@pytest.mark.behaviour("harness:session:no-model")
async def test_an_agent_without_a_model_needs_one_with_each_operation(desk: MakeAgent) -> None:
    session = await (await init_agent(desk([Reply("Hello.")], model=False), id="t-1")).session()
    with pytest.raises(InvalidInput, match="agent desk has model=False"):
        await session.prompt("Hi")
    assert (await session.prompt("Hi", model="test/main")).text == "Hello."
    assert (await session.shell("echo ok")).stdout == "ok\n"


@pytest.mark.behaviour("harness:session:failed")
async def test_a_run_that_fails_raises_and_the_session_goes_on(desk: MakeAgent) -> None:
    def script(request: ModelRequest) -> Reply | ModelFailure:
        return ModelFailure("no such model", "rejected") if last_text(request) == "Fail" else Reply("Hello.")

    session = await (await init_agent(desk(script), id="t-1")).session()
    with pytest.raises(AgentFailed, match="no such model"):
        await session.prompt("Fail")
    assert (await session.prompt("Hi")).text == "Hello."
    with pytest.raises(InvalidInput, match="is empty"):
        await session.prompt(" ")


@pytest.mark.behaviour("harness:session:task")
async def test_a_task_is_done_by_a_sub_agent_apart(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    models["critic"] = ScriptedModel(
        lambda request: (
            Reply("", calls=(Call("finish", {"name": request.system.split()[0], "people": 1}),))
            if any(one.name == "finish" for one in request.tools)
            else Reply(f"Seen: {last_text(request)}")
        )
    )
    critic = define_agent_profile(name="critic", model="test/critic", instructions="Criticise.")
    harness = await init_agent(desk(lambda request: Reply(f"Main: {last_text(request)}"), subagents=[critic]), id="1")
    session = await harness.session()
    answer = await session.task("Look", agent="critic")
    assert (answer.text, answer.model.id, answer.usage.total_tokens > 0) == ("Seen: Look", "critic", True)
    assert (await session.task("Again", agent="critic", result=City)).data.name == "Criticise."
    assert (await session.task("Alone", cwd="sub")).text == "Main: Alone"
    assert await session.history() == []
    with pytest.raises(InvalidInput, match="unknown sub-agent 'crtic'; did you mean 'critic'"):
        await session.task("Look", agent="crtic")
    row = await (await host()).row(session.id)
    assert row.spent.tokens.total >= answer.usage.total_tokens


@pytest.mark.behaviour("harness:session:task")
async def test_a_model_hands_work_to_a_sub_agent(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    models["helper"] = ScriptedModel([Reply("", calls=(Call("bash", {"command": "pwd"}),)), Reply("Done below.")])
    helper = define_agent_profile(name="helper", model="test/helper", description="Helps.")
    call = Call("task", {"prompt": "Do it", "agent": "helper", "description": "doing", "cwd": "sub"})
    harness = await init_agent(desk([Reply("", calls=(call,)), Reply("All done.")], subagents=[helper]), id="1")
    await harness.fs.mkdir("sub")
    answer = await (await harness.session()).prompt("Go")
    assert answer.text == "All done."
    assert "- helper: Helps." in models["main"].requests[0].system
    assert "/sub" in texts(list(models["helper"].requests[1].messages))[-1]


@pytest.mark.behaviour("harness:session:skill")
async def test_a_skill_is_used_by_name_or_as_given(desk: MakeAgent, tmp_path: Any) -> None:
    folder = tmp_path / "triage"
    folder.mkdir()
    (folder / "SKILL.md").write_text("---\nname: triage\ndescription: Sort.\n---\nRead each one.\n")
    agent = desk(lambda request: Reply(last_text(request)), skills=[{"name": "escalate", "description": "Call."}])
    harness = await init_agent(agent, id="t-1")
    await harness.fs.write_file(
        ".agents/skills/greet/SKILL.md", "---\nname: greet\ndescription: Greet.\n---\nSay hello.\n"
    )
    session = await harness.session()
    assert "Read each one." in (await session.skill(load_skill(folder), args={"n": 3})).text
    assert '"n": 3' in (await session.skill(load_skill(folder), args={"n": 3})).text
    assert "Say hello." in (await session.skill("greet")).text
    assert (await session.skill("escalate")).text == "Use the skill escalate: Call."
    with pytest.raises(InvalidInput, match="unknown skill 'gret'; did you mean 'greet'"):
        await session.skill("gret")


@pytest.mark.behaviour("harness:init:skills")
async def test_a_skill_may_not_be_called_as_one_of_the_workspace(desk: MakeAgent, models: Any) -> None:
    agent = desk([Reply("Hello.")], skills=[{"name": "greet", "description": "Mine."}], sandbox=local())
    harness = await init_agent(agent, id="t-1")
    await harness.fs.write_file(".agents/skills/greet/SKILL.md", "---\nname: greet\ndescription: Greet.\n---\nHi.\n")
    with pytest.raises(DefinitionInvalid, match="skills: greet is also a skill of the workspace"):
        await init_agent(agent, id="t-1")


@pytest.mark.behaviour("harness:session:shell")
async def test_a_command_is_told_to_the_conversation_without_its_secrets(desk: MakeAgent, models: Any) -> None:
    session = await (await init_agent(desk([Reply("First."), Reply("I saw it.")]), id="t-1")).session()
    done = await session.shell("echo $TOKEN; pwd; exit 3", env={"TOKEN": "sekret"})
    assert (done.exit_code, done.stdout.splitlines()[0]) == (3, "sekret")
    await session.prompt("What was that?")
    shown = str(models["main"].requests[0].messages)
    assert "sekret" not in shown
    assert "exit_code: 3" in shown
    assert "[redacted]" in shown
    assert "TOKEN" in shown


@pytest.mark.behaviour("harness:session:fork")
async def test_a_fork_goes_on_by_itself(desk: MakeAgent) -> None:
    session = await (await init_agent(desk([Reply("One."), Reply("Two.")]), id="t-1")).session()
    await session.prompt("1")
    copy = await session.fork(name="copy")
    assert (await copy.prompt("2")).text == "Two."
    assert texts(await session.history()) == ["1", "One."]
    assert texts(await copy.history()) == ["1", "One.", "2", "Two."]


@pytest.mark.behaviour("harness:init:sandbox")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sandbox": lambda: 1 / 0}, "the sandbox of agent desk cannot be made: ZeroDivisionError"),
        ({"sandbox": lambda: 3}, "sandbox: its function made a int, which is no sandbox"),
        ({"sandbox": local("/nowhere/at/all")}, "cannot be made"),
        ({"sandbox": local(), "cwd": "/nowhere/at/all"}, "cannot be made"),
    ],
)
async def test_a_sandbox_that_cannot_be_made_is_told(desk: MakeAgent, fields: Any, said: str) -> None:
    with pytest.raises((Unavailable, DefinitionInvalid), match=said):
        await init_agent(desk([Reply("x")], **fields), id="t-1")


@pytest.mark.behaviour("harness:init:sandbox")
async def test_the_default_sandbox_is_virtual_and_a_directory_is_resolved_once(desk: MakeAgent) -> None:
    for sandbox in (None, False):
        harness = await init_agent(desk([Reply("x")], sandbox=sandbox, cwd="proj"), id="t-1")
        assert (harness.sandbox.name, harness.sandbox.cwd) == ("virtual", "/workspace/proj")
        await harness.fs.write_file("a.txt", "hello")
        assert (await harness.shell("cat a.txt")).stdout == "hello"
    harness = await init_agent(desk([Reply("x")], sandbox=local()), id="t-1")
    await harness.fs.mkdir("sub")
    inner = await init_agent(desk([Reply("x")], sandbox=local, cwd="sub"), id="t-1")
    assert inner.sandbox.cwd == harness.sandbox.cwd + "/sub"


@pytest.mark.behaviour("harness:init:errors")
async def test_an_initialiser_that_fails_raises_and_names_may_not_clash(desk: MakeAgent) -> None:
    with pytest.raises(ZeroDivisionError):
        await init_agent(create_agent(lambda: {"model": 1 / 0}, name="x"), id="1")
    for name in ("read", "task", "activate_skill", "bash"):
        with pytest.raises(DefinitionInvalid, match=name):
            await init_agent(
                desk([Reply("x")], tools=[define_tool(name, lambda a: "", description="d", parameters={})]), id="1"
            )
    with pytest.raises(DefinitionInvalid, match="an agent is what create_agent returns, not dict"):
        await init_agent({"model": "test/main"}, id="1")  # type: ignore[arg-type]


@pytest.mark.behaviour("harness:session:images")
async def test_images_reach_a_model_that_sees_and_are_an_error_with_one_that_does_not(
    desk: MakeAgent, models: dict[str, ScriptedModel]
) -> None:
    image = PromptImage.of(b"\x89PNG", "image/png")
    harness = await init_agent(desk([Reply("A dot."), Reply("Go on.")]), id="t-1")
    session = await harness.session()
    assert (await session.prompt("What is it?", images=[image])).text == "A dot."
    assert ImagePart(image.data, "image/png") in shown(models["main"].requests[0])
    assert (await session.task("And this?", images=[{"type": "image", "data": "AA==", "mimeType": "image/gif"}])).text
    assert ImagePart("AA==", "image/gif") in shown(models["main"].requests[-1])
    models["blind"] = ScriptedModel([Reply("x")], images=False)
    with pytest.raises(AgentFailed, match="takes no images"):
        await session.prompt("What is it?", images=[image], model="test/blind")
    for wrong in ("x", PromptImage("no base64!", "image/png"), PromptImage("AA==", "text/plain")):
        with pytest.raises(InvalidInput, match="images: "):
            await session.prompt("What is it?", images=[wrong])


@pytest.mark.behaviour("harness:session:compact")
async def test_a_conversation_is_compacted_on_request(desk: MakeAgent, models: dict[str, ScriptedModel]) -> None:
    def script(request: ModelRequest) -> Reply:
        return Reply("Summed up." if "summar" in request.system.lower() else "Word " * 2_000)

    session = await (await init_agent(desk(script, compaction={"keep_recent_tokens": 100}), id="t-1")).session()
    await session.compact()
    assert models["main"].requests == []
    for n in range(3):
        await session.prompt(f"Tell {n}")
    compacting = asyncio.create_task(session.compact())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(SessionBusyError):
        await session.compact()
    await compacting
    said = texts(await session.history())
    assert "Summed up." in said[0]
    assert (await session.prompt("Go on")).text.startswith("Word")
