"""The one place that decides what a caller may do: `require` runs before every route, by the table of `rules`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import Request

from flux.agents.process import Process
from flux.engine.configuration.configs import no_config
from flux.engine.service.identity import OPERATOR, TALK, Caller, check_allowed
from flux.errors import (
    AgentNotFound,
    Forbidden,
    MemoryNotFound,
    NotFound,
    ScheduleNotFound,
    WorkerNotFound,
)
from flux.permissions import Permissions, quoted
from flux.server.auth import NOBODY, caller_of
from flux.server.limits import ServerLimits
from flux.server.rules import RULES, Inside, Listing, Needs, Row, Rule
from flux.store import executions, interrupts, workflows
from flux.store.database import EVERYBODYS, OWN, Reach, Scope
from flux.store.executions import Execution

#: The names of a thing that stand in a template.
Names = Callable[[Any], Mapping[str, str]]

PLACE = re.compile(r"{(\w+)}")
ACTING = "flux.acting"
UNCHECKED = "flux.unchecked"
COUNTED = "flux.counted"

_ALL = ("execution:*:read", "agent:*:session:read")
_TALKS = (*_ALL, TALK, "agent:*:start")
#: With these there is no row that one may not act on so: it need not be looked at first.
EVERYWHERE: Mapping[str, tuple[str, ...]] = {
    "see": _ALL,
    "talk": (*_TALKS, "workflow:*:*:run"),
    "cancel": (*_TALKS, "execution:*:cancel"),
    "update": (*_TALKS, "execution:*:update"),
    "delete": (*_TALKS, "execution:*:delete"),
    "decide": (*_TALKS, "workflow:*:*:run", "workflow:*:*:task:*:approve"),
}
#: What a caller is told who may not know of something: the same as where there is none.
HIDDEN: Mapping[str, Callable[[Mapping[str, Any]], NotFound]] = {
    "agent": lambda path: AgentNotFound(
        f"there is no agent {path['name']!r}; `flux agent list` shows those that exist"
    ),
    "schedule": lambda path: ScheduleNotFound(
        f"there is no schedule {path['name'][:80]!r}; `flux schedule list` shows those that exist"
    ),
    "worker": lambda path: WorkerNotFound(
        f"there is no worker {path['name'][:80]!r}; `flux worker list` shows those that exist"
    ),
    "config": lambda path: no_config(path["name"]),
    "memory": lambda path: MemoryNotFound(
        f"there is no memory {path['key']!r}; `flux memory list` shows those that exist"
    ),
    "workflow": lambda path: workflows.not_found(path["namespace"], path["name"]),
}


async def require(request: Request) -> None:
    """Let a caller on to the route, or not.

    :raises Forbidden: a permission is missing
    :raises NotFound: there is nothing there, for this caller
    :raises TooManyRequests: the caller sends too many
    """
    caller = caller_of(request)
    if caller is OPERATOR:
        asked = _process(request).identities.enabled
        operator = _process(request).operator
        request.scope[ACTING] = Scope(operator.tenant, operator.principal, EVERYBODYS if asked else OWN)
        return
    if caller is not NOBODY:
        count(request, caller.scope)  # also what is refused
    match _rule(request):
        case Needs() as needs:
            _check(caller.permissions, needs.all, needs.knows, request.path_params)
            reach = Reach(False, frozenset({request.path_params["name"]})) if needs.sessions else OWN
        case Row() as row:
            reach = await _reach_row(request, caller, row)
        case Listing():
            reach = _reach_all(caller.permissions)
        case Inside() as inside:
            check_allowed(caller.permissions, inside.all)
            request.scope[UNCHECKED] = True
            reach = OWN
    request.scope[ACTING] = Scope(caller.scope.tenant, caller.scope.principal, reach)


def count(request: Request, scope: Scope) -> None:
    """Count a request, once.

    :raises TooManyRequests: its principal sends too many
    """
    if COUNTED not in request.scope:
        request.scope[COUNTED] = True
        limits: ServerLimits = request.app.state.limits
        limits.count(scope)


def acting(request: Request) -> Scope:
    """On whose behalf a request acts, once that was decided."""
    if request.scope.get(UNCHECKED):
        raise RuntimeError(f"{request.method} {request.scope['route'].path} has not asked what its body needs")
    scope: Scope = request.scope[ACTING]
    return scope


def check(request: Request, *needed: str, knows: str | None = None, **names: str) -> None:
    """Refuse what the caller may not do; `names` stand in the templates. For routes whose rule is `Inside`.

    :raises Forbidden: a permission is missing
    :raises NotFound: one is, and the caller may not even do `knows`; or nothing is needed but that
    """
    _check(caller_of(request).permissions, needed, knows, request.path_params | names)
    request.scope[UNCHECKED] = False


def may(request: Request, *needed: str, **names: str) -> bool:
    """Whether the caller may do this."""
    permissions = caller_of(request).permissions
    return all(permissions.allow(filled(one, request.path_params | names)) for one in needed)


def choosy(request: Request, template: str, names: Names) -> Callable[[Any], bool] | None:
    """Which things of a list the caller may read, by their `names` in the template; None: all of them.

    For routes whose rule is `Inside`.
    """
    request.scope[UNCHECKED] = False
    permissions = caller_of(request).permissions
    if permissions.allow(PLACE.sub("*", template)):
        return None
    return lambda thing: permissions.allow(filled(template, names(thing)))


def filled(template: str, names: Mapping[str, Any]) -> str:
    """A permission with names put in, each as one segment."""
    return PLACE.sub(lambda found: quoted(str(names[found[1]])), template)


def _rule(request: Request) -> Rule:
    place = f"{request.method} {request.scope['route'].path}"
    rule = RULES.get(place)
    if rule is None:
        raise Forbidden(f"nobody may use {place}: it has no rule")
    return rule


def _check(permissions: Permissions, needed: Iterable[str], knows: str | None, names: Mapping[str, Any]) -> None:
    wanted = [filled(one, names) for one in needed]
    done = bool(wanted) and all(map(permissions.allow, wanted))
    if knows is not None and not done and not permissions.allow(filled(knows, names)):
        raise HIDDEN[knows.partition(":")[0]](names)
    check_allowed(permissions, wanted)


def _reach_all(permissions: Permissions) -> Reach:
    if not permissions.allow("execution:*:read"):
        return OWN
    return Reach(True, permissions.among("agent:{}:session:read"))


async def _reach_row(request: Request, caller: Caller, rule: Row) -> Reach:
    """What may be reached to act on the row of the path: everything, or nothing beyond one's own.

    :raises Forbidden: the caller may see it, and no more
    """
    if all(map(caller.permissions.allow, EVERYWHERE[rule.act])):
        return EVERYBODYS
    process, id = _process(request), request.path_params["id"]
    id = id.rpartition(".")[0] if rule.message else id
    row = await process.database.single(executions.get(caller.scope, id))
    if row is None or not _sees(caller, row):
        return OWN
    if rule.act != "see" and (rule.owner or row.owner != caller.scope.principal):
        check_allowed(caller.permissions, await _needed(request, caller.scope, row, rule))
    return EVERYBODYS


def _sees(caller: Caller, row: Execution) -> bool:
    allow = caller.permissions.allow
    if row.owner == caller.scope.principal:
        return True
    if row.agent is None:
        return allow(f"execution:{quoted(row.id)}:read")
    reads = allow("execution:*:read") and allow(f"agent:{quoted(row.agent)}:session:read")
    return reads or all(map(allow, _talk(row)))


async def _needed(request: Request, scope: Scope, row: Execution, rule: Row) -> list[str]:
    if rule.act == "decide":
        return await _to_decide(request, scope, row)
    if rule.act == "talk" or row.agent is not None:
        return _talk(row)
    return [f"execution:{quoted(row.id)}:{rule.act}"]


async def _to_decide(request: Request, scope: Scope, row: Execution) -> list[str]:
    """An approval needs the permission for its tool; whatever else is asked, that for talking."""
    path = request.path_params
    database = _process(request).database
    asked = await database.read(interrupts.get(scope, row.id, path.get("iid") or path["call"]))
    if asked is None or asked.kind != "approval":
        return _talk(row)
    asking = row if asked.execution_id == row.id else await database.read(executions.get(scope, asked.execution_id))
    tool = str(interrupts.payload_of(asked).get("tool", ""))
    return [f"{place_of(asking or row)}:task:{quoted(tool)}:approve"]


def _talk(row: Execution) -> list[str]:
    """What it takes to make an execution go on."""
    return [TALK, f"agent:{quoted(row.agent)}:start"] if row.agent is not None else [f"{place_of(row)}:run"]


def place_of(row: Execution) -> str:
    """The workflow of an execution, as permissions name it."""
    if row.kind == "session" or not row.workflow:
        return "workflow:agents:agent_chat"
    return ":".join(["workflow", *map(quoted, row.workflow.split("/", 1))])


def _process(request: Request) -> Process:
    process: Process = request.app.state.process
    return process
