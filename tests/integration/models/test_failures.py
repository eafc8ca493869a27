"""Whatever a provider does to a call ends in one failure of the right kind, on one line."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flux.messages import FailureKind
from tests.aimock import KEY, Aimock
from tests.integration.models.calls import asking, events, failed
from tests.integration.models.conftest import Connect
from tests.integration.models.server import Reply, Server, error
from tests.integration.models.wires import BY_NAME, Wire


@pytest.mark.behaviour("models:failures:retry-after")
async def test_a_rate_limit_says_when_to_come_back(wire: Wire, mock: Aimock, connect: Connect) -> None:
    failure = await failed(connect(mock.url).get(wire.model), asking("busy"))
    assert (failure.kind, failure.retry_after) == ("transient", 7.0)
    assert "Slow down" in failure.message


@pytest.mark.behaviour("models:failures:retry-after")
async def test_the_wait_may_be_a_date_or_in_milliseconds(wire: Wire, server: Server, connect: Connect) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    body = {"error": {"message": "later"}}
    server.replies = [error(503, body, retry_after=date), error(429, body, retry_after_ms="1500")]
    model = connect(server.url).get(wire.model)
    dated, short = [await failed(model, asking("hello")) for _ in range(2)]
    assert 20 < (dated.retry_after or 0) <= 30
    assert short.retry_after == 1.5


STATUSES: list[tuple[int, FailureKind]] = [
    (400, "rejected"),
    (401, "auth"),
    (403, "auth"),
    (404, "unknown_model"),
    (408, "transient"),
    (409, "transient"),
    (413, "overflow"),
    (425, "transient"),
    (429, "transient"),
    (500, "transient"),
    (503, "transient"),
    (529, "transient"),
]


@pytest.mark.behaviour("models:failures:kinds")
@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_each_status_is_of_a_kind(
    wire: Wire, server: Server, connect: Connect, status: int, kind: FailureKind
) -> None:
    body = {"error": {"message": f"bad\nthing with {KEY}", "code": status, "type": "some_error"}}
    server.replies = [error(status, body)]
    (failure,) = await events(connect(server.url).get(wire.model), asking("hello"))
    assert failure == await failed(connect(server.url).get(wire.model), asking("hello"))
    assert getattr(failure, "kind", None) == kind
    message = getattr(failure, "message", "")
    assert "\n" not in message
    assert KEY not in message
    assert wire.provider in message


@pytest.mark.behaviour("models:failures:auth")
async def test_a_refused_key_is_called_by_its_variable(wire: Wire, server: Server, connect: Connect) -> None:
    server.replies = [error(401, {"error": {"message": "Incorrect API key provided: test-k**ody"}})]
    failure = await failed(connect(server.url).get(wire.model), asking("hello"))
    assert failure.kind == "auth"
    assert wire.key in failure.message
    assert "test-k" not in failure.message


@pytest.mark.behaviour("models:failures:unknown-model")
@pytest.mark.parametrize(
    ("name", "successor"),
    [
        ("anthropic/claude-3-opus-x", "claude-opus"),
        ("google/gemini-1.0-flash", "gemini-"),
        ("openai/gpt-3", "gpt-"),
    ],
)
async def test_an_unknown_model_is_answered_with_one_that_is_served(
    server: Server, connect: Connect, name: str, successor: str
) -> None:
    server.replies = [error(404, {"error": {"message": "no such model", "type": "not_found_error"}})]
    failure = await failed(connect(server.url).get(name), asking("hello"))
    provider, _, model = name.partition("/")
    assert failure.kind == "unknown_model"
    start = f"model {model} is not served by {provider}; try {provider}/{successor}"
    assert failure.message.startswith(start)


OVERFLOWS = [
    ("anthropic", 400, "prompt is too long: 210000 tokens > 200000 maximum"),
    ("openai", 400, "Your input exceeds the context window of this model."),
    ("openai-chat", 400, "This model's maximum context length is 8192 tokens."),
    (
        "google",
        400,
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    ("openrouter", 400, "This endpoint's maximum context length is 131072 tokens."),
    ("ollama", 400, "the request exceeds the available context size, try increasing it"),
    ("own", 400, "The number of tokens to keep is greater than the context length"),
]


@pytest.mark.behaviour("models:failures:overflow")
@pytest.mark.parametrize(("provider", "status", "text"), OVERFLOWS)
async def test_a_prompt_too_long_is_an_overflow(
    server: Server, connect: Connect, provider: str, status: int, text: str
) -> None:
    about = {"type": "invalid_request_error", "status": "INVALID_ARGUMENT", "code": status}
    server.replies = [error(status, {"error": {"message": text, **about}})]
    failure = await failed(connect(server.url).get(BY_NAME[provider].model), asking("hello"))
    assert failure.kind == "overflow"


@pytest.mark.behaviour("models:failures:cut-stream")
@pytest.mark.parametrize("end", ["cut", "done"])
async def test_an_answer_that_does_not_end_is_no_answer(wire: Wire, server: Server, connect: Connect, end: str) -> None:
    server.replies = [Reply(wire.answer(["half an ans"], finish=None), end=end)]
    *deltas, _ = await events(connect(server.url).get(wire.model), asking("hello"))
    failure = await failed(connect(server.url).get(wire.model), asking("hello"))
    assert len(deltas) == 1
    assert failure.kind == "transient"
    assert "in the middle of the answer" in failure.message


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"data: {not json\n\n", b"data: [1, 2]\n\n", b""])
async def test_garbage_is_a_failure(wire: Wire, server: Server, connect: Connect, body: bytes) -> None:
    server.replies = [Reply([body] if body else [])]
    failure = await failed(connect(server.url).get(wire.model), asking("hello"))
    assert "\n" not in failure.message


@pytest.mark.behaviour("models:failures:stalled")
@pytest.mark.parametrize("pieces", [0, 1], ids=["from the start", "after a piece"])
async def test_a_model_that_sends_nothing_has_stalled(
    wire: Wire, server: Server, connect: Connect, pieces: int
) -> None:
    server.replies = [Reply(wire.answer(["first"] * pieces, finish=None), end="hang")]
    failure = await failed(connect(server.url, stalled_after=0.1).get(wire.model), asking("hello"))
    assert failure.kind == "stalled"
    assert failure.transient
    assert failure.message == f"{wire.provider} sent nothing for 0.1 seconds"


@pytest.mark.behaviour("models:failures:unreachable")
async def test_a_server_that_is_not_there_is_named(wire: Wire, server: Server, connect: Connect) -> None:
    url = server.url
    nobody = f"{url.rpartition(':')[0]}:1"
    failure = await failed(connect(nobody).get(wire.model), asking("hello"))
    assert failure.kind == "transient"
    assert failure.message.startswith(f"{wire.provider} cannot be reached at {nobody}")
