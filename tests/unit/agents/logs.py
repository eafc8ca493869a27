"""Logs for tests of what is folded from them: entries get their places, and random logs are valid ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flux.agents.define.definition import AgentDefinition
from flux.agents.history.transcript import Transcript
from flux.agents.turn.steps import Policy
from flux.events import (
    ApprovalRequired,
    AssistantSaid,
    Cancelled,
    CancelRequested,
    ChatResponse,
    Compacted,
    ContextFrozen,
    Entry,
    Gated,
    InputRequired,
    InterruptAnswered,
    Mode,
    ModelFailed,
    Outcome,
    RunFailed,
    RunStarted,
    SessionStarted,
    Stored,
    ToolDone,
    ToolStarted,
    UserSaid,
)
from flux.messages import AssistantPart, CallPart, FailureKind, TextPart, ToolCall, Usage

RUN = "r1"
NOW = 1000.0


def stored(entries: Iterable[Entry], *, at: float = NOW, epoch: int = 1) -> list[Stored]:
    """Entries in their places, from seq 1."""
    return [Stored(seq, epoch, at, entry) for seq, entry in enumerate(entries, 1)]


def transcript(*entries: Entry) -> Transcript:
    """The transcript of a log."""
    return Transcript().extend(stored(entries))


def definition(**fields: object) -> AgentDefinition:
    """A definition with a model."""
    return AgentDefinition.model_validate({"name": "agent", "model": "test/one", **fields})


def policy(*, run_failures: int = 3, run_timeout: float = 100.0, window: int | None = None, **fields: object) -> Policy:
    """A policy of an agent with these fields."""
    return Policy(definition(**fields), run_failures, run_timeout, window)


def session() -> Entry:
    return SessionStarted(agent="agent", instance="i", name="default", definition_digest="d")


def user(id: str, mode: Mode = "queue", text: str = "hello") -> Entry:
    return UserSaid(id=id, mode=mode, parts=(TextPart(text),))


def run(*inputs: str, id: str = RUN) -> Entry:
    return RunStarted(run=id, inputs=inputs, definition_digest="d")


def answer(
    text: str = "", *calls: str, id: str = "m", inputs: tuple[str, ...] = (), name: str = "look", tokens: int = 10
) -> AssistantSaid:
    """An answer with text, and calls of these ids."""
    parts: list[AssistantPart] = [TextPart(text)] if text else []
    return AssistantSaid(
        message_id=id,
        parts=(*parts, *(CallPart(call) for call in calls)),
        inputs=inputs,
        calls=tuple(ToolCall(call, name, {"n": 1}) for call in calls),
        stop="calls" if calls else "stop",
        usage=Usage(tokens, 0),
        cost=0.5,
    )


def allowed(call: str) -> Entry:
    return Gated(call=call, verdict="allow", args_digest="d", rule="look is allowed")


def asked(call: str, id: str = "q") -> Sequence[Entry]:
    """The gate asks a person."""
    return (
        Gated(call=call, verdict="ask", args_digest="d", rule="look requires approval"),
        ApprovalRequired(id=id, call=call, agent="agent", tool="look", args={}, digest="d"),
    )


def needs_input(call: str, id: str = "q") -> Entry:
    return InputRequired(id=id, call=call, question="Which?")


def answered(id: str = "q", decision: str = "approve") -> Entry:
    return InterruptAnswered(id=id, decision=decision, by="local")


def started(call: str) -> Entry:
    return ToolStarted(call=call, name="look")


def done(call: str, outcome: Outcome = "success", content: str = "seen") -> Entry:
    return ToolDone(
        call=call, name="look", status="success" if outcome == "success" else "error", outcome=outcome, content=content
    )


def failed(kind: FailureKind = "transient", retry_at: float | None = None, attempt: int = 1) -> Entry:
    return ModelFailed(
        message_id="m", attempt=attempt, error="no", kind=kind, transient=kind == "transient", retry_at=retry_at
    )


def stop(run: str = RUN) -> Entry:
    return CancelRequested(run=run)


def random_log(choices: Sequence[int]) -> list[Stored]:
    """A log as a loop could have written it, with what people may do at any time; each choice takes a step."""
    return stored(_Author(choices).entries, at=NOW)


class _Author:
    """Writes a valid log: what may come next depends on what stands there."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.entries: list[Entry] = [session()]
        self._count = 0
        self._pending: list[str] = []
        self._steers: list[str] = []
        self._run: str | None = None
        self._open: list[str] = []
        self._questions: dict[str, str] = {}
        for choice in choices:
            self._step(choice)

    def _step(self, choice: int) -> None:
        kind, detail = choice % 10, choice // 10
        if kind < 2:
            self._say(detail)
        elif self._questions and kind == 2:
            question = sorted(self._questions)[detail % len(self._questions)]
            self._questions.pop(question)
            self.entries.append(answered(question, ("approve", "reject")[detail % 2]))
        elif self._run is None:
            self._start()
        elif self._open:
            self._tool(kind, detail)
        else:
            self._model(kind, detail)

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _say(self, detail: int) -> None:
        id = self._id("u")
        mode: Mode = ("queue", "steer")[detail % 2]
        (self._steers if mode == "steer" else self._pending).append(id)
        self.entries.append(user(id, mode, "" if detail % 7 == 0 else f"text {id}"))

    def _start(self) -> None:
        waiting = self._pending or self._steers
        if waiting:
            self._run = self._id("r")
            self.entries += [run(waiting.pop(0), id=self._run), ContextFrozen(system="s", tools=(), digest="d")]

    def _model(self, kind: int, detail: int) -> None:
        inputs = tuple(self._steers)
        if kind == 3:
            self.entries.append(failed(retry_at=NOW))
        elif kind == 4 and len(self.entries) > 2:
            least = max((entry.upto for entry in self.entries if isinstance(entry, Compacted)), default=1)
            # A summary never takes back what another one took.
            upto = least + detail % max(1, len(self.entries) - least)
            self.entries.append(Compacted(upto=upto, summary="Before."))
        elif kind == 5:
            self._end(RunFailed(message="no"))
        elif kind in (6, 7):
            self._open = [self._id("c") for _ in range(1 + detail % 3)]
            text = ("", "so")[detail % 2]
            self.entries.append(answer(text, *self._open, id=self._id("m"), inputs=inputs))
            self._steers = []
        else:
            said = answer(("", "done")[detail % 5 != 0], id=self._id("m"), inputs=inputs)
            self.entries.append(said)
            self._steers = []
            self._end(ChatResponse(content="", turn=1))

    def _tool(self, kind: int, detail: int) -> None:
        call = self._open[detail % len(self._open)]
        if kind == 3:
            self.entries += [allowed(call), started(call)]
        elif kind == 4:
            question = self._id("q")
            self._questions[question] = call
            self.entries += asked(call, question)
        elif kind == 5:
            # A stopped run: its open calls are settled, or, in an old log, left open.
            if detail % 2:
                self.entries += [done(open_call, "cancelled") for open_call in self._open]
            self._end(Cancelled(inputs=tuple(self._steers)))
            self._steers = []
        else:
            self._open.remove(call)
            self.entries.append(done(call, ("success", "error")[detail % 2], ("", "seen")[detail % 3 != 0]))

    def _end(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._run = None
        self._open = []
        self._questions = {}
