"""Compaction: the older part of a conversation becomes one summary."""

from __future__ import annotations

from contextlib import aclosing

from flux import redaction
from flux.agents.prompt import build
from flux.agents.transcript import Transcript
from flux.errors import Unavailable
from flux.events import Compacted
from flux.messages import AssistantMessage, Message, ModelFailure, TextPart, UserMessage, text_of
from flux.models.base import Model, ModelRequest

SYSTEM = """You summarise a conversation between a person and an assistant so that the assistant can go on
without it. Keep: what the person wants and decided, facts found, files read and changed with their paths,
commands run with their results, errors, open questions and next steps. Be complete and brief. Write only
the summary."""
ASK = "Summarise the conversation above."
SUMMARY_TOKENS = 2000


class SummaryFailed(Unavailable):
    """The conversation is too long for the model, and it could not be summarised."""

    type = "summary_failed"


async def summarise(log: Transcript, upto: int, model: Model) -> Compacted:
    """The summary of everything up to and with a seq.

    :raises SummaryFailed: the model gave none
    """
    older = build(item for item in log.items if item.seq <= upto)
    messages: tuple[Message, ...] = (*_as_text(older), UserMessage((TextPart(ASK),)))
    request = ModelRequest(system=SYSTEM, messages=messages, max_tokens=SUMMARY_TOKENS)
    result: AssistantMessage | ModelFailure | None = None
    async with aclosing(model.stream(redaction.struct(request))) as events:
        async for event in events:
            if isinstance(event, (AssistantMessage, ModelFailure)):
                result = event
    if isinstance(result, AssistantMessage) and text_of(result.parts):
        return Compacted(upto=upto, summary=text_of(result.parts), usage=result.usage, cost=result.cost)
    reason = result.message if isinstance(result, ModelFailure) else "it answered nothing"
    raise SummaryFailed(f"the conversation is too long for the model, and summarising it failed: {reason}")


def _as_text(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Calls and results as plain text: the summary's model has no tools."""
    lines: list[str] = []
    for message in messages:
        if isinstance(message, UserMessage):
            lines.append(f"Person: {text_of(message.parts)}")
        elif isinstance(message, AssistantMessage):
            lines += [f"Assistant: {text_of(message.parts)}"] if text_of(message.parts) else []
            lines += [f"Assistant calls {call.name}({call.args})" for call in message.calls]
        else:
            lines.append(f"Result of {message.call.name}: {_short(message.content)}")
    return (UserMessage((TextPart("\n\n".join(lines)),)),) if lines else ()


def _short(text: str, limit: int = 4000) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[…]\n{text[-limit // 2 :]}"
