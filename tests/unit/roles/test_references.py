"""References: what a model sees of a value, how much more it may see, and what a tool gets."""

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from flux.agents.define.called import code_tool
from flux.agents.plans.source import model_check
from flux.errors import InvalidInput
from flux.roles import Ref, define_tool
from flux.tools.base import Done, Failed, ToolContext, ToolOutcome
from flux.tools.references import MOST_CHARS, as_handles, encoded, part

TABLE = [{"sku": f"s{n}", "count": n, "note": "x" * 200} for n in range(50)]


class Kept:
    """What calls keep, as a session would."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, bytes]] = {}

    def context(self) -> ToolContext:
        nothing: Any = None
        return ToolContext("s", "c", nothing, lambda text: None, recall=self.recall, keep=self.keep)

    async def keep(self, content: bytes, media_type: str) -> str:
        id = f"00000000-0000-0000-0000-{len(self.values):012}"
        self.values[id] = media_type, content
        return f"artifact://{id}"

    async def recall(self, id: str) -> tuple[str, bytes]:
        if id not in self.values:
            raise FileNotFoundError(id)
        return self.values[id]


async def called(kept: Kept, function: Any, **args: Any) -> ToolOutcome:
    return await code_tool(define_tool("t", function, description="T.")).run(args, kept.context())


@pytest.mark.behaviour("roles:references:glimpse")
@pytest.mark.parametrize(
    ("ref", "seen"),
    [
        (Ref("table", TABLE), {"rows": 50, "columns": ["sku", "count", "note"], "all_columns": 3}),
        (Ref("text", "one\ntwo"), {"lines": 2, "characters": 7, "first": ["one", "two"]}),
        (Ref("bytes", b"\x00\xff"), {"size_bytes": 2, "first": "00 ff"}),
        (Ref("json", {"a": [1]}), {"type": "object", "keys": ["a"], "preview": '{"a":[1]}'}),
        (Ref("json", [1, 2]), {"type": "array", "items": 2}),
    ],
)
async def test_a_model_sees_a_typed_handle_and_a_glimpse(ref: Ref, seen: dict[str, Any]) -> None:
    kept = Kept()
    outcome = await called(kept, lambda: ref)
    assert isinstance(outcome, Done)
    told = msgspec.json.decode(outcome.content)
    assert told["ref"].startswith(f"ref:{ref.kind}:")
    assert told.items() >= {"kind": ref.kind, **seen}.items()
    assert len(outcome.content) < 2_000


@pytest.mark.behaviour("roles:references:resolved")
async def test_a_tool_gets_the_value_that_the_model_did_not_read() -> None:
    kept = Kept()
    given = await called(kept, lambda: Ref("table", TABLE))
    assert isinstance(given, Done)
    handle = msgspec.json.decode(given.content)["ref"]

    def total(table: Ref) -> int:
        return sum(row[1] for row in table.value["rows"])

    assert await called(kept, total, table=handle) == Done("1225")
    for wrong in ("ref:table:00000000-0000-0000-0000-000000000009", handle.replace("table", "json"), "x"):
        outcome = await called(kept, total, table=wrong)
        assert isinstance(outcome, Failed)
        assert "there is no reference" in outcome.content


@pytest.mark.behaviour("roles:references:more")
def test_more_is_shown_up_to_a_cap() -> None:
    table = Ref("table", TABLE)
    some = msgspec.json.decode(part(table, 10, 2, ["count"], ""))
    assert some["first"] == [[10], [11]]
    with pytest.raises(LookupError, match="has no column 'colour'"):
        part(table, 0, 1, ["colour"], "")
    assert len(part(table, 0, 1000, [], "")) < MOST_CHARS + 100
    assert msgspec.json.decode(part(Ref("text", "a\nb\nc"), 1, 1, [], ""))["text"] == "b"
    assert msgspec.json.decode(part(Ref("json", {"a": {"b": [5, 6]}}), 1, 1, [], "a.b"))["value"] == [6]
    assert msgspec.json.decode(part(Ref("json", {"a": 1, "b": 2}), 1, 5, [], ""))["value"] == {"b": 2}
    with pytest.raises(LookupError, match="has no 'z'"):
        part(Ref("json", {}), 0, 1, [], "z")
    assert "cut:" in part(Ref("text", "x" * 50_000), 0, 1, [], "")
    assert msgspec.json.decode(part(Ref("bytes", b"abc"), 1, 1, [], ""))["hex"] == "62 63"


@pytest.mark.behaviour("roles:references:kinds")
@pytest.mark.parametrize("wrong", [("table", 3), ("text", 3), ("bytes", "x"), ("table", [1]), ("picture", 1)])
def test_a_value_that_is_not_of_its_kind_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="Ref:"):
        encoded(Ref(*wrong))


class Report(BaseModel):
    rows: Ref
    more: list[Ref] = []


@pytest.mark.behaviour("roles:references:of-actions")
async def test_what_is_told_of_a_reference_stands_for_it_where_one_is_taken() -> None:
    def total(table: Ref, note: Any, more: list[Ref]) -> int:
        """Add up."""
        return len(table.value["rows"]) + len(more)

    kept = Kept()
    fetched = await called(kept, lambda: Ref("table", TABLE))
    assert isinstance(fetched, Done)
    told = msgspec.json.decode(fetched.content)
    parameters = define_tool("total", total).parameters
    args = as_handles(parameters, {"table": told, "note": told, "more": [told, told]})
    assert args == {"table": told["ref"], "note": told, "more": [told["ref"], told["ref"]]}
    assert await called(kept, total, **args) == Done("52")


@pytest.mark.behaviour("roles:references:of-actions")
def test_a_plan_may_hold_handles_that_nobody_has_looked_up() -> None:
    handle = "ref:table:00000000-0000-0000-0000-000000000000"
    check = model_check(Report)
    assert check({"rows": handle, "more": [handle]}) == []
    assert check({"rows": "the table"}) == ["`rows`: there is no reference 'the table' in this session"]
