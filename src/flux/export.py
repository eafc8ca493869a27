"""Sessions as files: JSON lines, which can be read again, and Markdown for people."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from flux.errors import InvalidInput
from flux.events import (
    QUESTIONS,
    AssistantSaid,
    Cancelled,
    Compacted,
    Entry,
    Forked,
    Gated,
    InterruptAnswered,
    Planned,
    Question,
    RunFailed,
    SessionEndedEntry,
    Stored,
    SubagentChanged,
    ToolDone,
    UnknownEntry,
    UserSaid,
    decode,
)
from flux.messages import FilePart, ImagePart, ReasoningPart, ToolCall, text_of

#: The type of the first line, and the version of the format.
HEADER, FORMAT = "flux_session", 1
#: Characters of the arguments of a call in its one line; all of them are inside.
ARGS_SHOWN = 120
MARKS = {"success": "✓", "denied": "✋", "cancelled": "⏹", "interrupted": "⚠", "expired": "⌛"}


class Exported(Struct, frozen=True):
    """What a file of JSON lines holds: the row of the session, and its entries in their places."""

    session: dict[str, Any]
    entries: list[Stored]


class _Place(Struct):
    seq: int
    epoch: int
    at: float


_place = msgspec.json.Decoder(_Place)
_any = msgspec.json.Decoder(dict[str, Any])


def header(session: dict[str, Any]) -> str:
    """The first line of JSON lines: whose entries follow."""
    return msgspec.json.encode({"type": HEADER, "format": FORMAT, "session": session}).decode() + "\n"


def read_jsonl(lines: Iterable[str | bytes]) -> Exported:
    """What was exported as JSON lines.

    :raises InvalidInput: it is no such file, or a part of it is missing
    :raises DatabaseTooNew: it was written by a newer Flux
    """
    given = iter(line for line in lines if line.strip())
    try:
        first = _any.decode(next(given, "{}"))
        if first.get("type") != HEADER or first.get("format") != FORMAT:
            raise InvalidInput(f"this is no session that was exported as JSON lines of format {FORMAT}")
        entries = [_stored(line) for line in given]
    except msgspec.DecodeError as error:
        raise InvalidInput(f"a line cannot be read: {error}") from error
    if [stored.seq for stored in entries] != list(range(1, int(first["session"]["head"]) + 1)):
        raise InvalidInput("entries are missing; the file is not whole")
    return Exported(first["session"], entries)


def _stored(line: str | bytes) -> Stored:
    place = _place.decode(line)
    return Stored(place.seq, place.epoch, place.at, decode(line))


class Markdown:
    """Tells the entries of a session, fed in order, as Markdown: who said what, and what became of it.

    Messages stand where they were taken up, tool calls are folded.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, UserSaid]] = {}
        self._calls: dict[str, ToolCall] = {}
        self._asked: dict[str, Question] = {}

    def begin(self, session: dict[str, Any]) -> str:
        """The heading. `session` is its row, as the API shows it."""
        usage, title = session["usage"], " ".join((session["title"] or "A session without a title").split())
        version = f" (version {session['agent_version']})" if session["agent_version"] is not None else ""
        lines = [
            f"# {title}",
            "",
            f"- Session: `{session['id']}`",
            f"- Agent: {session['agent_name']}{version}",
            f"- Started: {_when(session['started_at'])}",
            f"- State: {session['state']}, {session['turns']} turn{'' if session['turns'] == 1 else 's'}",
            f"- Usage: {usage['total']:,} tokens, ${usage['cost']:.4f}",
        ]
        return "\n".join(lines) + "\n"

    def feed(self, stored: Stored) -> str:
        """What is told of one more entry; nothing of most."""
        entry = stored.entry
        if isinstance(entry, UserSaid):
            self._said[entry.id] = (stored.at, entry)
        elif isinstance(entry, QUESTIONS):
            self._asked[entry.id] = entry
        taken = "".join(self._heard(id) for id in getattr(entry, "inputs", ()))
        teller = TELLERS.get(type(entry))
        return taken + (teller(self, entry, stored.at) if teller else "")

    def end(self) -> str:
        """Messages that nobody has read yet."""
        return "".join(self._heard(id, " (not read yet)") for id in list(self._said))

    def _heard(self, id: str, note: str = "") -> str:
        if id not in self._said:
            return ""
        at, said = self._said.pop(id)
        images = sum(isinstance(part, ImagePart) for part in said.parts)
        named = [f"{images} image{'' if images == 1 else 's'}"] if images else []
        named += [part.name for part in said.parts if isinstance(part, FilePart)]
        beside = f"\n> {', '.join(named)}, not shown here\n" if named else ""
        return f"\n## User{note}\n\n<sub>{_when(at)}</sub>\n\n{text_of(said.parts).strip()}\n{beside}"

    def _assistant(self, said: AssistantSaid, at: float) -> str:
        self._calls = {call.id: call for call in said.calls}
        told = "\n".join(part.text for part in said.parts if isinstance(part, ReasoningPart)).strip()
        text = text_of(said.parts).strip()
        if not text and not told:
            return ""
        thought = _folded("Reasoning", fenced(told)) if told else ""
        model = f" · {said.model}" if said.model else ""
        return f"\n## Assistant\n\n<sub>{_when(at)}{model}</sub>\n{thought}\n{text}\n"

    def _gated(self, gated: Gated, _: float) -> str:
        call = self._calls.get(gated.call)
        if call is not None and gated.args is not None:
            self._calls[gated.call] = msgspec.structs.replace(call, args=gated.args)
        return ""

    def _tool(self, done: ToolDone, _: float) -> str:
        call = self._calls.get(done.call)
        args = ", ".join(f"{name}={_short(value)}" for name, value in call.args.items()) if call else ""
        line = f"{MARKS.get(done.outcome, '✗')} {done.name}({_cut(args)}): {done.outcome}"
        given = fenced(msgspec.json.format(msgspec.json.encode(call.args)).decode(), "json") if call else ""
        kept = f"\nThe whole is kept as the artifact `{done.artifact}`.\n" if done.artifact else ""
        return _folded(line, f"{given}\n{fenced(done.content)}{kept}")

    def _answered(self, answer: InterruptAnswered, at: float) -> str:
        asked = self._asked.pop(answer.id, None)
        if asked is None:
            return ""
        reason = f" ({answer.reason})" if answer.reason else ""
        content = f": {_short(answer.content)}" if answer.content is not None else ""
        return _noted(f"{_question(asked)} — **{answer.decision}**{content}{reason}, by {answer.by}, {_when(at)}")

    def _planned(self, plan: Planned, _: float) -> str:
        rows = [f"{n}. {_step(step)}" for n, step in enumerate(plan.steps, 1)]
        return "\n**Plan**\n\n" + "\n".join(rows) + "\n"

    def _subagent(self, changed: SubagentChanged, _: float) -> str:
        return _noted(f"Sub-agent {changed.agent} (`{changed.child}`): {changed.status}")

    def _failed(self, failed: RunFailed, _: float) -> str:
        return _noted(f"**The run failed:** {failed.message}")

    def _cancelled(self, _: Cancelled, __: float) -> str:
        return _noted("The run was stopped.")

    def _compacted(self, compacted: Compacted, _: float) -> str:
        return _folded("Earlier messages were summarised for the model", fenced(compacted.summary))

    def _forked(self, forked: Forked, _: float) -> str:
        for id in forked.dropped:
            self._said.pop(id, None)
        return _noted(f"Forked from session `{forked.source}` at its entry {forked.upto}; what follows is new.")

    def _ended(self, ended: SessionEndedEntry, _: float) -> str:
        return _noted(f"The session ended ({ended.reason}).")


TELLERS: dict[type[Entry] | type[UnknownEntry], Callable[[Markdown, Any, float], str]] = {
    AssistantSaid: Markdown._assistant,
    Gated: Markdown._gated,
    ToolDone: Markdown._tool,
    InterruptAnswered: Markdown._answered,
    Planned: Markdown._planned,
    SubagentChanged: Markdown._subagent,
    RunFailed: Markdown._failed,
    Cancelled: Markdown._cancelled,
    Compacted: Markdown._compacted,
    Forked: Markdown._forked,
    SessionEndedEntry: Markdown._ended,
}


def fenced(text: str, language: str = "text") -> str:
    """A block of code around a text, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _folded(line: str, inside: str) -> str:
    shown = html.escape(" ".join(line.split()), quote=False)
    return f"\n<details><summary>{shown}</summary>\n{inside}\n</details>\n"


def _noted(text: str) -> str:
    return "\n> " + " ".join(text.split()) + "\n"


def _question(asked: Question) -> str:
    what = {"approval_required": "Approval", "input_required": "Question", "plan_review": "Review of the plan"}
    name = what.get(str(asked.__struct_config__.tag), "Question")
    detail = next(
        (str(found) for field in ("tool", "question", "message", "name") if (found := getattr(asked, field, None))), ""
    )
    return f"{name}: {detail}" if detail else name


def _step(step: dict[str, Any]) -> str:
    text = ": ".join(str(step[key]) for key in ("name", "description") if step.get(key))
    state = step.get("state", "pending")
    return " ".join(text.split()) + (f" ({state})" if state != "pending" else "")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ARGS_SHOWN else line[: ARGS_SHOWN - 1] + "…"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
