"""create_agent, profiles and tools: what they take, how they are put together, and what they refuse by name."""

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import flux
from flux import (
    AgentCreateContext,
    AgentProfile,
    AgentRuntimeConfig,
    CancelSignal,
    CompactionConfig,
    Skill,
    ToolCallContext,
    ToolDefinition,
    create_agent,
    define_agent_profile,
    define_tool,
    load_skill,
    tool,
)
from flux.agents.define.agent import Resolved, extended, resolve
from flux.errors import DefinitionInvalid


def named(name: str) -> ToolDefinition:
    return define_tool(name, lambda args: name, description=f"It is {name}.", parameters={})


def resolved(made: Any) -> Resolved:
    return asyncio.run(resolve(create_agent(lambda: made, name="desk"), AgentCreateContext("1")))


@pytest.mark.behaviour("harness:define:profile")
def test_a_profile_keeps_what_it_was_given_and_cannot_change() -> None:
    profile = define_agent_profile(
        {"name": "reviewer", "model": "anthropic/claude", "compaction": {"keep_recent_tokens": 100}},
        instructions="Review.",
        subagents=[{"name": "helper"}],
        thinking_level="high",
    )
    assert (profile.name, profile.model, profile.instructions) == ("reviewer", "anthropic/claude", "Review.")
    assert profile.compaction == CompactionConfig(keep_recent_tokens=100)
    assert profile.subagents == (AgentProfile(name="helper"),)
    with pytest.raises(ValueError, match="frozen"):
        profile.model = "other/model"


@pytest.mark.behaviour("harness:define:refused")
@pytest.mark.parametrize(
    ("fields", "said", "field"),
    [
        ({"instrucions": "x"}, "unknown field 'instrucions'; did you mean 'instructions'?", "instrucions"),
        ({"subagents": [{"name": "a", "modle": "x"}]}, "did you mean 'subagents.0.model'?", "subagents"),
        ({"compaction": {"reserv_tokens": 1}}, "did you mean 'compaction.reserve_tokens'?", "compaction"),
        ({"compaction": True}, "compaction: must be False or a CompactionConfig", "compaction"),
        ({"name": "1a"}, "name: '1a' must be a letter", "name"),
        ({"model": "gpt"}, "model: 'gpt' must be provider/model", "model"),
        ({"thinking_level": "hihg"}, "thinking_level: should be 'off'", "thinking_level"),
        ({"tools": [len]}, "tools.0: must be a tool of define_tool or @tool", "tools"),
        ({"tools": "bash"}, "tools: must be a list, not str", "tools"),
        ({"tools": [named("x"), named("x")]}, "tools: 'x' is given twice", "tools"),
        ({"skills": [{"name": "x"}]}, "missing field 'skills.0.description'", "skills"),
        ({"skills": [Skill(name="x", description="d")] * 2}, "skills: 'x' is given twice", "skills"),
        ({"subagents": [{"name": "x"}, {"name": "x"}]}, "subagents: 'x' is given twice", "subagents"),
        ({"subagents": [{}]}, "subagents: the one at 0 has no name", "subagents"),
    ],
)
def test_a_profile_refuses_what_is_wrong_by_its_field(fields: dict[str, Any], said: str, field: str) -> None:
    with pytest.raises(DefinitionInvalid) as refused:
        define_agent_profile(fields)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.details == {"field": field}


@pytest.mark.behaviour("harness:define:refused")
def test_sub_agents_cannot_go_round_in_a_circle() -> None:
    inner: dict[str, Any] = {"name": "inner"}
    outer = {"name": "outer", "subagents": [inner]}
    inner["subagents"] = [outer]
    with pytest.raises(DefinitionInvalid, match="inner -> outer -> inner is a circle"):
        define_agent_profile(name="top", subagents=[inner])


@pytest.mark.behaviour("harness:define:merge")
def test_given_fields_replace_those_of_the_profile_and_lists_are_added() -> None:
    profile = define_agent_profile(
        name="base",
        model="a/b",
        instructions="Base.",
        tools=[named("one")],
        thinking_level="low",
        compaction=False,
        subagents=[{"name": "helper"}],
    )
    found = resolved({"profile": profile, "instructions": None, "tools": [named("two")], "cwd": "/srv"})
    assert (found.name, found.model, found.instructions, found.cwd) == ("desk", "a/b", "", "/srv")
    assert [one.name for one in found.tools] == ["one", "two"]
    assert (found.thinking_level, found.compaction) == ("low", False)
    more = extended(found, tools=[named("three")], subagents=[define_agent_profile(name="critic")])
    assert [one.name for one in more.tools] == ["one", "two", "three"]
    assert [one.name for one in more.subagents] == ["helper", "critic"]
    assert resolved(profile).instructions == "Base."
    assert resolved(AgentRuntimeConfig(model=False)).model is False


@pytest.mark.behaviour("harness:define:merge")
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, "agent desk: model is missing"),
        ({"profile": define_agent_profile(name="p")}, "agent desk: model is missing"),
        ({"model": None}, "agent desk: model is missing"),
        ({"model": "a/b", "sandbx": 1}, "agent desk: unknown field 'sandbx'; did you mean 'sandbox'?"),
        ({"model": "a/b", "name": "x"}, "agent desk: unknown field 'name'"),
        ({"model": "a/b", "sandbox": 3}, "agent desk: sandbox: must be False"),
        (3, "agent desk: its initialiser returned int"),
        (
            {"model": "a/b", "profile": define_agent_profile(tools=[named("x")]), "tools": [named("x")]},
            "agent desk: tools: 'x' is given twice",
        ),
    ],
)
def test_the_merged_whole_is_checked(made: Any, said: str) -> None:
    with pytest.raises(DefinitionInvalid, match="^" + said.replace("?", r"\?")):
        resolved(made)


@pytest.mark.behaviour("harness:define:merge")
def test_what_comes_later_is_checked_too() -> None:
    found = resolved({"model": "a/b", "tools": [named("x")]})
    with pytest.raises(DefinitionInvalid, match="agent desk: tools: 'x' is given twice"):
        extended(found, tools=[named("x")])
    with pytest.raises(DefinitionInvalid, match="agent desk: skills: must be a list"):
        extended(found, skills="x")


@pytest.mark.behaviour("harness:define:agent")
def test_an_initialiser_is_called_for_each_instance() -> None:
    seen: list[str] = []

    async def build(ctx: AgentCreateContext) -> dict[str, Any]:
        seen.append(ctx.id)
        return {"model": "a/b", "instructions": f"Case {ctx.id}, {ctx.env['region']}, {ctx.payload}."}

    agent = create_agent(build, name="desk")
    first = asyncio.run(resolve(agent, AgentCreateContext("t-1", {"region": "eu"}, 7)))
    asyncio.run(resolve(agent, AgentCreateContext("t-2", {"region": "eu"})))
    assert first.instructions == "Case t-1, eu, 7."
    assert seen == ["t-1", "t-2"]


@pytest.mark.behaviour("harness:define:agent")
def test_an_agent_is_called_as_its_file() -> None:
    agent = create_agent(lambda ctx: {"model": "a/b"})
    assert (agent.name, agent.module, agent.file) == ("test_defining", __name__, __file__)
    assert create_agent(lambda: {}, name="desk").name == "desk"
    with pytest.raises(DefinitionInvalid, match="agent: name: '1x' must be a letter"):
        create_agent(lambda: {}, name="1x")
    with pytest.raises(DefinitionInvalid, match="create_agent takes a function, not int"):
        create_agent(3)  # type: ignore[arg-type]
    nowhere: dict[str, Any] = {"__name__": "nowhere", "create_agent": create_agent}
    exec("agent = create_agent(lambda: {})", nowhere)
    with pytest.raises(DefinitionInvalid, match="the module nowhere has no name"):
        _ = nowhere["agent"].name


@pytest.mark.behaviour("harness:define:agent")
def test_two_agents_of_one_file_are_told_apart_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = "create_agent(lambda: {'model': 'a/b'})"
    (tmp_path / "two_agents.py").write_text(f"from flux import create_agent\ndefault = {made}\nother = {made}\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("two_agents")
    assert asyncio.run(resolve(module.default, AgentCreateContext("1"))).name == "two_agents"
    with pytest.raises(DefinitionInvalid, match="would be called two_agents, and have the same sessions"):
        asyncio.run(resolve(module.other, AgentCreateContext("1")))


class Order(BaseModel):
    number: int
    note: str = "none"


@pytest.mark.behaviour("harness:define:tool")
def test_a_tool_has_the_schema_of_its_function_or_the_one_it_was_given() -> None:
    @tool(effect="read", timeout=3)
    async def add(a: int, ctx: ToolCallContext, b: int = 2) -> int:
        """Add two numbers.

        Args:
            a: The first.
        """
        return a + b

    assert (add.name, add.description, add.effect, add.timeout) == ("add", "Add two numbers.", "read", 3)
    assert add.parameters["properties"]["a"] == {"type": "integer", "description": "The first."}
    assert add.parameters["required"] == ["a"]
    assert "ctx" not in add.parameters["properties"]
    order = define_tool("order", lambda args: args, description="d", parameters=Order)
    assert order.invoke({"number": 1}, None, None) == {"number": 1, "note": "none"}  # type: ignore[arg-type]
    both = define_tool("both", lambda args, ctx: (args, ctx), description="d", parameters={"properties": {}})
    assert both.parameters == {"type": "object", "properties": {}}
    assert both.invoke({}, "context", None) == ({}, "context")  # type: ignore[arg-type]


@pytest.mark.behaviour("harness:define:tool")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "no spaces"}, "tool: name: 'no spaces' must be a letter"),
        ({"name": "finish"}, "tool: name: 'finish' is reserved"),
        ({"execute": 3}, "tool x: execute must be a function, not int"),
        ({"effect": "twice"}, "tool x: effect must be one of read, idempotent, once"),
        ({"timeout": 0}, "tool x: timeout must be a number of seconds above 0"),
        ({"requires_approval": 1}, "tool x: requires_approval must be True, False"),
        ({"parameters": {"type": "string"}}, 'tool x: parameters must be a JSON Schema of type "object"'),
        ({"parameters": {"properties": {"a": {"type": "nope"}}}}, "tool x: parameters the schema cannot be used"),
        ({"parameters": 3}, "tool x: parameters must be a JSON Schema"),
        ({"description": " "}, "tool x: description is missing"),
    ],
)
def test_a_tool_refuses_what_is_wrong_by_its_field(change: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {"name": "x", "execute": lambda a: a, "description": "d", "parameters": {}, **change}
    with pytest.raises(DefinitionInvalid, match=said):
        define_tool(fields.pop("name"), fields.pop("execute"), **fields)
    with pytest.raises(DefinitionInvalid, match="unknown option 'efect'"):
        tool(efect="read")  # type: ignore[call-overload]


@pytest.mark.behaviour("harness:define:skill")
def test_a_skill_is_loaded_from_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "triage"
    folder.mkdir()
    (folder / "SKILL.md").write_text("---\nname: triage\ndescription: Sort reports.\n---\nRead each one.\n")
    found = load_skill(folder)
    assert (found.name, found.description) == ("triage", "Sort reports.")
    assert found == load_skill(folder / "SKILL.md")
    profile = define_agent_profile(skills=[found, {"name": "escalate", "description": "Call somebody."}])
    assert [one.name for one in profile.skills] == ["triage", "escalate"]
    assert profile.skills[0].instructions == "Read each one."
    with pytest.raises(DefinitionInvalid, match="it holds no SKILL"):
        load_skill(tmp_path)


@pytest.mark.behaviour("harness:signal")
async def test_a_signal_is_given_once_and_remembers_why() -> None:
    signal, told = CancelSignal(), list[Any]()
    forget = signal.then(told.append)
    signal.then(told.append)
    forget()
    waiting = asyncio.create_task(signal.wait())
    signal.cancel("enough")
    signal.cancel("again")
    await asyncio.wait_for(waiting, 5)
    signal.then(told.append)
    assert (signal.cancelled, signal.reason, told) == (True, "enough", ["enough", "enough"])


@pytest.mark.behaviour("harness:define:lazy")
def test_what_flux_offers_is_found_when_it_is_asked_for() -> None:
    assert all(getattr(flux, name) is not None for name in flux.__all__)
    program = "import sys, flux; print(sorted({'pydantic', 'msgspec', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
