"""Sessions in every state an execution can be in, made by the same calls that make them in life."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from flux.engine.dispatching.dispatch import EmbeddedDispatch
from flux.engine.intake.admission import Admission
from flux.engine.intake.inputs import NewMessage, NewSession
from flux.events import ApprovalRequired, ChatResponse, Entry, InputRequired, RunStarted
from flux.store import executions, interrupts, log, ownership
from flux.store.database import Database, Scope, one
from flux.store.executions import Execution
from flux.store.feed import Feed
from flux.store.log import Then

ANN = Scope("acme", "ann")
BOB = Scope("acme", "bob")
EVE = Scope("evil", "ann")
HOUR = 3600.0
WORKER = "worker-1"
HELLO = NewMessage("hello")


def admission_on(database: Database) -> Admission:
    return Admission(database, Feed(database), EmbeddedDispatch(database))


def a_session(**fields: Any) -> NewSession:
    return NewSession(**{"agent": "helper", "definition_digest": "d1", **fields})


class Sessions:
    """Makes sessions of `ANN` in a given state, and looks at them."""

    def __init__(self, database: Database, scope: Scope = ANN) -> None:
        self.database = database
        self.scope = scope
        self.admission = admission_on(database)

    async def row(self, id: str) -> Execution:
        found = await self.database.read(executions.get(self.scope, id))
        assert found is not None
        return found

    async def entries(self, id: str, after: int = 0) -> list[Entry]:
        """The entries of a session; a gap or a wrong head is an error whatever the test is about."""
        rows = await self.database.read(log.read(self.scope, id))
        assert [row.seq for row in rows] == list(range(1, (await self.row(id)).head + 1))
        found = [row.stored().entry for row in rows[after:]]
        return [entry for entry in found if isinstance(entry, Entry)]

    async def append(self, row: Execution, *entries: Entry, **options: Any) -> log.Appended:
        return await self.database.write(log.append(self.scope, row.id, row.epoch, row.run_id, entries, **options))

    async def claim(self, id: str, worker: str = WORKER) -> Execution:
        found = await self.database.write(ownership.claim(id, worker))
        assert found is not None
        return found

    async def ask(self, row: Execution, question: str = "q", **fields: Any) -> str:
        """Open a question of a running session, as its run would."""
        entry: Entry = InputRequired(id=question, call="c1", question="Which?")
        given = {"call": "c1", "kind": "input", "payload": {"question": "Which?"}, **fields}
        if given["kind"] == "approval":
            entry = ApprovalRequired(id=question, call="c1", agent="helper", tool="shell", args={}, digest="x")
            given["payload"] = {"tool": "shell"}
        await self.database.write(interrupts.open_interrupt(self.scope, id=question, execution_id=row.id, **given))
        await self.append(row, entry)
        return question

    # --- one method per state

    async def idle(self) -> str:
        return (await self.admission.start(self.scope, a_session())).id

    async def scheduled(self) -> str:
        return (await self.admission.start(self.scope, a_session(), HELLO)).id

    async def running(self) -> str:
        row = await self.claim(await self.scheduled())
        assert row.run_id is not None
        await self.append(row, RunStarted(run=row.run_id, inputs=()))
        return row.id

    async def between_runs(self) -> str:
        """Running, the first run over and the next not begun."""
        id = await self.running()
        await self.append(await self.row(id), ChatResponse(content="Hi.", turn=1))
        return id

    async def waiting(self) -> str:
        id = await self.running()
        await self.append(await self.row(id), then=Then("waiting", due=time.time() + HOUR))
        return id

    async def asking(self, **fields: Any) -> tuple[str, str]:
        """A session that waits for the answer to a question, and the question."""
        id = await self.running()
        question = await self.ask(await self.row(id), f"q-{id}", **fields)
        await self.append(await self.row(id), then=Then("waiting", waiting_for="input"))
        return id, question

    async def backed_off(self) -> str:
        """Scheduled for later, because its run failed."""
        row = await self.row(await self.running())
        assert await self.database.write(ownership.hand_back(row.id, row.epoch, failed=True, backoff=HOUR))
        return row.id

    async def backed_off_now(self) -> str:
        """Scheduled again at once, because its run failed."""
        row = await self.row(await self.running())
        assert await self.database.write(ownership.hand_back(row.id, row.epoch, failed=True, backoff=0))
        return row.id

    async def ended(self) -> str:
        id = await self.idle()
        await self.admission.end(self.scope, id)
        return id

    async def driven(self) -> str:
        """A child that runs inside another session's process."""
        root, id = await self.running(), await self.running()
        await self.database.write(
            one("update executions set driver = :root, root = :root where id = :id", id=id, root=root)
        )
        return id


Make = Callable[[], Awaitable[str]]
