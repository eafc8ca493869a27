"""Questions of tool calls to people: the entries that ask, their interrupts, and the answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flux.agents.history.calls import CallState
from flux.engine.running.run import Run
from flux.events import ApprovalRequired, Elicited, InputRequired, PlanReview, Question, ToolStarted
from flux.store import interrupts
from flux.store.database import Steps
from flux.tools.base import Answer, NeedsInput

KINDS: dict[type, str] = {
    ApprovalRequired: "approval",
    InputRequired: "input",
    Elicited: "elicitation",
    PlanReview: "plan",
}


def open_questions(run: Run, questions: Sequence[Question]) -> Steps[None]:
    """The program that makes questions answerable."""
    for question in questions:
        yield from interrupts.open_interrupt(
            run.scope,
            id=question.id,
            execution_id=run.id,
            call=question.call,
            kind=KINDS[type(question)],
            payload=question,
            digest=getattr(question, "digest", ""),
        )


class Asking:
    """The questions of one call while it runs."""

    def __init__(self, run: Run, state: CallState) -> None:
        self._run = run
        self._state = state
        self._asked = state.asked
        self._open: NeedsInput | None = None

    def answers(self) -> tuple[Answer, ...]:
        """What people have answered to the call so far; that it may run at all is not among them."""
        state = self._state
        given = list(state.earlier)
        if state.question is not None and state.answer is not None:
            given.append((state.question, state.answer))
        return tuple(
            Answer(answer.decision, answer.content, answer.reason, question)
            for question, answer in given
            if not isinstance(question, ApprovalRequired)
        )

    async def ask(self, needed: NeedsInput, seconds: float) -> Answer | None:
        """Ask while the call goes on; None when nobody has answered after so many seconds."""
        question = self._question(needed)
        self._asked += 1
        self._open = needed
        await self._run.append(question, also=open_questions(self._run, [question]))
        closed = await self._run.answered(question.id, seconds)
        if closed is None or closed.answer is None:
            return None
        self._open = None
        # From here on it acts again: a crash must find that it has started since the answer.
        await self._run.append(ToolStarted(call=self._state.call.id, name=self._state.call.name))
        answer = msgspec.json.decode(closed.answer)
        return Answer(answer["decision"], answer["content"], answer["reason"], question)

    async def leave_open(self, needed: NeedsInput) -> None:
        """Ask, and let the call end here until somebody answers."""
        if needed == self._open:
            return
        question = self._question(needed)
        await self._run.append(question, also=open_questions(self._run, [question]))

    def _question(self, needed: NeedsInput) -> Question:
        call = self._state.call.id
        return question_of(needed, interrupts.interrupt_id(self._run.id, call, self._asked), call, self._run)


def question_of(needed: NeedsInput, id: str, call: str, run: Run, within: str | None = None) -> Question:
    """The entry that asks what a tool needs; `within`: the tool call whose code has called the tool."""
    asked = needed.payload
    match needed.kind:
        case "input":
            options = tuple(asked.get("options") or ())
            question = str(asked.get("question", ""))
            return InputRequired(id=id, call=call, question=question, options=options, within=within)
        case "elicitation":
            return Elicited(id=id, call=call, within=within, **asked)
        case "plan":
            return PlanReview(
                id=id,
                call=call,
                digest=asked["digest"],
                steps=tuple(asked["steps"]),
                plan=asked.get("plan"),
                agent=run.execution.agent or "",
                within=within,
            )
