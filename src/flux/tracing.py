"""Spans for OpenTelemetry: of workflows, tasks, model calls and tool calls. Nothing is recorded unless it is set up.

Names and attributes of model and tool calls follow the semantic conventions for generative AI; what was said is
never recorded, only who, how long, how many tokens, and how it ended.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from flux import redaction
from flux.errors import MissingPackage

#: Where spans are sent; the variables that OpenTelemetry itself reads.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NAME = "flux"


class Span(Protocol):
    """One span under way."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Add what is known by now."""
        ...


class _Nothing:
    """A span that nobody records."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Nothing."""


NOTHING = _Nothing()


class _Tracing:
    tracer: Any = None


def use(provider: Any) -> None:
    """Record spans with a tracer provider; None: not any more."""
    _Tracing.tracer = None if provider is None else provider.get_tracer(NAME)


def configure(environment: Mapping[str, str]) -> Any:
    """Send spans where the environment says; returns what must be shut down at the end, None when nothing is sent.

    :raises MissingPackage: the environment says so, and OpenTelemetry is not installed
    """
    if not any(environment.get(name) for name in ENDPOINTS) or environment.get("OTEL_SDK_DISABLED") == "true":
        return None
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise MissingPackage(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and that needs an extra package: pip install 'flux-harness[telemetry]'"
        ) from error
    resource = resources.Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME") or NAME})
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    use(provider)
    return provider


class _Opened:
    """A span that is recorded, without the secrets that this process knows."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def set_attribute(self, key: str, value: Any) -> None:
        """Add what is known by now."""
        self._span.set_attribute(key, redaction.value(value))


class _Around:
    """Opens a span and ends it; what is raised inside marks it as failed."""

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        # What is raised is told by us: its text may hold a secret.
        self._manager = _Tracing.tracer.start_as_current_span(
            redaction.text(name), attributes=redaction.value(attributes), record_exception=False,
            set_status_on_exception=False,
        )  # fmt: skip
        self._span: Any = None

    def __enter__(self) -> Span:
        self._span = self._manager.__enter__()
        return _Opened(self._span)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            said = redaction.text(f"{type(error).__name__}: {error}")
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(_status(), said)
        self._manager.__exit__(kind, error, trace)


def _status() -> Any:
    return importlib.import_module("opentelemetry.trace").StatusCode.ERROR


def span(name: str, attributes: Mapping[str, Any] | None = None) -> AbstractContextManager[Span]:
    """A span around what happens inside, below the one that is open; what is raised marks it as failed."""
    if _Tracing.tracer is None:
        return nullcontext(NOTHING)
    return _Around(name, {key: value for key, value in (attributes or {}).items() if value is not None})
