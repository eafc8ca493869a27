"""The HTTP application: routers, one error envelope, the guard in front."""

from __future__ import annotations

import logging
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import flux
from flux.agents.process import Process
from flux.errors import FluxError, InvalidInput, NotFound
from flux.server.guard import Guard
from flux.server.sse import HEARTBEAT_SECONDS
from flux.server.routes import agents, health, sessions
from flux.server.wire import error_body
from flux.suggest import nearest

logger = logging.getLogger(__name__)

#: JSON may escape each byte of a message.
BODY_PER_MESSAGE_BYTE = 6


def create_app(
    process: Process, *, hosts: frozenset[str] | None = frozenset(), heartbeat: float = HEARTBEAT_SECONDS
) -> FastAPI:
    """The application of a process.

    `hosts` are the names it answers to besides loopback; None: any. A stream in which nothing happens
    says so every `heartbeat` seconds.
    """
    app = FastAPI(title="Flux", version=flux.__version__, docs_url=None, redoc_url=None)
    app.state.process = process
    app.state.heartbeat = heartbeat
    app.include_router(health.router)
    app.include_router(sessions.router)
    app.include_router(agents.router)
    app.add_exception_handler(FluxError, _flux_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(
        Guard, hosts=hosts, max_body=BODY_PER_MESSAGE_BYTE * process.settings.max_message_bytes + 100_000
    )
    return app


def _envelope(error: FluxError) -> JSONResponse:
    return JSONResponse(error_body(error), error.status)


async def _flux_error(request: Request, raised: Exception) -> JSONResponse:
    error = cast(FluxError, raised)
    if error.status >= 500:
        logger.error("%s %s: %s %s", request.method, request.url.path, error, error.debug)
    return _envelope(error)


async def _invalid(request: Request, raised: Exception) -> JSONResponse:
    faults = cast(RequestValidationError, raised).errors()
    return _envelope(InvalidInput("; ".join(_fault(fault) for fault in faults)))


async def _http_error(request: Request, raised: Exception) -> JSONResponse:
    error = cast(HTTPException, raised)
    if error.status_code == 404:
        return _envelope(NotFound(f"there is no {request.method} {request.url.path[:200]}"))
    wrong = InvalidInput(str(error.detail))
    return JSONResponse(error_body(wrong), error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return _envelope(FluxError("something went wrong inside the server; its log has the details"))


def _fault(fault: Any) -> str:
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place[1:]) or place[0]
    if fault["type"] == "extra_forbidden":
        like = nearest(place[-1], BODY_FIELDS)
        return f"unknown field {name!r}" + (f"; did you mean {like!r}?" if like else "")
    if fault["type"] == "missing":
        return f"missing field {name!r}"
    return f"{name}: {fault['msg']}"


BODY_FIELDS = ("agent", "instance", "name", "message", "model", "mode", "decision", "reason", "always", "content")
