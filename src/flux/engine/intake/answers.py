"""Answers to questions: which question an answer is for, and the transaction that lets the first one win."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from flux.engine.dispatching.dispatch import Dispatch
from flux.errors import (
    ExecutionFinished,
    InterruptDecided,
    InterruptNotFound,
    InvalidInput,
    NotPaused,
    SessionEnded,
    SessionNotFound,
)
from flux.events import Entry, InterruptAnswered
from flux.store import audit, driven, executions, interrupts, log
from flux.store.database import Row, Scope, Steps
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt

#: The words that answer each kind of question.
DECISIONS = {
    "approval": ("approve", "reject"),
    "plan": ("approve", "reject"),
    "elicitation": ("accept", "decline", "cancel"),
    "input": ("answer",),
}


class Decision(Struct, frozen=True):
    """An answer to a question. `decision` is a word of its kind; `always` grants the tool for the session."""

    decision: str
    reason: str | None = None
    always: bool = False
    content: Any = None


class Admitted(Struct, frozen=True):
    """What was accepted: the execution, the seq of the newest entry, and whether it was accepted before.

    `input` is the id of the message, or of the request, that was taken just now.
    """

    id: str
    seq: int
    repeated: bool = False
    input: str | None = None


#: What an admission did, and the rows it wrote.
Written = tuple[Admitted, tuple[log.LogRow, ...]]


class Won(Struct, frozen=True):
    """An answer that won: the execution it woke, and what was written, by the id of the log."""

    admitted: Admitted
    rows: dict[str, tuple[log.LogRow, ...]]


def answer_steps(scope: Scope, id: str, interrupt: str, decision: Decision, dispatch: Dispatch) -> Steps[Won]:
    """The program that answers a question of an execution, or of one that it drives.

    The answer is written to the log that asked and to the log of everybody who drives it; the root wakes.

    :raises SessionNotFound, InterruptNotFound, InterruptDecided: there is no such open question here
    :raises AlreadyWon: the same answer has won already
    """
    asked, chain = yield from _asked(scope, id, interrupt)
    if asked.state != "open":  # and never will be again, whatever the answer is
        _refuse(asked, decision, scope.principal)
    _check_decision(asked.kind, decision)
    # The rows first, the root before all, as in every statement about a tree: who closes a question holds them too.
    entry = InterruptAnswered(
        id=interrupt,
        decision=decision.decision,
        by=scope.principal,
        reason=decision.reason,
        always=decision.always,
        content=decision.content,
    )
    moved = yield executions.WAKE, {"id": asked.root, "tenant": scope.tenant, "run_id": None}
    rows = {asked.root: (yield from write_entries(asked.root, moved[0], [entry]))} if moved else {}
    rows |= yield from driven.tell(scope, [row.id for row in reversed(chain[:-1])], entry)
    asking = chain[0]
    won = {asked.root, asking.id} <= rows.keys() and (
        yield from interrupts.answer(scope, asking.id, interrupt, answer=decision, by=scope.principal)
    )
    if not won:
        now = yield from interrupts.get(scope, asking.id, interrupt)
        _refuse(now or asked, decision, scope.principal)
    if decision.always and (asked.kind, decision.decision) == ("approval", "approve"):
        granted = interrupts.payload_of(asked)
        yield from interrupts.grant(scope, asking.id, granted.get("grant") or granted["tool"], scope.principal)
    about = {"kind": asked.kind, "decision": decision.decision, "always": decision.always, "execution": asking.id}
    payload = interrupts.payload_of(asked)
    named = {"tool": payload["tool"]} if "tool" in payload else {}
    yield from audit.record(scope, "question.answer", interrupt, about | named)
    yield from dispatch.hint(asked.root, moved[0][4])
    return Won(Admitted(asked.root, moved[0][0]), rows)


def _asked(scope: Scope, id: str, interrupt: str) -> Steps[tuple[Interrupt, list[Execution]]]:
    """A question that an execution, or one below it, has asked; and who asked, up to the root."""
    asked = yield from interrupts.find(scope, interrupt)
    chain = (yield from driven.chain(scope, asked.execution_id)) if asked else []
    if asked is None or id not in [row.id for row in chain]:
        open_row((yield from executions.get(scope, id)), ended_too=True)
        raise InterruptNotFound(f"{id} has no question {interrupt}")
    return asked, chain


def _check_decision(kind: str, decision: Decision) -> None:
    valid = DECISIONS.get(kind, ("answer",))
    if decision.decision not in valid:
        raise InvalidInput(f"decision must be {' or '.join(valid)}, not {decision.decision!r}")


def _refuse(asked: interrupts.Interrupt, decision: Decision, by: str) -> NoReturn:
    """The question was not open. Raising undoes the transaction, also for a repeat of one's own answer."""
    mine = asked.state == "answered" and asked.answered_by == by
    if mine and asked.answer == msgspec.json.encode(decision).decode():
        raise AlreadyWon()
    raise InterruptDecided(f"the question is {asked.state} already; nothing was changed", state=asked.state)


class AlreadyWon(Exception):
    """One's own winning answer came again."""


def resume_steps(scope: Scope, id: str, input: Any, pause: str | None, dispatch: Dispatch) -> Steps[Won]:
    """Answer the open pause of that name, or the only one.

    :raises ExecutionFinished: it has ended
    :raises NotPaused: it cannot be told which
    """
    row = yield from executions.get(scope, id)
    if row is not None and row.state == "ended":
        raise ExecutionFinished(
            f"execution {id} has finished ({(row.outcome or 'cancelled').upper()}) and cannot be resumed"
        )
    asked = [one for one in (yield from interrupts.list_open(scope, id)) if one.kind == "pause"]
    chosen = choose(asked, pause)
    if chosen is None:
        raise NotPaused(f"execution {id} {which_pauses(asked, pause)}")
    return (yield from answer_steps(scope, id, chosen.id, Decision("answer", content=input), dispatch))


def choose(open_pauses: Sequence[Interrupt], name: str | None) -> Interrupt | None:
    """The pause that an answer is for: the oldest of that name, or the only one. None: it cannot be told."""
    fitting = [one for one in open_pauses if name is None or _name(one) == name]
    return fitting[0] if fitting and (name is not None or len(fitting) == 1) else None


def which_pauses(asked: Sequence[Interrupt], pause: str | None) -> str:
    """What is wrong with an answer to these open pauses."""
    names = ", ".join(sorted(map(_name, asked)))
    if not asked:
        return "is not paused"
    if pause is None:
        return f"has several open pauses ({names}); name the one to answer"
    return f"has no open pause {pause!r}; open: {names}"


def _name(asked: Interrupt) -> str:
    return str(interrupts.payload_of(asked).get("name"))


def write_entries(id: str, moved: Row, entries: Sequence[Entry]) -> Steps[tuple[log.LogRow, ...]]:
    """Write entries for a row whose head has moved to the last of them."""
    head, epoch, _, run_id, _ = moved
    return (yield from log.insert(id, entries, head, run_id, epoch))


def open_row(row: Execution | None, *, ended_too: bool = False) -> Execution:
    """The row, if it can still take something.

    :raises SessionNotFound, SessionEnded: it cannot
    """
    if row is None:
        raise SessionNotFound()
    if row.state == "ended" and not ended_too:
        raise SessionEnded()
    return row
