"""Typed plans as values: does one fit its schema, and do its actions make a graph without circles."""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from flux.agents.define.typed_plan import TypedPlan
from flux.errors import PlanInvalid
from flux.suggest import unknown
from flux.tools.schema import validate

#: What stands for the result of another action in a field of an action.
RESULT_OF: dict[str, Any] = {
    "title": "ResultOf",
    "description": "The result of another action of the plan, or what is at `path` in it, such as `item.id`.",
    "type": "object",
    "properties": {"result_of": {"type": "string"}, "path": {"type": "string"}},
    "required": ["result_of"],
    "additionalProperties": False,
}
_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
#: What every action has, also where its schema does not say so.
EVERY: dict[str, Any] = {"type": {"type": "string"}, "id": _TEXT, "depends_on": {"type": "array", "items": _TEXT}}
COMMON = frozenset(EVERY)
MOST_ACTIONS = 200


class Action(Struct, frozen=True):
    """One action of a plan: its arguments, and the ids of those that must be done before."""

    id: str
    type: str
    args: dict[str, Any]
    needs: tuple[str, ...]


class Checked(Struct, frozen=True):
    """A plan that fits: its value with repaired fields, its actions in the order of the plan, and its digest."""

    value: dict[str, Any]
    actions: tuple[Action, ...]

    @property
    def digest(self) -> str:
        """The identity of the plan; what an approval is bound to."""
        return digest_of(self.value)


def digest_of(value: Mapping[str, Any]) -> str:
    """The identity of a plan's content."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:32]


def check_plan(kind: TypedPlan, value: Mapping[str, Any]) -> Checked:
    """A plan of this kind.

    :raises PlanInvalid: it does not fit; each fault is told with its path
    """
    faults: list[str] = []
    whole = validate(_outer(kind), value)
    faults += whole.errors
    made, actions = dict(whole.args), list[tuple[str, dict[str, Any]]]()
    for field in kind.lists:
        given = made.get(field)
        items: list[Any] = given if isinstance(given, list) else []
        for n, item in enumerate(items):
            path = f"{field}.{n}"
            checked, wrong = _checked_action(kind, item)
            faults += [_under(path, fault) for fault in wrong]
            if isinstance(checked, dict):
                items[n] = checked
                actions.append((path, checked))
    faults = list(dict.fromkeys([*faults, *_ids(actions)]))
    if not faults and not actions:
        faults.append(f"a plan needs at least one action in {' or '.join(kind.lists)}")
    if len(actions) > MOST_ACTIONS:
        faults.append(f"a plan may have {MOST_ACTIONS} actions, this one has {len(actions)}")
    if faults:
        raise PlanInvalid("; ".join(faults), faults=faults)
    return Checked(made, _ordered([_action(item) for _, item in actions], actions))


def actions_of(kind: TypedPlan, value: Mapping[str, Any]) -> tuple[Action, ...]:
    """The actions of a plan that was checked, in its order."""
    return tuple(_action(item) for field in kind.lists for item in value.get(field, ()))


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Every reference to a result in a value: the id, and the path in that result."""
    if isinstance(value, Mapping):
        if is_reference(value):
            yield str(value["result_of"]), str(value.get("path") or "")
            return
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from references(inner)


def is_reference(value: Any) -> bool:
    """Whether a value stands for the result of another action."""
    return isinstance(value, Mapping) and "result_of" in value and set(value) <= {"result_of", "path"}


def with_results(value: Any, results: Mapping[str, Any]) -> Any:
    """A value with the results in the place of the references to them.

    :raises PlanInvalid: a result does not have what a path names
    """
    if is_reference(value):
        return _at(results[str(value["result_of"])], str(value["result_of"]), str(value.get("path") or ""))
    if isinstance(value, Mapping):
        return {key: with_results(inner, results) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_results(inner, results) for inner in value]
    return value


def _at(result: Any, id: str, path: str) -> Any:
    found = result
    for part in [part for part in path.split(".") if part]:
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PlanInvalid(f"the result of {id} has no {path!r}") from error
    return found


def _outer(kind: TypedPlan) -> dict[str, Any]:
    """The schema of a plan without its actions, each of which is checked by itself: that tells more."""
    schema = kind.json_schema
    item = {"type": "object", "properties": EVERY, "required": ["type", "id"]}
    properties = dict(schema.get("properties", {}))
    for field in kind.lists:
        properties[field] = {**_without_items(properties.get(field, {})), "items": item}
    return {**schema, "properties": properties}


def _without_items(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("items", "anyOf")}


def _checked_action(kind: TypedPlan, item: Any) -> tuple[Any, tuple[str, ...]]:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        return item, ()  # the schema of the whole has said so
    definition = _definition(kind, item["type"])
    if definition is None:
        return item, (f"`type`: {unknown('action', item['type'], kind.actions)}",)
    shape = {"properties": {**EVERY, **definition["properties"]}, "$defs": kind.json_schema.get("$defs", {})}
    found = validate({**definition, **shape}, item)
    return found.args, found.errors


def _definition(kind: TypedPlan, type: str) -> dict[str, Any] | None:
    for one in kind.json_schema.get("$defs", {}).values():
        if one.get("properties", {}).get("type", {}).get("const") == type:
            found: dict[str, Any] = one
            return found
    return None


def _under(path: str, fault: str) -> str:
    return f"`{path}.{fault[1:]}" if fault.startswith("`") else f"`{path}`: {fault}"


def _ids(actions: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    ids = [str(item.get("id")) for _, item in actions]
    for n, (path, item) in enumerate(actions):
        if ids.index(ids[n]) != n:
            yield f"`{path}.id`: {ids[n]!r} is the id of {actions[ids.index(ids[n])][0]} too"
        needed = item.get("depends_on")
        for other in needed if isinstance(needed, list) else ():
            if other not in ids:
                yield f"`{path}.depends_on`: {unknown('action', str(other), ids)}"
        for other, _ in references({key: value for key, value in item.items() if key not in COMMON}):
            if other not in ids:
                yield f"`{path}`: result_of: {unknown('action', other, ids)}"


def _action(item: Mapping[str, Any]) -> Action:
    args = {key: value for key, value in item.items() if key not in COMMON}
    needed = (*item.get("depends_on", ()), *(id for id, _ in references(args)))
    return Action(str(item["id"]), str(item["type"]), args, tuple(dict.fromkeys(map(str, needed))))


def _ordered(made: list[Action], paths: list[tuple[str, dict[str, Any]]]) -> tuple[Action, ...]:
    try:
        graphlib.TopologicalSorter({action.id: action.needs for action in made}).prepare()
    except graphlib.CycleError as error:
        said = f"these actions wait for each other: {' -> '.join(reversed(error.args[1]))}"
        raise PlanInvalid(said, faults=[said]) from error
    return tuple(made)
