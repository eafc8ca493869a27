"""The HTTP application: routers, one error envelope, the guard in front."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from typing import Any, cast, get_type_hints

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import flux
from flux.agents.process import Process
from flux.errors import FluxError, InvalidInput, NotFound
from flux.http.envelope import error_body, error_headers
from flux.http.guard import Guard, body_limit
from flux.http.streaming import HEARTBEAT_SECONDS
from flux.server import socket
from flux.server.auth import Authentication
from flux.server.context import whole_segments
from flux.server.limits import ServerLimits
from flux.server.measure import Counts, RequestCounter
from flux.server.rbac import require
from flux.server.routes import (
    agents,
    artifacts,
    audit,
    configs,
    executions,
    health,
    instances,
    memories,
    oauth,
    principals,
    project_runs,
    roles,
    runs,
    schedules,
    secrets,
    sessions,
    webhooks,
    workers,
    workflows,
)
from flux.server.routes import auth as auth_routes
from flux.server.wire import ERRORS, Body
from flux.suggest import nearest

logger = logging.getLogger(__name__)


def create_app(
    process: Process,
    *,
    hosts: frozenset[str] | None = frozenset(),
    heartbeat: float = HEARTBEAT_SECONDS,
    operator: bool = False,
) -> FastAPI:
    """The application of a process. `operator`: only who has its database calls it, and need not say who they are.

    `hosts` are the names it answers to besides loopback; None: any. A stream in which nothing happens
    says so every `heartbeat` seconds.
    """
    app = FastAPI(
        title="Flux", version=flux.__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        responses=ERRORS, dependencies=[Depends(whole_segments), Depends(require)],
    )  # fmt: skip
    app.state.process = process
    app.state.heartbeat = heartbeat
    app.state.closing = asyncio.Event()
    app.state.limits = ServerLimits(process.settings)
    app.include_router(runs.router)  # routes are tried in this order: what is called most is found first
    app.include_router(health.router)
    app.include_router(sessions.router)
    app.include_router(artifacts.router)
    app.include_router(agents.router)
    app.include_router(schedules.router)
    app.include_router(webhooks.router)
    app.include_router(workers.router)
    app.include_router(workflows.router)
    app.include_router(instances.router)
    app.include_router(project_runs.router)
    app.include_router(executions.router)
    app.include_router(configs.router)
    app.include_router(secrets.router)
    app.include_router(oauth.router)
    app.include_router(memories.router)
    app.include_router(audit.router)
    app.include_router(auth_routes.router)
    app.include_router(principals.router)
    app.include_router(roles.router)
    app.router.routes.append(socket.ROUTE)
    app.add_exception_handler(FluxError, _flux_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(UnicodeEncodeError, _not_text)
    app.add_exception_handler(Exception, _unexpected)
    app.state.counts = Counts(process.database, process.settings.dead_after)
    if process.identities.enabled and not operator:
        _ask_who_calls(app, process)
    app.add_middleware(
        Guard,
        hosts=hosts,
        max_body=body_limit(process.settings.max_message_bytes),
        max_headers=process.settings.max_header_bytes,
    )
    app.add_middleware(RequestCounter)
    return app


def _ask_who_calls(app: FastAPI, process: Process) -> None:
    auth, tenant, tokens = process.settings.auth, process.operator.tenant, None
    if auth.oidc.enabled:
        oidc: Any = import_module("flux.server.oidc")  # its signatures cost what most servers never use
        tokens = oidc.Tokens(process.identities, auth.oidc, tenant=tenant)
    app.add_middleware(
        Authentication, identities=process.identities, tenant=tenant, keys=auth.api_keys.enabled, tokens=tokens
    )


def end_streams(app: FastAPI) -> None:
    """The server is about to stop: open streams end in good order, and their readers come back later."""
    app.state.closing.set()


def _envelope(error: FluxError) -> JSONResponse:
    return JSONResponse(error_body(error), error.status, headers=error_headers(error))


async def _flux_error(request: Request, raised: Exception) -> JSONResponse:
    error = cast(FluxError, raised)
    if error.status >= 500:
        logger.error("%s %s: %s %s", request.method, request.url.path, error, error.debug)
    return _envelope(error)


async def _invalid(request: Request, raised: Exception) -> JSONResponse:
    faults = cast(RequestValidationError, raised).errors()
    fields = _fields(request.scope.get("endpoint"))
    return _envelope(InvalidInput("; ".join(_fault(fault, fields) for fault in faults)))


async def _http_error(request: Request, raised: Exception) -> JSONResponse:
    error = cast(HTTPException, raised)
    if isinstance(error.__cause__, FluxError):
        return _envelope(error.__cause__)
    if error.status_code == 404:
        return _envelope(NotFound(f"there is no {request.method} {request.url.path[:200]}"))
    said = str(error.detail)
    if error.status_code == 405:
        said = f"{request.method} is not possible at {request.url.path[:200]}"
    elif error.status_code == 400:
        form = request.headers.get("content-type", "").startswith("multipart/")
        said = f"the body cannot be read as a form: {said}" if form else "the body is not JSON"
    return JSONResponse(error_body(InvalidInput(said)), error.status_code, headers=error.headers)


async def _not_text(request: Request, raised: Exception) -> JSONResponse:
    return _envelope(InvalidInput("the request holds text that is not Unicode: half of a surrogate pair"))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return _envelope(FluxError("something went wrong inside the server; its log has the details"))


def _fields(endpoint: Any) -> list[str]:
    """The fields of the body that a route takes."""
    hints = get_type_hints(endpoint).values() if endpoint else ()
    return [field for hint in hints if isinstance(hint, type) and issubclass(hint, Body) for field in hint.model_fields]


def _fault(fault: Any, fields: list[str]) -> str:
    place = fault["loc"]
    if fault["type"] == "json_invalid":
        return f"the body is not JSON: {fault['ctx']['error']} at character {place[1]}"
    if place == ("body",):
        return "missing body" if fault["type"] == "missing" else _shape(fault)
    name = ".".join(str(part) for part in place[1:])
    if fault["type"] == "extra_forbidden":
        like = nearest(str(place[-1]), fields)
        return f"unknown field {name!r}" + (f"; did you mean {like!r}?" if like else "")
    if fault["type"] == "missing":
        return f"missing field {name!r}"
    return f"{name}: {_said(fault)}"


def _shape(fault: Any) -> str:
    if fault["type"] == "value_error":
        return f"the body {_said(fault)}"
    return "the body must be a JSON object, sent as application/json"


def _said(fault: Any) -> str:
    return str(fault["msg"]).removeprefix("Value error, ")
