"""The event vocabulary: what is written is read again, by this version and by the next."""

import json
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux import events
from flux.deltas import DELTA_TYPES, SubagentDelta, decode_delta
from flux.errors import DatabaseTooNew
from flux.events import ENTRY_TYPES, CancelRequested, DeltaEvent, Entry, Token, UnknownEntry, decode, encode, type_of

TRIES = ("RETRY", "FALLBACK", "ROLLBACK")
ENTRY_NAMES = [
    "session_started",
    "user_message",
    "run_started",
    "context",
    "model_failed",
    "assistant_message",
    "gate",
    "tool_start",
    "tool_done",
    "tool_waiting",
    "approval_required",
    "elicitation",
    "input_required",
    "plan_review",
    "pause",
    "interrupt_answered",
    "chat_response",
    "error",
    "cancelled",
    "cancel_requested",
    "plan",
    "typed_plan",
    "subagent",
    "child_done",
    "compaction",
    "compact_requested",
    "compact_done",
    "usage",
    "forked",
    "session_end",
    *(f"WORKFLOW_{state}" for state in ("SCHEDULED", "CLAIMED", "STARTED", "PAUSED", "RESUMED")),
    *(f"WORKFLOW_{end}" for end in ("COMPLETED", "FAILED", "CANCELLED")),
    *(f"TASK_{state}" for state in ("STARTED", "COMPLETED", "FAILED", "CANCELLED")),
    *(f"TASK_{try_}_{state}" for try_ in TRIES for state in ("STARTED", "COMPLETED", "FAILED")),
]
DELTA_NAMES = ["token", "reasoning", "tool_output", "progress", "subagent_delta"]

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def values(type_: Any) -> st.SearchStrategy[Any]:
    """Values of a field as they can come up: JSON where anything goes, no NaN, which JSON lacks."""
    if type_ is Any:
        return JSON
    if type_ is float:
        return FINITE
    if type_ is int:
        return st.integers(-(2**63), 2**63 - 1)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return structs(type_)
    origin, arguments = getattr(type_, "__origin__", None), get_args(type_)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), values(arguments[1]), max_size=3)
    if arguments and origin is None:
        return st.one_of(*map(values, arguments))
    return st.from_type(type_)


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = {field.name: field.type for field in msgspec.structs.fields(cls) if field.name != "v"}
    if cls is SubagentDelta:
        fields["event"] = Token  # any delta, which may be one of these again
    return st.builds(cls, **{name: values(type_) for name, type_ in fields.items()})


@pytest.mark.behaviour("events:entries:wire-names")
def test_the_wire_names_are_those_of_the_contract() -> None:
    assert sorted(ENTRY_TYPES) == sorted(ENTRY_NAMES)
    assert sorted(DELTA_TYPES) == sorted(DELTA_NAMES)


@pytest.mark.behaviour("events:entries:round-trip")
@pytest.mark.parametrize("name", ENTRY_NAMES)
@MANY
@given(data=st.data())
def test_every_entry_is_read_as_it_was_written(name: str, data: st.DataObject) -> None:
    entry = data.draw(structs(ENTRY_TYPES[name]))
    body = encode(entry)
    assert decode(body) == decode(body.decode()) == entry
    assert type_of(entry) == name
    written = json.loads(body)
    assert (written["type"], written["v"]) == (name, ENTRY_TYPES[name].version)
    assert b"\n" not in body


@pytest.mark.behaviour("events:deltas:round-trip")
@pytest.mark.parametrize("name", DELTA_NAMES)
@MANY
@given(data=st.data())
def test_every_delta_is_read_as_it_was_written(name: str, data: st.DataObject) -> None:
    delta: DeltaEvent = data.draw(structs(DELTA_TYPES[name]))
    assert decode_delta(encode(delta)) == delta
    assert type_of(delta) == name


@pytest.mark.behaviour("events:entries:unknown-type")
@MANY
@given(st.text().filter(lambda name: name not in ENTRY_TYPES), st.dictionaries(st.text(), JSON))
def test_an_entry_of_an_unknown_type_is_passed_on_as_it_is(name: str, fields: dict[str, Any]) -> None:
    data = fields | {"type": name, "v": 7}
    entry = decode(json.dumps(data))
    assert entry == UnknownEntry(name, data)
    assert type_of(entry) == name
    assert json.loads(encode(entry)) == data


@pytest.mark.behaviour("events:entries:unknown-field")
def test_a_field_this_version_does_not_know_is_no_error() -> None:
    entry = decode('{"type": "cancel_requested", "v": 1, "run": "r", "colour": "blue"}')
    assert entry == CancelRequested(run="r")


@pytest.mark.behaviour("events:entries:newer-version")
@pytest.mark.parametrize("name", ENTRY_NAMES)
def test_an_entry_of_a_newer_format_is_refused_by_name(name: str) -> None:
    with pytest.raises(DatabaseTooNew, match=name):
        decode(json.dumps({"type": name, "v": ENTRY_TYPES[name].version + 1}))


@pytest.mark.behaviour("events:entries:older-version")
def test_an_older_entry_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if format 1 had named the run `id`, and format 2 had no `by`."""

    def to_2(body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name != "id"} | {"run": body["id"]}

    def to_3(body: dict[str, Any]) -> dict[str, Any]:
        return body | {"by": f"somebody who stopped {body['run']}"}

    steps: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
        ("cancel_requested", 1): to_2,
        ("cancel_requested", 2): to_3,
    }
    monkeypatch.setattr(CancelRequested, "version", 3)
    monkeypatch.setattr(events, "UPCASTS", steps)
    expected = CancelRequested(v=3, run="r", by="somebody who stopped r")
    assert decode('{"type": "cancel_requested", "id": "r"}') == expected
    assert decode('{"type": "cancel_requested", "v": 1, "id": "r"}') == expected
    assert decode('{"type": "cancel_requested", "v": 2, "run": "r"}') == expected
    assert decode('{"type": "cancel_requested", "v": 3, "run": "r", "by": "ann"}') == CancelRequested(
        v=3, run="r", by="ann"
    )


@pytest.mark.behaviour("events:entries:older-version")
def test_every_older_format_has_its_step() -> None:
    steps = {(name, version) for name, cls in ENTRY_TYPES.items() for version in range(1, cls.version)}
    assert set(events.UPCASTS) == steps


@pytest.mark.behaviour("events:entries:any-value")
def test_what_json_does_not_know_is_written_as_text() -> None:
    entry = events.Paused(id="p", name="n", output={"path": object, "set": {1}})
    decoded = decode(encode(entry))
    assert isinstance(decoded, events.Paused)
    assert decoded.output["path"] == str(object)


@pytest.mark.behaviour("events:entries:any-value")
@pytest.mark.parametrize("number", [2**63, 10**30, -(10**30), float("nan"), float("inf")])
def test_a_number_of_any_size_in_arguments_can_be_written(number: float) -> None:
    """A model may ask for anything; the run must not die of it."""
    args = {"n": number, "nested": [{"n": number}]}
    entry = events.Gated(call="c", verdict="allow", args_digest="d", rule="r", args=args)
    decoded = decode(encode(entry))
    assert isinstance(decoded, Entry)


@pytest.mark.behaviour("events:entries:any-value")
@pytest.mark.parametrize(("text", "read"), [("\ud83d\ude00", "😀"), ("a\udfffb", "a\ufffdb"), ("\ud800", "\ufffd")])
def test_a_character_that_came_in_halves_is_made_whole_or_replaced(text: str, read: str) -> None:
    entry = events.Gated(call="c", verdict="allow", args_digest="d", rule=text, args={text: [text, 1]})
    decoded = decode(encode(entry))
    assert isinstance(decoded, events.Gated)
    assert (decoded.rule, decoded.args) == (read, {read: [read, 1]})
    assert encode(events.Token("m", 1, text)).decode()
