"""Cases that say what an agent must do, and the judgement of what it did. Nothing runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from flux import strict_yaml
from flux.errors import InvalidInput
from flux.suggest import nearest, unknown

Answer = Literal["none", "approve", "reject"]
State = Literal["completed", "waiting", "failed"]


class ExpectedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call that must be made: with at least these arguments."""

    tool: str
    args: dict[str, Any] = {}


class ExpectedText(Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must be like; each given word counts."""

    equals: str | None = None
    contains: str | list[str] = []
    excludes: str | list[str] = []
    matches: str | None = None


class ExpectedPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """What the typed plan must be like: its state, its actions in any order, and how these ended, by id."""

    state: str | None = None
    actions: list[dict[str, Any]] = []
    ended: dict[str, str] = {}


class Expected(Struct, frozen=True, forbid_unknown_fields=True):
    """What must come of a case. `calls` are in this order, others may be between; `no_calls` are never made."""

    state: State = "completed"
    text: ExpectedText | str | None = None
    calls: list[ExpectedCall | str] = []
    no_calls: list[str] = []
    plan: ExpectedPlan | None = None


class Case(Struct, frozen=True, forbid_unknown_fields=True):
    """One case: what is said, how questions are answered, and what must come of it. `timeout` in seconds."""

    name: str
    input: str | list[str]
    expect: Expected
    answer: Answer = "none"
    timeout: Annotated[float, Meta(gt=0)] = 120


class Cases(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of cases and whom they are about: a stored agent, the YAML of one, or a runtime in code."""

    cases: list[Case]
    agent: str | None = None
    file: str | None = None
    runtime: str | None = None


#: Every word that a file of cases may have.
FIELDS = frozenset(
    name for cls in (Cases, Case, Expected, ExpectedText, ExpectedCall, ExpectedPlan) for name in cls.__struct_fields__
)


class Did(Struct, frozen=True):
    """What came of a case: the answer, the state, all tool calls in order, and the plan."""

    text: str = ""
    state: State = "completed"
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    plan: Mapping[str, Any] | None = None
    error: str | None = None


class Verdict(Struct, frozen=True):
    """How a case ended; it has passed when there are no faults. `seconds` is how long it took."""

    name: str
    faults: tuple[str, ...]
    seconds: float
    text: str = ""

    @property
    def passed(self) -> bool:
        """Whether it did as it should."""
        return not self.faults


def cases_of(path: Path) -> Cases:
    """The cases in a file.

    :raises InvalidInput: it cannot be read, or says something that is not understood
    """
    try:
        given = strict_yaml.load(path.read_text())
        cases = msgspec.convert(given, Cases)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from error
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {_fault(str(error))}") from error
    except ValueError as error:  # no UTF-8, no YAML
        raise InvalidInput(f"{path}: {' '.join(str(error).split())}") from error
    if not cases.cases:
        raise InvalidInput(f"{path}: there are no cases in it")
    named = [case.name for case in cases.cases]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{path}: two cases are called {twice!r}")
    for case in cases.cases:
        _check_pattern(path, case)
    if [cases.agent, cases.file, cases.runtime].count(None) != 2:
        raise InvalidInput(f"{path}: say whom the cases are about: one of agent, file or runtime")
    return cases


def _fault(said: str) -> str:
    """What is wrong with a file, in the words of its author."""
    what, _, where = said.partition(" - at `$")
    place = where.strip("`.")
    if not place:
        return "a file of cases is a mapping of `cases`, and one of agent, file or runtime"
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    strange = re.fullmatch(r"Object contains unknown field `(.+)`", what)
    if missing:
        what = f"missing field {missing[1]!r}"
    elif strange:
        like = nearest(strange[1], FIELDS)
        what = f"unknown field {strange[1]!r}" + (f"; did you mean {like!r}?" if like else "")
    return f"{place}: {what}"


def chosen(cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """The cases of these names; without names all.

    :raises InvalidInput: there is no case of a name
    """
    known = [case.name for case in cases]
    for name in names:
        if name not in known:
            raise InvalidInput(unknown("case", name, known))
    return [case for case in cases if not names or case.name in names]


def judged(case: Case, did: Did) -> tuple[str, ...]:
    """What is wrong with what was done; empty when all is as it must be."""
    expect = case.expect
    found = []
    if did.state != expect.state:
        why = f": {did.error}" if did.error else ""
        found.append(f"it is {did.state}, not {expect.state}{why}")
    if expect.text is not None:
        wanted = ExpectedText(equals=expect.text) if isinstance(expect.text, str) else expect.text
        found += _text(wanted, did.text)
    found += _calls(expect, did.calls)
    if expect.plan is not None:
        found += _plan(expect.plan, did.plan)
    return tuple(found)


def _check_pattern(path: Path, case: Case) -> None:
    text = case.expect.text
    if isinstance(text, ExpectedText) and text.matches is not None:
        try:
            re.compile(text.matches)
        except re.error as error:
            raise InvalidInput(f"{path}: {case.name}: matches: {error}") from error


def _text(expect: ExpectedText, text: str) -> Iterator[str]:
    if expect.equals is not None and text.strip() != expect.equals.strip():
        yield f"the answer is {_short(text)}, not {_short(expect.equals)}"
    for piece in _listed(expect.contains):
        if piece.lower() not in text.lower():
            yield f"the answer lacks {_short(piece)}: {_short(text)}"
    for piece in _listed(expect.excludes):
        if piece.lower() in text.lower():
            yield f"the answer has {_short(piece)}: {_short(text)}"
    if expect.matches is not None and not re.search(expect.matches, text):
        yield f"the answer does not match {expect.matches!r}: {_short(text)}"


def _calls(expect: Expected, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    place = 0
    for given in expect.calls:
        wanted = ExpectedCall(given) if isinstance(given, str) else given
        found = next((n for n in range(place, len(calls)) if _fits(wanted, *calls[n])), None)
        if found is None:
            made = ", ".join(name for name, _ in calls) or "none"
            yield f"no call of {wanted.tool}{_told(wanted.args)} there; calls: {made}"
            return
        place = found + 1
    for name in expect.no_calls:
        if any(made == name for made, _ in calls):
            yield f"{name} was called"


def _plan(expect: ExpectedPlan, plan: Mapping[str, Any] | None) -> Iterator[str]:
    if plan is None:
        yield "there is no plan"
        return
    if expect.state is not None and plan.get("state") != expect.state:
        yield f"the plan is {plan.get('state')}, not {expect.state}"
    lists = [value for value in plan.get("value", {}).values() if isinstance(value, list)]
    actions = [one for value in lists for one in value if isinstance(one, Mapping) and "id" in one]
    for wanted in expect.actions:
        if not any(_within(wanted, one) for one in actions):
            yield f"the plan has no action{_told(wanted)}"
    ended = {one["id"]: one["status"] for one in plan.get("actions", ())}
    for id, status in expect.ended.items():
        if ended.get(id) != status:
            yield f"the action {id} is {ended.get(id, 'not there')}, not {status}"


def _fits(wanted: ExpectedCall, name: str, args: Mapping[str, Any]) -> bool:
    return name == wanted.tool and _within(wanted.args, args)


def _within(wanted: Any, given: Any) -> bool:
    """Whether all that is wanted is there; mappings may have more."""
    if isinstance(wanted, Mapping):
        return isinstance(given, Mapping) and all(key in given and _within(wanted[key], given[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(given, list) and len(wanted) == len(given) and all(map(_within, wanted, given))
    return bool(wanted == given)


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _told(args: Mapping[str, Any]) -> str:
    return f" with {msgspec.json.encode(args).decode()}" if args else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 100 else line[:100] + "…")
