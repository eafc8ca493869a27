"""How each wire format says the same things; a new provider joins every test of this folder by a row in WIRES."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Call = tuple[str, str, str]
"""id, name, arguments as the model wrote them."""


def _sse(data: Any, event: str | None = None) -> bytes:
    return (f"event: {event}\n" if event else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


def _chat_chunk(delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "native_finish_reason": finish}]
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "provider": "p"}
    return _sse({**chunk, "choices": [] if usage else choices, "usage": usage})


_CACHED: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": 4}}


def chat(texts: Sequence[str] = (), calls: Sequence[Call] = (), finish: str | None = "stop") -> list[bytes]:
    finish = {"calls": "tool_calls"}.get(finish or "", finish)
    pieces = [_chat_chunk({"role": "assistant", "content": text}) for text in texts]
    for index, (id_, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": arguments}
        pieces.append(
            _chat_chunk({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]})
        )
    if finish is None:
        return pieces
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, **_CACHED}
    return [*pieces, _chat_chunk({}, finish), _chat_chunk({}, usage=usage), b"data: [DONE]\n\n"]


def responses(
    texts: Sequence[str] = (), calls: Sequence[Call] = (), finish: str | None = "stop", before: Any = None
) -> list[bytes]:
    answer = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": []}
    answer |= {"parallel_tool_calls": True, "tool_choice": "auto", "output": [], "status": "in_progress"}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": answer}]
    items: list[dict[str, Any]] = [before] if before else []
    events += _reasoning(before) if before else []
    if texts:
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        part = {"type": "output_text", "text": "", "annotations": []}
        place = {"item_id": "msg_1", "output_index": len(items), "content_index": 0}
        events.append(_item("added", len(items), {**message, "content": []}))
        events.append({"type": "response.content_part.added", "part": part, **place})
        events += [{"type": "response.output_text.delta", "delta": text, "logprobs": [], **place} for text in texts]
        items.append({**message, "content": [{**part, "text": "".join(texts)}]})
        events.append(_item("done", len(items) - 1, items[-1]))
    for id_, name, arguments in calls:
        call = {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name}
        place = {"item_id": f"fc_{id_}", "output_index": len(items)}
        events.append(_item("added", len(items), {**call, "arguments": ""}))
        events.append({"type": "response.function_call_arguments.delta", "delta": arguments, **place})
        items.append({**call, "arguments": arguments})
        events.append(_item("done", len(items) - 1, items[-1]))
    if finish is not None:
        cut = finish == "length"
        usage: dict[str, Any] = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
        usage |= {"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {}}
        end: dict[str, Any] = {
            "output": items,
            "usage": usage,
            "status": "incomplete" if cut else "completed",
        }
        end |= {"incomplete_details": {"reason": "max_output_tokens"}} if cut else {}
        events.append({"type": f"response.{end['status']}", "response": {**answer, **end}})
    return [_sse({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events)]


def _reasoning(item: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0, "summary_index": 0}
    events = [_item("added", 0, {**item, "summary": []})]
    for part in item["summary"]:
        events.append({"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}, **place})
        events.append({"type": "response.reasoning_summary_text.delta", "delta": part["text"], **place})
    return [*events, _item("done", 0, item)]


def _item(what: str, index: int, item: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{what}", "output_index": index, "item": item}


def anthropic(
    texts: Sequence[str] = (),
    calls: Sequence[Call] = (),
    finish: str | None = "stop",
    before: Sequence[dict[str, Any]] = (),
) -> list[bytes]:
    reason = {"calls": "tool_use", "length": "max_tokens", "stop": "end_turn"}.get(finish or "", finish)
    usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "usage": usage}}]
    blocks = [(block, block.pop("_deltas", [])) for block in map(dict, before)]
    if texts:
        deltas = [{"type": "text_delta", "text": text} for text in texts]
        blocks.append(({"type": "text", "text": ""}, deltas))
    for id_, name, arguments in calls:
        block = {"type": "tool_use", "id": id_, "name": name, "input": {}}
        blocks.append((block, [{"type": "input_json_delta", "partial_json": arguments}]))
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if finish is not None:
        end = {"stop_reason": reason, "stop_sequence": None}
        events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}})
        events.append({"type": "message_stop"})
    return [_sse(event, event["type"]) for event in events]


def google(
    texts: Sequence[str] = (),
    calls: Sequence[Call] = (),
    finish: str | None = "stop",
    signature: str | None = None,
) -> list[bytes]:
    reason = {"calls": "STOP", "length": "MAX_TOKENS", "stop": "STOP"}.get(finish or "")
    parts: list[dict[str, Any]] = [{"text": text} for text in texts]
    for _, name, arguments in calls:
        parts.append({"functionCall": {"name": name, "args": json.loads(arguments)}})
    if signature:
        parts[-1]["thoughtSignature"] = signature
    pieces: list[dict[str, Any]] = [{"candidates": [{"content": {"role": "model", "parts": [part]}}]} for part in parts]
    if finish is not None:
        usage = {"promptTokenCount": 11, "candidatesTokenCount": 7, "cachedContentTokenCount": 4}
        end = {"content": {"role": "model", "parts": []}, "finishReason": reason}
        pieces.append({"candidates": [end], "usageMetadata": usage})
    return [_sse(piece) for piece in pieces]


@dataclass(frozen=True)
class Wire:
    """One provider: a model of it, how it answers, and where it keeps what tests look at."""

    model: str
    answer: Callable[..., list[bytes]]
    limit: Callable[[dict[str, Any]], Any]
    choice: Callable[[dict[str, Any]], Any]
    key: str

    @property
    def provider(self) -> str:
        return self.model.partition("/")[0]

    @property
    def args_are_json(self) -> bool:
        """Whether the format carries arguments as text, which may then be broken."""
        return self.answer is not google


def _chat_limit(body: dict[str, Any]) -> Any:
    return body["max_tokens"]


def _choice(body: dict[str, Any]) -> Any:
    return body["tool_choice"]


WIRES = [
    Wire("openai/gpt-4.1", responses, lambda body: body["max_output_tokens"], _choice, "OPENAI_API_KEY"),
    Wire("openai-chat/gpt-4.1", chat, lambda body: body["max_completion_tokens"], _choice, "OPENAI_API_KEY"),
    Wire(
        "anthropic/claude-haiku-4-5",
        anthropic,
        _chat_limit,
        lambda body: body["tool_choice"]["type"],
        "ANTHROPIC_API_KEY",
    ),
    Wire(
        "google/gemini-2.0-flash",
        google,
        lambda body: body["generationConfig"]["maxOutputTokens"],
        lambda body: body["toolConfig"]["functionCallingConfig"]["mode"].lower(),
        "GOOGLE_API_KEY",
    ),
    Wire("openrouter/meta-llama/llama-4-scout", chat, _chat_limit, _choice, "OPENROUTER_API_KEY"),
    Wire("ollama/llama3.2", chat, _chat_limit, _choice, "OLLAMA_API_KEY"),
    Wire("own/some-model", chat, _chat_limit, _choice, "OWN_KEY"),
]
BY_NAME = {wire.provider: wire for wire in WIRES}
