"""The clock of schedules: each time that comes is taken by one worker, and starts one execution.

Taking a time, starting what it starts, and the line of history are one transaction, so a crash leaves all or
nothing; two workers that see the same time move the schedule on by the same conditional UPDATE, which only one does.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import msgspec

from flux.engine.dispatching.dispatch import Dispatch
from flux.engine.dispatching.upkeep import PAUSE_SECONDS, keep_up, survive
from flux.engine.encoding.values import encode_value
from flux.engine.intake.admitting import admit_steps, start_session_steps, start_workflow_steps
from flux.engine.intake.agent_workflows import session_of
from flux.engine.intake.answers import Written
from flux.engine.intake.inputs import NewMessage, NewSession, NewWorkflow
from flux.engine.schedules import CatchUp, catch_up, decode_spec
from flux.engine.service.executions import FindWorkflow
from flux.engine.service.identity import to_start
from flux.errors import AgentNotFound, DatabaseLocked, DatabaseUnavailable, FluxError, InvalidInput, SessionExists
from flux.store import agents, schedules
from flux.store.database import Database, Scope, Steps
from flux.store.feed import Feed
from flux.store.schedules import Schedule

logger = logging.getLogger(__name__)

BATCH = 100
#: Seconds between two looks at most: another process may have made a schedule, or the clock may have been set.
LOOK_SECONDS = 5.0
#: With the policy "skip" a time counts as missed when it is seen so many seconds late.
LATE_SECONDS = 60.0

#: Refuses what somebody may not do.
Require = Callable[..., Awaitable[None]]
#: Makes the program that starts what a schedule starts at a time; raises FluxError when it cannot.
Start = Callable[[Schedule, float], Awaitable[Steps[Written]]]


class Starter:
    """Starts workflows, and sends messages to agents, on behalf of a schedule's owner."""

    def __init__(self, dispatch: Dispatch, find: FindWorkflow, workspace: str, require: Require | None = None) -> None:
        self._require = require
        self._dispatch = dispatch
        self._find = find
        self._workspace = workspace

    async def __call__(self, schedule: Schedule, due: float) -> Steps[Written]:
        """The program that starts what is due.

        :raises WorkflowNotFound: there is no such workflow
        :raises Forbidden: the owner may no longer start it
        """
        if self._require is not None:
            await self._require(schedule.scope, *to_start(workflow=schedule.workflow, agent=schedule.agent))
        if schedule.target == "agent":
            return self._say(schedule)
        workflow = schedule.workflow or ""
        found = await self._find(schedule.scope, workflow, None)
        new = NewWorkflow(
            workflow=workflow,
            source_version=found.version,
            input=encode_value(msgspec.json.decode(schedule.input)),
            pool=found.pool,
            requests=found.requests,
            id=execution_of(schedule.id, due),
        )
        return start_workflow_steps(schedule.scope, new, self._dispatch)

    def _say(self, schedule: Schedule) -> Steps[Written]:
        """Send the message to the session of the instance; start that if there is none."""
        agent, instance = schedule.agent or "", schedule.instance or schedule.name
        message = NewMessage(schedule.message or "")
        open_one = yield from schedules.open_session(schedule.scope, agent, instance)
        if open_one is None:
            found = yield from agents.get(schedule.scope, agent)
            if found is None:
                raise AgentNotFound(f"there is no agent {agent!r}; `flux agent list` shows those that exist")
            new = NewSession(agent, found.digest, found.version, instance, workspace=self._workspace)
            new = yield from session_of(schedule.scope, found, new)
            try:
                return (yield from start_session_steps(schedule.scope, new, message, self._dispatch))
            except SessionExists:  # another transaction was faster, unless it belongs to somebody else
                open_one = yield from schedules.open_session(schedule.scope, agent, instance)
                if open_one is None:
                    raise
        return (yield from admit_steps(schedule.scope, open_one, message, self._dispatch))


class Ticker:
    """Fires what is due, then sleeps until the next time or until a schedule changes."""

    def __init__(self, database: Database, feed: Feed, dispatch: Dispatch, start: Start) -> None:
        self._database = database
        self._feed = feed
        self._dispatch = dispatch
        self._start = start
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """A schedule was made or changed: look again."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Fire until cancelled."""
        await keep_up("schedules", self._step)

    async def tick(self) -> float:
        """Fire everything that is due now; returns seconds until the next look."""
        due, now, seconds = await self._database.read(schedules.due(BATCH))
        done = [await survive(f"schedule {schedule.name} broke", self.fire(schedule, now)) for schedule in due]
        if not all(done):
            return PAUSE_SECONDS
        if due:
            return 0.0  # there may be more, and what was fired is due again at a time that was not seen
        return LOOK_SECONDS if seconds is None else min(seconds, LOOK_SECONDS)

    async def fire(self, schedule: Schedule, now: float) -> None:
        """Do what a schedule asks for at the time it is due, unless somebody else has.

        :raises DatabaseUnavailable, DatabaseLocked: nothing happened, or all of it
        """
        due = schedule.next_at or now
        try:
            stand = catch_up(decode_spec(schedule.spec), due, now)
        except InvalidInput as error:  # such as a time zone that is not there any more
            await self._database.write(_stop(schedule, due, str(error)))
            return
        try:
            program = await self._start(schedule, due)
            started = await self._database.write(_fire(schedule, due, now, stand, program))
        except (DatabaseUnavailable, DatabaseLocked):
            raise
        except FluxError as error:
            logger.warning("schedule %s: %s", schedule.name, error)
            await self._database.write(_fail(schedule, due, stand, str(error)))
            return
        if started is not None:
            admitted, rows = started
            self._feed.publish(admitted.id, rows)
            self._dispatch.nudge(admitted.id)

    async def _step(self) -> None:
        self._changed.clear()
        seconds = await self.tick()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def execution_of(schedule: str, due: float) -> str:
    """The id of the execution that a schedule starts at a time: always the same."""
    return str(uuid.uuid5(uuid.UUID(schedule), repr(due)))


async def check_target(database: Database, find: FindWorkflow, scope: Scope, given: schedules.Given) -> None:
    """See that what is to be started exists.

    :raises AgentNotFound, WorkflowNotFound: it does not
    """
    if given.target == "workflow":
        await find(scope, given.workflow or "", None)
    elif await database.read(agents.get(scope, given.agent or "")) is None:
        raise AgentNotFound(f"there is no agent {given.agent!r}; `flux agent list` shows those that exist")


def _fire(schedule: Schedule, due: float, now: float, stand: CatchUp, program: Steps[Written]) -> Steps[Written | None]:
    """Take a time and do what is to be done; None when nothing was started."""
    if not (yield from schedules.take(schedule, stand.next_at)):
        return None
    if schedule.missed == "skip" and now - stand.latest > LATE_SECONDS:
        yield from schedules.record(schedule.id, due, "missed", missed=stand.missed)
        return None
    if schedule.overlap == "skip" and not (yield from schedules.is_over(schedule)):
        still = f"execution {schedule.last_execution} of the time before has not ended"
        yield from schedules.record(schedule.id, due, "skipped", missed=stand.missed, error=still)
        return None
    started = yield from program
    yield from schedules.record(schedule.id, due, "started", missed=stand.missed, execution_id=started[0].id)
    return started


def _fail(schedule: Schedule, due: float, stand: CatchUp, error: str) -> Steps[None]:
    """Take a time at which nothing could be started."""
    if (yield from schedules.take(schedule, stand.next_at)):
        yield from schedules.record(schedule.id, due, "failed", missed=stand.missed, error=error)


def _stop(schedule: Schedule, due: float, error: str) -> Steps[None]:
    """Pause a schedule that cannot be read."""
    if (yield from schedules.take(schedule, None, "paused")):
        yield from schedules.record(schedule.id, due, "failed", missed=0, error=error)
