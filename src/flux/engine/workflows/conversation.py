"""A workflow that talks for an agent: what it pauses with, told as the entries of a session.

Its log is that of a workflow and that of a session: who reads either understands it. A pause of type
`chat_response` ends a run of the session, and the oldest message that no run has consumed is its answer. It is
no question: nothing is asked of a person but to go on talking, so the session is idle meanwhile.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from flux.engine.encoding.values import readable
from flux.engine.workflows.history import SILENCE
from flux.engine.workflows.journal import Journal, Parked, names_of
from flux.engine.workflows.place import Body
from flux.entries.base import Entry
from flux.entries.workflows import (
    TaskCompleted,
    TaskStarted,
    WorkflowCompleted,
    WorkflowEnd,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowResumed,
)
from flux.errors import InvalidInput
from flux.events import (
    AssistantSaid,
    Cancelled,
    ChatResponse,
    Elicited,
    Forked,
    InterruptAnswered,
    Paused,
    RunFailed,
    RunStarted,
    SessionEndedEntry,
    UserSaid,
)
from flux.messages import TextPart, text_of
from flux.store import interrupts
from flux.store.interrupts import interrupt_id
from flux.store.log import Then

#: What a conversation waits for in a pause that takes a message, and in one that ends it.
MESSAGE = "message"
END = "end"
KINDS = {"chat_response": MESSAGE, "session_end": END}

Step = tuple[list[Entry], Then | None]


async def tell(
    journal: Journal, call: str, name: str, output: Any, due: float | None, on: str | None
) -> Paused | Elicited | None:
    """A pause that belongs to the conversation; None when it is one like any other.

    What says something or ends the conversation is not written down here: it is told when the workflow has come
    to rest there.

    :raises InvalidInput: it wants to wake in a way that such a pause cannot
    """
    shown = readable(output)
    type = shown.get("type") if isinstance(shown, dict) else None
    if type not in (*KINDS, "elicitation"):
        return None
    if on is not None or (due is not None and type != "chat_response"):
        raise InvalidInput(f"a pause of type {type} cannot wake by itself" + " so" * (type == "chat_response"))
    if type == "elicitation":
        return await _elicit(journal, call, shown)
    started = journal.started.get(call)
    if started is not None:
        due = started.due
    elif due is not None:
        await journal.record(TaskStarted(call=call, name=f"pause:{name}", due=due))
    # No question of a person: no other log knows this id, and a fork's answers are found by it.
    return Paused(id=call, call=call, name=name, output=output, due=due)


def waits_for(journal: Journal, output: Any) -> str:
    """What a pause that shows this waits for, in the words of `waiting_for`."""
    shown = readable(output) if journal.talks else None
    return KINDS.get(str(shown.get("type")), "pause") if isinstance(shown, dict) else "pause"


async def _elicit(journal: Journal, call: str, shown: dict[str, Any]) -> Elicited:
    run = journal.run
    asked = Elicited(
        id=interrupt_id(run.id, call, journal.stopped),
        call=call,
        mode=str(shown.get("mode") or "url"),
        message=str(shown.get("message") or ""),
        server_name=str(shown.get("server_name") or ""),
        elicitation_id=str(shown.get("elicitation_id") or call),
        url=_text(shown.get("url")),
        schema=shown["schema"] if isinstance(shown.get("schema"), dict) else None,
    )
    payload = msgspec.to_builtins(asked)
    opening = interrupts.open_interrupt(
        run.scope, id=asked.id, execution_id=run.id, call=call, kind="elicitation", payload=payload
    )
    await journal.record(asked, also=opening)
    return asked


async def elicited(journal: Journal, asked: Elicited, body: Body | None) -> Any:
    """What a person answers: `{"elicitation_response": {elicitation_id, action, content?}}`."""
    fields = ("mode", "message", "server_name", "elicitation_id", "url", "schema")
    output = {"type": "elicitation"} | {name: value for name in fields if (value := getattr(asked, name)) is not None}
    answer = await journal.park(
        asked.call, asked.id, "elicitation", {"name": "elicitation", "output": output}, None, body
    )
    response = {"elicitation_id": asked.elicitation_id, "action": answer.decision}
    if answer.content is not None:
        response["content"] = answer.content
    return {"elicitation_response": response}


def _text(given: Any) -> str | None:
    return None if given is None else str(given)


class Conversation:
    """What was said so far, and what follows where the workflow has come to rest."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._read = 0
        self._turns = journal.run.execution.turns
        self._paused: Any = None
        self._begun: str | None = None  # the run that has no end yet
        self._resumed = False
        self._told: set[str] = set()
        self._pending: dict[str, UserSaid] = {}
        self._results: dict[str, str] = {}

    def next_step(self, parked: Sequence[Parked]) -> Step | None:
        """What to write where these calls wait, and the state to leave in, None to go on; None: as any workflow."""
        self._catch_up()
        ending = next((one for one in parked if one.waiting_for == END), None)
        if ending is not None:
            return self.farewell(WorkflowCompleted(value=ending.value["output"])), Then("ended", outcome="completed")
        if names_of(parked) != MESSAGE:
            return None
        pause = next(one for one in parked if one.waiting_for == MESSAGE)
        key = pause.value["id"]
        due = min((one.due for one in parked if one.due is not None), default=None)
        alone = all(one.waiting_for == MESSAGE for one in parked) and due is None
        rest = Then("idle") if alone else Then("waiting", due, MESSAGE)
        paused = WorkflowPaused(waiting_for=MESSAGE, value=pause.value)
        if key not in self._told:
            return [*self._answer(key, readable(pause.value["output"])), paused], None if self._pending else rest
        if self._pending:
            return self._consume(key), None
        return [paused], rest

    def stopped(self) -> Step:
        """The run was stopped: the workflow stands where it was before its message."""
        self._catch_up()
        journal, run = self._journal, self._journal.run
        unbegun = bool(self._pending) and run.run_id not in (None, run.id, self._begun)
        stopped = tuple(self._pending)[:1] if unbegun else ()  # its message is stopped with it
        paused = WorkflowPaused(waiting_for=MESSAGE, value=self._paused or {"name": "", "output": SILENCE})
        # With a timer open the workflow is run once more, and rests until that.
        timed = any(one.due is not None and call not in journal.finished for call, one in journal.started.items())
        rests = len(self._pending) == len(stopped) and not timed
        return [*self._open(*stopped), Cancelled(), paused], Then("idle") if rests else None

    def farewell(self, end: WorkflowEnd) -> list[Entry]:
        """The last entries."""
        self._catch_up()
        if isinstance(end, WorkflowFailed):
            ended = SessionEndedEntry(reason="error", turns=self._turns)
            return [*self._open(), RunFailed(message=end.message), end, ended]
        reason, turns = "user_exit", self._turns
        if isinstance(end, WorkflowCompleted):
            shown = readable(end.value)
            told = shown if isinstance(shown, dict) and shown.get("type") == "session_end" else {}
            reason, turns = str(told.get("reason", "completed")), _count(told.get("turns"), turns)
        return [end, SessionEndedEntry(reason=reason, turns=turns)]

    def _answer(self, key: str, shown: dict[str, Any]) -> list[Entry]:
        content = shown.get("content")
        turn = _count(shown.get("turn"), self._turns + 1)
        if content is None or content == "":
            return [*self._open(), ChatResponse(content="", turn=turn)]
        text = str(content)
        # An answer that a task has given bears its call, as the tokens do that were shown of it.
        answer = AssistantSaid(message_id=self._results.get(text, key), parts=(TextPart(text),))
        return [*self._open(), answer, ChatResponse(content=text, turn=turn)]

    def _consume(self, key: str) -> list[Entry]:
        message = next(iter(self._pending.values()))
        by, content = self._journal.run.scope.principal, {"message": text_of(message.parts)}
        answered = InterruptAnswered(id=key, decision="answer", by=by, content=content)
        return [*self._open(message.id), answered, *([] if self._resumed else [WorkflowResumed()])]

    def _open(self, *inputs: str) -> list[Entry]:
        """The beginning of the run that is about to end, or to be worked on, unless it has begun."""
        if self._begun is not None:
            return []
        return [RunStarted(run=self._journal.run.run_id or str(uuid.uuid4()), inputs=inputs)]

    def _catch_up(self) -> None:
        log = self._journal.log
        for stored in log[self._read :]:
            self._add(stored.entry, stored.epoch == self._journal.run.epoch)
        self._read = len(log)

    def _add(self, entry: Any, mine: bool) -> None:
        match entry:
            case UserSaid():
                self._pending[entry.id] = entry
            case RunStarted():
                self._begun = entry.run
                self._results.clear()
                for id in entry.inputs:
                    self._pending.pop(id, None)
            case TaskCompleted(value=str(text)):
                self._results[text] = entry.call
            case Forked():
                for id in entry.dropped:
                    self._pending.pop(id, None)
            case ChatResponse() | RunFailed() | Cancelled():
                self._begun = None
                self._turns += mine and isinstance(entry, ChatResponse) and entry.turn > 0
            case WorkflowResumed():
                self._resumed = True
            case WorkflowPaused():
                self._resumed = False
                self._note_pause(entry)

    def _note_pause(self, entry: WorkflowPaused) -> None:
        if entry.waiting_for == MESSAGE and "id" in entry.value:
            self._told.add(entry.value["id"])
            self._paused = entry.value


def _count(given: Any, default: int) -> int:
    return given if type(given) is int and given >= 0 else default
