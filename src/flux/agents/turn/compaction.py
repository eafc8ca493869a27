"""Compaction: the older part of a conversation becomes one summary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from flux import redaction
from flux.agents.history.cuts import Compact
from flux.agents.history.items import AnswerItem, Item, SummaryItem, UserItem
from flux.agents.history.results import spill
from flux.agents.history.summary import verbatim
from flux.agents.history.transcript import Transcript
from flux.agents.turn.model_calls import delay_of
from flux.engine.running.run import Run
from flux.errors import Unavailable
from flux.events import Compacted
from flux.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    ModelFailure,
    TextPart,
    Usage,
    UserMessage,
    UserPart,
    text_of,
)
from flux.models.base import Model, ModelRequest

SYSTEM = """You summarise a conversation between a person and an assistant so that the assistant can go on
without it. Keep: what the person wants and decided, facts found, files read and changed with their paths,
commands run with their results, errors, open questions and next steps. Be complete and brief. Write only
the summary."""
TURN_SYSTEM = """You summarise the beginning of a piece of work that an assistant is in the middle of, so that it
can go on without what you read. Keep: what was asked, what was tried and found, files read and changed with their
paths, commands run with their results, errors, and what the next step was to be. Be complete and brief. Write only
the summary."""
ASK = "Summarise the conversation above."
BEFORE = "Summary of what came before:\n\n"
SUMMARY_TOKENS = 2000
#: A text that is too long for the model is halved so often, and summarised piece by piece.
MOST_HALVINGS = 5
#: Characters of a result that the summary's model reads, and of a question that is kept word for word.
MOST_RESULT = 4000
MOST_ASKED = 8000


class SummaryFailed(Unavailable):
    """The conversation could not be summarised."""

    type = "summary_failed"


class Summary(Struct, frozen=True):
    """What older items come to; the fields are those of `Compacted`."""

    summary: str = ""
    asked: str = ""
    turn: str = ""


async def compact(run: Run, log: Transcript, step: Compact, model: Model, attempts: int) -> Compacted:
    """The entry of a compaction; what it spills is kept when this returns.

    :raises SummaryFailed: the model gave no summary in so many attempts
    :raises Fenced: another worker owns the execution now
    """
    entry = await summarise(log, step, model, attempts)
    results = {done.call: done for item in log.items if isinstance(item, AnswerItem) for done in item.results.values()}
    # The log is read again: what it came to there is behind the transcript by now.
    older = [stored for n, stored in enumerate(await run.reread()) if not n or stored.seq <= step.upto]
    base = Transcript().extend(older).base() if step.upto else None
    spilled = {call: await spill(run, results[call], step.shown) for call in step.spill}
    return replace(entry, spilled=spilled, base=base)


async def summarise(log: Transcript, step: Compact, model: Model, attempts: int = 1) -> Compacted:
    """The summary of everything up to and with a seq, and what stays of that word for word.

    :raises SummaryFailed: the model gave none
    """
    before = log.items[0].of if log.items and isinstance(log.items[0], SummaryItem) else None
    older = [item for item in log.items if item.seq <= step.upto and not isinstance(item, SummaryItem)]
    newer = next((item for item in log.items if item.seq > step.upto), None)
    writer = _Writer(model, attempts)
    found = await _summary(writer, before, older, within_turn=isinstance(newer, AnswerItem))
    stays = verbatim(older, before)
    return Compacted(
        upto=step.upto,
        summary=found.summary,
        usage=writer.usage,
        cost=writer.cost,
        asked=found.asked,
        turn=found.turn,
        skills=stays.skills,
        read=stays.read,
        changed=stays.changed,
    )


async def _summary(writer: _Writer, before: Compacted | None, older: Sequence[Item], *, within_turn: bool) -> Summary:
    """What older items come to, after what stood `before` them; a turn that is cut in two is told by itself."""
    past = Summary(before.summary, before.asked, before.turn) if before else Summary()
    if not older:
        return past
    if not within_turn:
        return Summary(await writer.write(SYSTEM, _told(past, older)))
    start = _turn_start(older)
    if start is None:  # that of an earlier compaction goes on
        goes_on = Summary(past.turn)
        return Summary(past.summary, past.asked, await writer.write(TURN_SYSTEM, _told(goes_on, older)))
    return await _split(writer, past, older[:start], older[start:])


async def _split(writer: _Writer, past: Summary, history: Sequence[Item], turn: Sequence[Item]) -> Summary:
    """The history, and the beginning of the turn, which `turn` begins with what was asked."""
    summary = past.summary
    if history or past.asked or past.turn:
        summary = await writer.write(SYSTEM, _told(past, history))
    first = turn[0]
    asked = text_of(first.said.parts) if isinstance(first, UserItem) else ""
    done = len(turn) > 1 or len(asked) > MOST_ASKED
    begun = await writer.write(TURN_SYSTEM, _told(Summary(), turn)) if done else ""
    return Summary(summary, _short(asked, MOST_ASKED), begun)


def _turn_start(items: Sequence[Item]) -> int | None:
    """The index of the message that began the last turn; messages that joined an answer have its seq."""
    for index in range(len(items) - 1, -1, -1):
        joined = index + 1 < len(items) and items[index + 1].seq == items[index].seq
        if isinstance(items[index], UserItem) and not joined:
            return index
    return None


def _told(past: Summary, items: Sequence[Item]) -> str:
    """Everything as plain text: the summary's model has no tools."""
    earlier = "\n\n".join(filter(None, (past.summary, past.asked and f"Person: {past.asked}", past.turn)))
    lines = [BEFORE + earlier] if earlier else []
    for item in items:
        if isinstance(item, UserItem):
            lines.append(f"Person: {_said(item)}")
        elif isinstance(item, AnswerItem):
            lines += _answer(item)
    return "\n\n".join(lines)


def _said(item: UserItem) -> str:
    """A message in words; the summary's model need not see images and documents."""
    return " ".join(map(_in_words, item.said.parts))


def _in_words(part: UserPart) -> str:
    match part:
        case ImagePart():
            return "[an image]"
        case FilePart():
            return f"[the file {part.name}]"
    return part.text


def _answer(item: AnswerItem) -> list[str]:
    text = text_of(item.said.parts)
    lines = [f"Assistant: {text}"] if text else []
    lines += [f"Assistant calls {call.name}({call.args})" for call in item.said.calls]
    for call in item.said.calls:
        done = item.results.get(call.id)
        content = _short(done.content, MOST_RESULT) if done else "interrupted, outcome unknown"
        lines.append(f"Result of {call.name}: {content}")
    return lines


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[…]\n{text[-limit // 2 :]}"


class _Writer:
    """Has a model write summaries, and adds up what they use."""

    def __init__(self, model: Model, attempts: int) -> None:
        self.usage = Usage()
        self.cost: float | None = None
        self._model = model
        self._attempts = attempts

    async def write(self, system: str, text: str, halvings: int = 0) -> str:
        """The summary of a text; of one that is too long for the model, half by half.

        :raises SummaryFailed: the model gave none
        """
        result = await self._tried(system, text)
        if isinstance(result, AssistantMessage):
            self.usage += result.usage
            self.cost = self.cost if result.cost is None else (self.cost or 0.0) + result.cost
            if summary := text_of(result.parts).strip():
                return summary
        overflow = isinstance(result, ModelFailure) and result.kind == "overflow"
        if overflow and halvings < MOST_HALVINGS and len(text) > MOST_HALVINGS:
            first, second = _halves(text)
            so_far = await self.write(system, first, halvings + 1)
            return await self.write(system, f"{BEFORE}{so_far}\n\n{second}", halvings + 1)
        reason = result.message if isinstance(result, ModelFailure) else "it answered nothing"
        raise SummaryFailed(f"summarising the conversation failed: {reason}")

    async def _tried(self, system: str, text: str) -> AssistantMessage | ModelFailure | None:
        for attempt in range(1, self._attempts + 1):
            result = await self._asked(system, text)
            if attempt == self._attempts or not (isinstance(result, ModelFailure) and result.transient):
                break
            await asyncio.sleep(max(0.0, delay_of(result, attempt)))
        return result

    async def _asked(self, system: str, text: str) -> AssistantMessage | ModelFailure | None:
        messages = (UserMessage((TextPart(text),)), UserMessage((TextPart(ASK),)))
        request = ModelRequest(system=system, messages=messages, max_tokens=SUMMARY_TOKENS)
        result: AssistantMessage | ModelFailure | None = None
        async with aclosing(self._model.stream(redaction.struct(request))) as events:
            async for event in events:
                if isinstance(event, (AssistantMessage, ModelFailure)):
                    result = event
        return result


def _halves(text: str) -> tuple[str, str]:
    """A text in two, between paragraphs if there is such a place near the middle."""
    middle = len(text) // 2
    at = text.rfind("\n\n", middle // 2, middle)
    at = at if at > 0 else middle
    return text[:at], text[at:]
