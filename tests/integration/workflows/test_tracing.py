"""Spans of workflows and tasks, and of the model and tool calls of sessions."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flux import ExecutionContext, task, tracing, workflow
from flux.store.database import Database
from flux.tracing import configure
from tests.integration.workflows.machine import working


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)
    provider.shutdown()


@task
async def inner(x: str) -> str:
    return x


@task
async def outer(x: str) -> str:
    return str(await inner(x))


@workflow.with_options(namespace="traced")
async def traced(ctx: ExecutionContext[str]) -> list[str]:
    return list(await asyncio.gather(outer(ctx.input), outer(ctx.input)))


def parent(found: tuple[ReadableSpan, ...], one: ReadableSpan) -> str | None:
    ids = {span.context.span_id: span.name for span in found if span.context}
    return ids.get(one.parent.span_id) if one.parent else None


@pytest.mark.behaviour("tracing:workflows:nested")
async def test_spans_of_tasks_lie_in_those_of_their_callers(database: Database, spans: InMemorySpanExporter) -> None:
    async with working(database) as machine:
        context = await machine.run(traced, "secret words")
    found = spans.get_finished_spans()
    assert sorted((span.name, parent(found, span)) for span in found) == [
        ("task inner", "task outer"),
        ("task inner", "task outer"),
        ("task outer", "workflow traced/traced"),
        ("task outer", "workflow traced/traced"),
        ("workflow traced/traced", None),
    ]
    assert {(span.attributes or {})["flux.execution.id"] for span in found} == {context.execution_id}
    assert "secret words" not in "".join(span.to_json() for span in found)


@pytest.mark.behaviour("tracing:off")
async def test_without_an_endpoint_nothing_is_set_up() -> None:
    assert configure({}) is None
    assert configure({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}) is None


class _Collector(http.server.BaseHTTPRequestHandler):
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.behaviour("tracing:otlp")
async def test_spans_are_sent_where_the_environment_says(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        provider = configure({"OTEL_EXPORTER_OTLP_ENDPOINT": "set"})
        try:
            async with working(database) as machine:
                await machine.run(traced, "x")
        finally:
            tracing.use(None)
            await asyncio.to_thread(provider.shutdown)
            server.shutdown()
    assert b"workflow traced/traced" in b"".join(_Collector.bodies)
