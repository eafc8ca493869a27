"""Postgres: the same programs over a psycopg pool, READ COMMITTED."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar, cast

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus

from flux.errors import DatabaseUnavailable, InvalidInput, SettingsInvalid
from flux.store._exchange import Statement, exchange
from flux.store._listen import listen
from flux.store.database import TOGETHER, CommitObserver, Heard, Steps, check_version, hide_password
from flux.store.migrations import upgrade
from flux.store.schema import FLUX, Schema

T = TypeVar("T")

#: Serialises the first creation of the schema by several processes.
SCHEMA_LOCK = 0x666C7578
CLOSE_SECONDS = 5.0
#: What the network may do without our noticing, unless the URL says otherwise: silence for some 20 seconds.
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
#: A transaction whose process is frozen or cut off gives up its locks, so that others can take over its runs.
GIVE_UP_LOCKS = "set idle_in_transaction_session_timeout = '5s'"
BEGIN = "begin"
SNAPSHOT = "begin isolation level repeatable read read only"
#: The server or the connection is gone, or takes no writes (a standby, or a primary that was replaced).
GONE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg_pool.PoolTimeout,
)


class PostgresDatabase:
    """The shared database: many processes."""

    shared = True

    def __init__(
        self, url: str, *, observer: CommitObserver | None = None, connections: int = 8, schema: Schema = FLUX
    ) -> None:
        self.url = url
        self._schema = schema
        self._observer = observer
        self._under_way: set[asyncio.Task[Any]] = set()
        self._pool = psycopg_pool.AsyncConnectionPool(
            conninfo(url),
            min_size=1,
            max_size=connections,
            open=False,
            configure=_configure,
            kwargs={"autocommit": True},
        )

    async def open(self) -> PostgresDatabase:
        """Connect, and make or migrate the schema.

        :raises DatabaseUnavailable: the server does not answer
        :raises DatabaseTooNew: the schema was made by a newer Flux
        """
        async with AsyncExitStack() as unless_opened:
            unless_opened.push_async_callback(self._pool.close)
            try:
                await self._pool.open(wait=True, timeout=10)
                await self._migrate()
            except psycopg.errors.DuplicateTable as error:
                said = f"the database {hide_password(self.url)} holds something else; name another one, or a schema"
                raise DatabaseUnavailable(said, debug=repr(error)) from error
            except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
                raise self._down(error) from error
            unless_opened.pop_all()
        return self

    async def write(self, steps: Steps[T]) -> T:
        """Run a program in its own transaction."""
        return await self._finish(self._write(steps))

    async def read(self, steps: Steps[T]) -> T:
        """Run a program on one read-only snapshot."""
        return await self._finish(self._read(steps))

    async def single(self, steps: Steps[T]) -> T:
        """Run a program of one step by itself: a third of the ways to the server and back."""
        return await self._finish(self._single(steps))

    async def write_one(self, steps: Steps[T]) -> T:
        """Run a program of one step that writes; its statements are one transaction by themselves."""
        return await self._finish(self._write_one(steps))

    async def scan(self, steps: Steps[T]) -> T:
        """The same as `read`: nobody waits for a long one."""
        return await self.read(steps)

    async def listen(self, heard: Heard) -> None:
        """Hear the bells of other processes, on a connection of its own."""
        await listen(self.url, heard)

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, also when the caller is cancelled.

        Inside psycopg a cancellation costs the connection, and on Python 3.11 it may be lost: asyncio's
        wait_for drops one that comes together with a result.
        """
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may be gone: then nobody is told

    async def _write(self, steps: Steps[T]) -> T:
        with self._translated():
            async with self._pool.connection() as connection, _transaction(connection):
                result = await _drive(connection, steps, BEGIN)
                if self._observer:
                    self._observer.before()
                await exchange(connection, [("commit", {})])
                if self._observer:
                    self._observer.after()
                return result

    async def _read(self, steps: Steps[T]) -> T:
        with self._translated():
            async with self._pool.connection() as connection, _transaction(connection):
                return await _drive(connection, steps, SNAPSHOT)

    async def _single(self, steps: Steps[T]) -> T:
        with self._translated():
            async with self._pool.connection() as connection:
                return await _drive(connection, _only_one(steps))

    async def _write_one(self, steps: Steps[T]) -> T:
        with self._translated():
            async with self._pool.connection() as connection:
                if self._observer:
                    self._observer.before()
                result = await _drive(connection, _only_one(steps))
                if self._observer:
                    self._observer.after()
                return result

    async def close(self) -> None:
        """Finish what is under way, and give back every connection."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSE_SECONDS)
        await self._pool.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What psycopg raises, in our words."""
        try:
            yield
        except GONE as error:
            raise self._down(error) from error
        except psycopg.DataError as error:
            raise _unusable(error) from error

    def _down(self, error: Exception) -> DatabaseUnavailable:
        return _away(self.url, error)

    async def _migrate(self) -> None:
        schema = self._schema
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
            found = await _found_version(connection, schema)
            behind = check_version(found, self.url, schema.version)
            if behind and found is None:
                make = f"create table {schema.versions} (version_num varchar(32) not null primary key)"
                for statement in (*schema.statements("postgresql"), make):
                    await connection.execute(cast(Any, statement))
                note = cast(Any, f"insert into {schema.versions} values (%s)")
                await connection.execute(note, (schema.version,))
                behind = False
        if behind:
            upgrade(self.url)


def conninfo(url: str) -> str:
    """What to connect with: a URL, and how soon a dead network is noticed.

    :raises SettingsInvalid: it is no URL
    """
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        reason = f"database_url {hide_password(url)!r} cannot be read; as in postgresql://user@host:5432/name"
        raise SettingsInvalid(reason, debug=str(error)) from error
    return psycopg.conninfo.make_conninfo(url, **{name: PATIENCE[name] for name in PATIENCE if name not in given})


def unchecked_pool(**options: Any) -> psycopg_pool.AsyncConnectionPool[Any]:
    """A pool that does not ask the server before each use whether it is there: who finds it gone begins anew."""
    return psycopg_pool.AsyncConnectionPool(**(options | {"check": None}))


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(cast(Any, GIVE_UP_LOCKS))


async def schema_of(url: str) -> str | None:
    """The version of a database's schema, read without changing anything; None when there is none yet.

    :raises DatabaseUnavailable: the server does not answer
    """
    try:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            return await _found_version(connection)
    except psycopg.Error as error:
        raise _away(url, error) from error


def _away(url: str, error: Exception) -> DatabaseUnavailable:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DatabaseUnavailable(f"the database {hide_password(url)} does not answer: {reason}", debug=repr(error))


def _unusable(error: psycopg.DataError) -> InvalidInput:
    return InvalidInput(f"the database cannot store this: {str(error).strip().splitlines()[0]}", debug=repr(error))


async def _found_version(connection: psycopg.AsyncConnection[Any], schema: Schema = FLUX) -> str | None:
    cursor = await connection.execute("select to_regclass(%s)", (schema.versions,))
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    cursor = await connection.execute(cast(Any, f"select version_num from {schema.versions}"))
    row = await cursor.fetchone()
    return str(row[0]) if row else None


@asynccontextmanager
async def _transaction(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """A transaction that is rolled back unless it was ended in good order."""
    try:
        yield
    finally:
        if connection.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):  # what was raised says more
                await exchange(connection, [("rollback", {})])


async def _drive(connection: psycopg.AsyncConnection[Any], steps: Steps[T], begin: str | None = None) -> T:
    """Run a program; `begin` travels with its first step."""
    before: list[Statement] = [] if begin is None else [(begin, {})]
    try:
        sql, parameters = next(steps)
        while True:
            asked = list(parameters.values()) if sql == TOGETHER else [(sql, parameters)]
            found = (await exchange(connection, [*before, *asked]))[len(before) :]
            before = []
            sql, parameters = steps.send([tuple(rows) for rows in found] if sql == TOGETHER else found[0])
    except StopIteration as stop:
        return cast(T, stop.value)


def _only_one(steps: Steps[T]) -> Steps[T]:
    """The program, which must end behind its first step."""
    try:
        rows = yield next(steps)
        steps.send(rows)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise RuntimeError("a program of more than one step needs a transaction")
