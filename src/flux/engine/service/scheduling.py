"""What may be done with schedules: the service behind the routes, and the program behind registration."""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec
from msgspec import Struct

from flux.engine.schedules import Spec, cron, decode_spec, encode_spec, first_after, parse_every, parse_time
from flux.engine.service.executions import FindWorkflow
from flux.engine.service.ticker import Ticker, check_target
from flux.errors import Conflict, InvalidInput, ScheduleNotFound, TooLarge
from flux.store import audit, schedules
from flux.store.database import Database, Scope, Steps
from flux.store.schedules import Given, Missed, Overlap, Schedule, ScheduleRun, ScheduleState

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NewSchedule(Struct, frozen=True, kw_only=True):
    """A schedule as given: one of `workflow` ("namespace/name") and `agent`, one of `cron`, `interval` and `once`.

    `input` is for a workflow, plain JSON; `message` for an agent, `instance` None: the name.
    """

    workflow: str | None = None
    agent: str | None = None
    instance: str | None = None
    message: str | None = None
    input: Any = None
    cron: str | None = None
    interval: str | None = None
    once: str | None = None
    timezone: str = "UTC"
    overlap: Overlap = "skip"
    missed: Missed = "once"


class Schedules:
    """Schedules of a tenant. Whoever made or last changed one is its owner: its runs act as that principal."""

    def __init__(self, database: Database, ticker: Ticker, find: FindWorkflow, max_message: int) -> None:
        self._database = database
        self._ticker = ticker
        self._find = find
        self._max_message = max_message

    async def create(self, scope: Scope, name: str, new: NewSchedule) -> Schedule:
        """Store a new schedule.

        :raises InvalidInput, TooLarge: it cannot be, or would never fire
        :raises AgentNotFound, WorkflowNotFound: there is nothing to start
        :raises ScheduleExists: the name is taken
        """
        check_name(name)
        given = self._given(new)
        await check_target(self._database, self._find, scope, given)
        return await self._changed(audit.noted(scope, _create(scope, name, given), "schedule.create", name))

    async def replace(self, scope: Scope, name: str, new: NewSchedule) -> Schedule:
        """Change a schedule; a paused one stays paused. Its next time stays too, unless the times are others.

        :raises InvalidInput, TooLarge: it cannot be, or would never fire
        :raises AgentNotFound, WorkflowNotFound: there is nothing to start
        :raises ScheduleNotFound: there is none of this name
        """
        given = self._given(new)
        await check_target(self._database, self._find, scope, given)
        return await self._changed(audit.noted(scope, _replace(scope, name, given), "schedule.update", name))

    async def get(self, scope: Scope, name: str) -> Schedule:
        """A schedule.

        :raises ScheduleNotFound: there is none
        """
        return _found(await self._database.read(schedules.get(scope, name)), name)

    async def page(self, scope: Scope, after: str, limit: int) -> list[Schedule]:
        """Schedules by name."""
        return await self._database.read(schedules.page(scope, after, limit))

    async def delete(self, scope: Scope, name: str) -> None:
        """Remove a schedule and its history; what it has started goes on.

        :raises ScheduleNotFound: there is none
        """
        program = audit.noted_if(scope, schedules.delete(scope, name), "schedule.delete", name)
        if not await self._database.write(program):
            _found(None, name)

    async def pause(self, scope: Scope, name: str) -> Schedule:
        """Let nothing start until `resume`; times that pass meanwhile are not made up for.

        :raises ScheduleNotFound: there is none
        :raises Conflict: it is over
        """
        return await self._changed(audit.noted(scope, _pause(scope, name), "schedule.pause", name))

    async def resume(self, scope: Scope, name: str) -> Schedule:
        """Go on with the next time from now.

        :raises ScheduleNotFound: there is none
        :raises Conflict: it is over, or has no time left
        """
        return await self._changed(audit.noted(scope, _resume(scope, name), "schedule.resume", name))

    async def history(self, scope: Scope, name: str, before: float | None, limit: int) -> list[ScheduleRun]:
        """What became of its times, newest first.

        :raises ScheduleNotFound: there is none
        """
        await self.get(scope, name)
        return await self._database.read(schedules.history(scope, name, before, limit))

    async def _changed(self, program: Steps[Schedule]) -> Schedule:
        schedule = await self._database.write(program)
        self._ticker.changed()
        return schedule

    def _given(self, new: NewSchedule) -> Given:
        """The columns of what a user gave.

        :raises InvalidInput: it does not fit together
        :raises TooLarge: the message is
        """
        size = len((new.message or "").encode())
        if size > self._max_message:
            raise TooLarge(f"the message has {size:,} bytes, the limit is {self._max_message:,}")
        _check_target_fields(new)
        return Given(
            target="agent" if new.agent is not None else "workflow",
            workflow=new.workflow,
            agent=new.agent,
            instance=new.instance,
            message=new.message,
            input=msgspec.json.encode(new.input).decode(),
            spec=encode_spec(_spec(new)),
            overlap=new.overlap,
            missed=new.missed,
        )


def put_from_options(scope: Scope, namespace: str, name: str, schedule_spec_json: str) -> Steps[Schedule]:
    """Create or update the schedule of a workflow that is being registered; it is named "namespace.name".

    The same times again leave it as it is, also paused or done. Nudge the ticker after the commit.

    :raises InvalidInput: it is no schedule, or would never fire
    :raises Conflict: a schedule of this name starts something else
    """
    workflow, known_as = f"{namespace}/{name}", f"{namespace}.{name}"
    spec = encode_spec(decode_spec(schedule_spec_json))
    before = yield from schedules.lock(scope, known_as)
    if before is None:
        return (yield from _create(scope, known_as, Given(target="workflow", workflow=workflow, spec=spec)))
    if before.workflow != workflow:
        raise Conflict(f"a schedule {known_as!r} starts something else; delete it, or give the workflow another name")
    given = Given(
        target="workflow",
        workflow=workflow,
        input=before.input,
        spec=spec,
        overlap=before.overlap,
        missed=before.missed,
    )
    return (yield from _replace(scope, known_as, given))


def check_name(name: str) -> None:
    """:raises InvalidInput: it is no name of a schedule."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"name {name[:80]!r}: a letter or digit, then letters, digits, '.', '_' and '-'; 128 characters at most"
        )


def _check_target_fields(new: NewSchedule) -> None:
    if (new.workflow is None) == (new.agent is None):
        raise InvalidInput("give workflow or agent, one of them: what is to be started")
    if new.agent is not None and not new.message:
        raise InvalidInput("give message: what the agent is to be told")
    if new.agent is not None and new.input is not None:
        raise InvalidInput("input is for a workflow; an agent takes a message")
    if new.workflow is not None and (new.message is not None or new.instance is not None):
        raise InvalidInput("message and instance are for an agent; a workflow takes an input")


def _spec(new: NewSchedule) -> Spec:
    given = [text for text in (new.cron, new.interval, new.once) if text is not None]
    if len(given) != 1:
        raise InvalidInput("give cron, interval or once, one of them: when it is to be started")
    if new.cron is not None:
        return cron(new.cron, new.timezone)
    if new.interval is not None:
        return parse_every(new.interval, new.timezone)
    return parse_time(new.once or "", new.timezone)


def _create(scope: Scope, name: str, given: Given) -> Steps[Schedule]:
    next_at = first_after(decode_spec(given.spec), (yield from schedules.now()))
    return (yield from schedules.create(scope, str(uuid.uuid4()), name, given, next_at))


def _replace(scope: Scope, name: str, given: Given) -> Steps[Schedule]:
    before = _found((yield from schedules.lock(scope, name)), name)
    state, next_at = before.state, before.next_at
    if given.spec != before.spec:
        found = first_after(decode_spec(given.spec), (yield from schedules.now()))
        state = "paused" if before.state == "paused" else "active"
        next_at = found if state == "active" else None
    return (yield from schedules.replace(scope, name, given, state, next_at))


def _pause(scope: Scope, name: str) -> Steps[Schedule]:
    _not_done(_found((yield from schedules.lock(scope, name)), name))
    return (yield from schedules.set_state(scope, name, "paused", None))


def _resume(scope: Scope, name: str) -> Steps[Schedule]:
    before = _not_done(_found((yield from schedules.lock(scope, name)), name))
    if before.state == "active":
        return before
    try:
        next_at = first_after(decode_spec(before.spec), (yield from schedules.now()))
    except InvalidInput as error:
        raise Conflict(f"schedule {name!r} has no time left: {error}; give it another one") from error
    state: ScheduleState = "active"
    return (yield from schedules.set_state(scope, name, state, next_at))


def _not_done(found: Schedule) -> Schedule:
    if found.state == "done":
        raise Conflict(f"schedule {found.name!r} has fired for the last time; give it another time, or delete it")
    return found


def _found(found: Schedule | None, name: str) -> Schedule:
    if found is None:
        raise ScheduleNotFound(f"there is no schedule {name[:80]!r}; `flux schedule list` shows those that exist")
    return found
