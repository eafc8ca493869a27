"""Tools of Python files: stored in the definition, loaded where they run."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flux.errors import DefinitionInvalid
from flux.events import ContextFrozen, RunFailed, ToolDone
from flux.settings import ApiKeys, Auth
from flux.store.database import LOCAL
from flux.testing import Call, Reply
from tests.integration.agents.tools import Bench
from tests.integration.agents.world import World, of, opened, outcomes

SHOP = '''
from dataclasses import dataclass
from flux import task

PRICES = {"tea": 3, "cake": 5}

@dataclass
class Line:
    item: str
    count: int = 1

@task.with_options(effect="read")
async def price(item: str) -> int:
    """What an item costs.

    Args:
        item: Its name.
    """
    return PRICES[item]

@task
def total(lines: list[Line]) -> dict[str, int]:
    """The sum of an order."""
    return {"total": sum(PRICES[line.item] * line.count for line in lines)}

@task.with_options(name="refund", requires_approval=lambda amount, reason="none": amount > 10)
async def _refund(amount: int, reason: str = "none") -> None:
    """Give money back."""

@task.with_options(timeout=0.05)
async def wait() -> str:
    """Never end."""
    import asyncio
    await asyncio.Event().wait()

@task
async def nested(item: str) -> str:
    """Call another tool."""
    return f"{await price(item)} each"

async def helper(x):
    return x
'''


#: Where they run: in the worker, and where people are told apart in a process of their own.
BOTH = pytest.mark.parametrize("world", ["here", "apart"], indirect=True)


@pytest.fixture
async def world(tmp_path: Path, bench: Bench, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    auth = Auth(api_keys=ApiKeys(enabled=getattr(request, "param", "here") == "apart"))
    async with opened(tmp_path, bench.tools(), run_failures=2, auth=auth) as opened_world:
        yield opened_world


def calling(*calls: Call) -> list[Reply]:
    return [*(Reply("", calls=(call,)) for call in calls), Reply("done")]


def file(source: str, name: str = "shop.py") -> dict[str, str]:
    return {"name": name, "source": source}


@BOTH
@pytest.mark.behaviour("toolfiles:run:called")
@pytest.mark.parametrize("fields", [{"tools_file": file(SHOP)}, {"tools": [{"file": file(SHOP)}, "ask_user"]}])
async def test_every_task_of_a_file_is_a_tool(world: World, fields: dict[str, Any]) -> None:
    script = calling(
        Call("price", {"item": "tea"}),
        Call("total", {"lines": [{"item": "tea", "count": "2"}, {"item": "cake"}]}),
        Call("refund", {"amount": 5}),
        Call("nested", {"item": "cake"}),
        Call("price", {"item": "gold"}),
        Call("total", {"lines": [{"itm": "tea"}]}),
        Call("wait"),
    )
    await world.agent(script, **fields)
    log = await world.ask("go")
    offered = {tool["name"]: tool for tool in of(log, ContextFrozen)[0].tools}
    assert set(offered) - {"ask_user"} == {"price", "total", "refund", "wait", "nested"}
    assert offered["price"]["description"] == "What an item costs."
    assert offered["price"]["parameters"]["properties"] == {"item": {"type": "string", "description": "Its name."}}
    assert offered["refund"]["parameters"]["required"] == ["amount"]
    results = [done.content for done in of(log, ToolDone)]
    assert results[:5] == ["3", '{"total":11}', "null", "5 each", "KeyError: 'gold'"]
    assert "itm" in results[5]
    assert results[6] == "wait took longer than its timeout of 0.05 s"
    assert outcomes(log)[6] == ("wait", "timeout")
    assert await world.faults() == []


@BOTH
@pytest.mark.behaviour("toolfiles:run:approval")
async def test_a_task_is_approved_by_its_arguments(world: World) -> None:
    await world.agent(calling(Call("refund", {"amount": 50})), tools_file=file(SHOP))
    await world.ask("go")
    (question,) = await world.questions()
    await world.answer(question, "reject")
    await world.rest("idle")
    assert outcomes(await world.log()) == [("refund", "denied")]
    assert await world.faults() == []


@BOTH
@pytest.mark.behaviour("toolfiles:run:approval")
async def test_a_rule_that_fails_asks(world: World) -> None:
    source = (
        "from flux import task\n@task.with_options(requires_approval=lambda n: n['x'])\nasync def pay(n: int): return n"
    )
    await world.agent(calling(Call("pay", {"n": 1})), tools_file=file(source))
    await world.ask("go")
    (question,) = await world.questions()
    await world.answer(question, "approve")
    await world.rest("idle")
    assert outcomes(await world.log()) == [("pay", "success")]


LONG = '''
from flux import pause, task

DONE = []

@task
async def book(room: str) -> int:
    """An effect."""
    DONE.append(room)
    return len(DONE)

@task.with_options(secret_requests=["KEY"], config_requests=["place"], metadata=True)
async def order(room: str, secrets: dict, config: dict, metadata) -> str:
    """Book a room when somebody says so."""
    number = await book(room)
    said = await pause("which floor", output={"room": room})
    return f"{number} {secrets['KEY'].upper()} {config['place']} {metadata.task_name} {said} {DONE}"
'''


@BOTH
@pytest.mark.behaviour("toolfiles:run:durable")
async def test_a_tool_pauses_for_days_and_repeats_nothing(world: World) -> None:
    await world.process.secrets.set(LOCAL, "KEY", "s3cret")
    await world.process.configs.set(LOCAL, "place", "Bonn")
    await world.agent(calling(Call("order", {"room": "7"})), tools_file=file(LONG))
    log = await world.ask("go")
    offered = {tool["name"]: tool["parameters"] for tool in of(log, ContextFrozen)[0].tools}
    assert list(offered["order"]["properties"]) == ["room"]
    (question,) = await world.questions()
    await world.answer(question, "answer", content="top")
    await world.rest("idle")
    (done,) = of(await world.log(), ToolDone)
    assert done.content == "1 S3CRET Bonn order top ['7']"
    assert await world.faults() == []


@pytest.mark.behaviour("toolfiles:run:unusable")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import no_such_module", "it imports 'no_such_module', which is not installed on this worker"),
        ("1 / 0", "it fails when it is loaded: line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "it fails when it is loaded: line 2: SystemExit"),
        ("def task(f): return f", "when it is loaded, it has no task pay"),
        ("class N: pass", "pay: an argument has a type that JSON cannot carry"),
        ("N = 'Unknown'", "line 4: the type hints of pay cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_loaded_fails_the_run_and_not_the_session(
    world: World, body: str, message: str
) -> None:
    source = f"from flux import task\n{body}\n@task\nasync def pay(n: N): return n"
    await world.agent([Reply("hi")], tools_file=file(source if "N" in body else source.replace("n: N", "n: int")))
    for count in (1, 2):
        failed = of(await world.ask("go"), RunFailed)
        assert len(failed) == count
        assert message in failed[-1].message
        assert "\n" not in failed[-1].message
        assert await world.faults() == []


TASK = "from flux import task\n@task\n"


@pytest.mark.behaviour("toolfiles:create:checked")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "tools_file.source: "),
        ("def x(", "shop.py: the source does not parse: line 1, column 6: '(' was never closed"),
        ("x = 1\0", "the source does not parse"),
        ("x = " + "(" * 3000, "the source does not parse"),
        ("from flux import task\ndef x(): pass", "shop.py: it declares no tool: decorate a function"),
        (TASK + "def x(n): pass", "shop.py: line 3: tool 'x': the argument 'n' needs a type hint, as in n: str"),
        (TASK + "def x(*n: int): pass", "give each argument a name; 'n' has none for a model"),
        (TASK + "def x(**n: int): pass", "give each argument a name; 'n' has none for a model"),
        (TASK + "def x(n: int, /): pass", "give each argument a name; 'n' has none for a model"),
        (
            "from typing import Callable\n" + TASK + "def x(n: list[Callable[[], int]]): pass",
            "no model can write a list[Callable[[], int]], the type of 'n'",
        ),
        (TASK + "def x(): pass\n@task\ndef x(): pass", "line 5: it declares the tool x twice; rename one of them"),
        (TASK + "def _x(): pass", "tool '_x': its name must be a letter, then"),
        (TASK.replace("@task", "@task()") + "def x(): pass", "write the decorator as @task or @task.with_options(…)"),
        (
            TASK.replace("@task", "@task.with_options(effct='read')") + "def x(): pass",
            "line 2: tool 'x': unknown option 'effct'; did you mean 'effect'?",
        ),
        (TASK.replace("@task", "@task.with_options(effect='reed')") + "def x(): pass", "effect must be one of read, "),
        (TASK.replace("@task", "@task.with_options(name=NAME)") + "def x(): pass", "name: must be written out"),
        (TASK.replace("@task", "@task.with_options(**more)") + "def x(): pass", "options cannot be unpacked with **"),
        (TASK + "def look(n: int): pass", "shop.py: line 3: the agent has another tool look; rename this one"),
        (TASK + "def use_skill(n: int): pass", "the agent has another tool use_skill"),
        (TASK + "def mcp__a__b(n: int): pass", "the agent has another tool mcp__a__b"),
    ],
)
async def test_what_no_model_could_call_is_refused_where_it_is_created(world: World, source: str, message: str) -> None:
    with pytest.raises(DefinitionInvalid) as caught:
        await world.agent([Reply("")], tools=["look"], tools_file=file(source))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.behaviour("toolfiles:create:checked")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools_file": "./shop.py"}, "tools_file: what is stored is a name and a text, {name, source}; `flux agent"),
        ({"tools": [{"file": "./shop.py"}]}, "tools: file: what is stored is a name and a text, {name, source}"),
        ({"tools": [{"file": file(SHOP, "a.py")}, {"file": file(SHOP + "#", "b.py")}]}, "b.py: line "),
        ({"tools_file": file(SHOP), "tool_approvals": {"pric": True}}, "unknown tool 'pric'; did you mean 'price'?"),
    ],
)
async def test_files_are_checked_together(world: World, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionInvalid) as caught:
        await world.agent([Reply("")], **fields)
    assert message in str(caught.value)


@pytest.mark.behaviour("toolfiles:create:checked")
async def test_the_same_file_counts_once_and_its_tools_have_rules(world: World) -> None:
    await world.agent(
        calling(Call("price", {"item": "tea"})),
        tools=[{"file": file(SHOP, "a.py")}, {"file": file(SHOP, "b.py")}],
        tools_file=file(SHOP),
        tool_approvals={"price": True},
    )
    await world.ask("go")
    assert len(await world.questions()) == 1
