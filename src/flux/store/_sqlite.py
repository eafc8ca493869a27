"""SQLite: one writer thread that groups programs into commits, and one reader thread.

The two have their own connections (WAL), so a lock held by another process delays writes only.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

from flux.errors import DatabaseLocked, DatabaseUnavailable
from flux.store.database import TOGETHER, CommitObserver, Heard, Row, Steps, check_version
from flux.store.memory_schema import Kind
from flux.store.migrations import upgrade
from flux.store.schema import FLUX, Schema

T = TypeVar("T")

BUSY_SECONDS = 10.0
GROUP = 64
#: Seconds between two looks for commits of other processes.
POLL_SECONDS = 0.1


class _Job(NamedTuple):
    steps: Steps[Any] | None
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class SqliteDatabase:
    """The embedded database: one file."""

    shared = False

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str = "full",
        observer: CommitObserver | None = None,
        schema: Schema = FLUX,
    ) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        self._schema = schema
        self._synchronous = synchronous
        self._observer = observer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._scanner = ThreadPoolExecutor(1, thread_name_prefix="flux-db-scan")
        self._read_connection: sqlite3.Connection | None = None
        self._scan_connection: sqlite3.Connection | None = None
        self._writer: threading.Thread | None = None
        self._closed = True
        self._version = 0
        self._wal_seen = (-1, -1)

    async def open(self) -> SqliteDatabase:
        """Make or migrate the file, and start the threads.

        :raises DatabaseTooNew: the file was written by a newer Flux
        :raises DatabaseLocked: another process holds the file
        :raises DatabaseUnavailable: the file cannot be opened
        """
        with ExitStack() as unless_opened:
            unless_opened.callback(self._scanner.shutdown, wait=False)
            connection = await asyncio.get_running_loop().run_in_executor(self._scanner, self._prepare)
            unless_opened.pop_all()
        self._closed = False
        self._writer = threading.Thread(target=self._work, args=(connection,), name="flux-db-write", daemon=True)
        self._writer.start()
        return self

    async def write(self, steps: Steps[T]) -> T:
        """Run a program; programs that wait together share one commit."""
        return cast(T, await self._submit(steps))

    async def read(self, steps: Steps[T]) -> T:
        """Run a short program on the reader's snapshot; readers wait for nobody, so right here."""
        return self._read(self._read_connection, steps)

    async def single(self, steps: Steps[T]) -> T:
        """The same as `read`."""
        return await self.read(steps)

    async def write_one(self, steps: Steps[T]) -> T:
        """The same as `write`."""
        return await self.write(steps)

    async def scan(self, steps: Steps[T]) -> T:
        """Run a long program on a snapshot of its own, beside everything else."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(
            self._scanner, lambda: self._read(self._scan_connection, steps)
        )

    async def listen(self, heard: Heard) -> None:
        """Look for commits by other processes."""
        seen: int | None = None
        while True:
            now = seen
            with suppress(DatabaseLocked, DatabaseUnavailable):
                now = await self.version()
            foreign, seen = now != seen, now  # at first too: something may have come before this look
            if foreign:
                heard(None)
            await asyncio.sleep(POLL_SECONDS)

    async def version(self) -> int:
        """SQLite's counter of commits by others, as the writer's connection sees it."""
        wal = self._wal_changed()
        if wal != self._wal_seen:
            self._version = cast(int, await self._submit(None))
            self._wal_seen = wal
        return self._version

    def _wal_changed(self) -> tuple[int, int]:
        """When the write-ahead log last changed: a look at the file saves waking the writer."""
        with suppress(OSError):
            found = os.stat(f"{self._path}-wal")
            return found.st_mtime_ns, found.st_size
        return 0, 0

    async def _submit(self, steps: Steps[Any] | None) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        job = _Job(steps, loop.create_future(), loop)
        self._jobs.put(job)
        # A caller that is cancelled does not take back what it handed in.
        return await asyncio.shield(job.done)

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseUnavailable("the database is closed: Flux is shutting down")

    async def close(self) -> None:
        """Let the writer finish and close both connections."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        if self._writer is not None:
            self._jobs.put(None)
            await loop.run_in_executor(self._scanner, self._writer.join)
        for connection in (self._read_connection, self._scan_connection):
            if connection is not None:
                await loop.run_in_executor(self._scanner, connection.close)
        self._read_connection = self._scan_connection = None
        self._scanner.shutdown(wait=True)

    # --- reading

    def _prepare(self) -> sqlite3.Connection:
        with ExitStack() as opened:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if self._schema is not FLUX:
                    _refuse_foreign(self._path, self._schema)
                connection = opened.enter_context(closing(self._connect()))
                _migrate(connection, self.url, self._schema)
                self._read_connection = opened.enter_context(closing(self._connect_reader()))
                self._scan_connection = opened.enter_context(closing(self._connect_reader()))
            except sqlite3.Error as error:
                raise _translate(error, self._path) from error
            except OSError as error:
                reason = f"{error.strerror}; FLUX_HOME must be a directory you can write to"
                raise DatabaseUnavailable(f"cannot open {self._path}: {reason}") from error
            opened.pop_all()
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
        with suppress(FileNotFoundError):
            self._path.chmod(0o600)
        _use_wal(connection)
        connection.execute(f"pragma synchronous={self._synchronous}")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("pragma query_only=on")
        return connection

    def _read(self, connection: sqlite3.Connection | None, steps: Steps[T]) -> T:
        if connection is None:
            raise DatabaseUnavailable("the database is closed: Flux is shutting down")
        try:
            connection.execute("begin")
            try:
                return _drive(connection, steps)
            finally:
                connection.execute("rollback")
        except sqlite3.Error as error:
            raise _translate(error, self._path) from error

    # --- the writer thread

    def _work(self, connection: sqlite3.Connection) -> None:
        while (job := self._jobs.get()) is not None:
            if job.steps is None:
                self._look(connection, job)
            else:
                self._commit_group(connection, [job, *self._waiting()])
        connection.close()

    def _look(self, connection: sqlite3.Connection, job: _Job) -> None:
        try:
            _settle(job, connection.execute("pragma data_version").fetchone()[0], None)
        except sqlite3.Error as error:
            _settle(job, None, _translate(error, self._path))

    def _waiting(self) -> list[_Job]:
        """Programs that are waiting already and may share the commit."""
        group: list[_Job] = []
        while len(group) < GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None or job.steps is None:
                self._jobs.put(job)
                break
            group.append(job)
        return group

    def _commit_group(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        results: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            connection.execute("begin immediate")
            results = [(job, *_attempt(connection, job.steps)) for job in group if job.steps]
            if self._observer:
                self._observer.before()
            connection.execute("commit")
            if self._observer:
                self._observer.after()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("rollback")
            failure = _translate(error, self._path)
            results = [(job, None, failure) for job in group]
        for job, result, failed in results:
            _settle(job, result, failed)


def _attempt(connection: sqlite3.Connection, steps: Steps[Any]) -> tuple[Any, BaseException | None]:
    """One program under a savepoint: its failure is its own, unless the database itself failed."""
    connection.execute("savepoint program")
    try:
        result = _drive(connection, steps)
    except sqlite3.OperationalError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a program raises goes to its caller
        connection.execute("rollback to program")
        connection.execute("release program")
        return None, error
    connection.execute("release program")
    return result, None


def _drive(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    now = time.time()
    try:
        sql, parameters = next(steps)
        while True:
            sql, parameters = steps.send(_execute(connection, sql, parameters, now))
    except StopIteration as stop:
        return cast(T, stop.value)


def _execute(connection: sqlite3.Connection, sql: str, parameters: Mapping[str, Any], now: float) -> list[Row]:
    if sql == TOGETHER:
        return [tuple(_execute(connection, each, given, now)) for each, given in parameters.values()]
    return connection.execute(sql, {**parameters, "now": now}).fetchall()


def _settle(job: _Job, result: Any, failed: BaseException | None) -> None:
    def settle() -> None:
        if job.done.done():
            return
        if failed is None:
            job.done.set_result(result)
        else:
            job.done.set_exception(failed)
            job.done.exception()  # a caller that left does not make it "never retrieved"

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        job.loop.call_soon_threadsafe(settle)


def _translate(error: sqlite3.Error, path: Path) -> Exception:
    text = str(error)
    if "full" in text:
        return DatabaseUnavailable(f"the disk of {path} is full: nothing was written; free some space and try again")
    if "locked" in text or "busy" in text:
        return DatabaseLocked(f"the database {path} is locked by another process; close it and try again", debug=text)
    return DatabaseUnavailable(f"the database {path} failed: {text}", debug=repr(error))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL. SQLite does not wait here by itself when another process is just doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(connection: sqlite3.Connection, url: str, schema: Schema) -> None:
    """Bring a file to the present schema; two processes may try at once."""
    if not check_version(_found_version(connection, schema), url, schema.version):
        return
    connection.execute("begin immediate")
    found = _found_version(connection, schema)
    if found is not None or not check_version(found, url, schema.version):
        connection.execute("rollback")
        if found != schema.version:
            upgrade(url)
        return
    for statement in schema.statements(_kind(connection)):
        connection.execute(statement)
    connection.execute(f"create table {schema.versions} (version_num varchar(32) not null primary key)")
    connection.execute(f"insert into {schema.versions} values (?)", (schema.version,))
    connection.execute("commit")


def _refuse_foreign(path: Path, schema: Schema) -> None:
    """Leave a file as it is that holds something else.

    :raises DatabaseUnavailable: it does
    """
    if not path.exists():
        return
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
        if tables and _found_version(connection, schema) is None:
            raise DatabaseUnavailable(f"the database {path} holds something else; name another file")


def _kind(connection: sqlite3.Connection) -> Kind:
    """Whether this SQLite can search text."""
    found = connection.execute("select 1 from pragma_module_list where name = 'fts5'").fetchone()
    return "sqlite" if found else "plain"


def _found_version(connection: sqlite3.Connection, schema: Schema = FLUX) -> str | None:
    if not connection.execute("select 1 from sqlite_master where name = ?", (schema.versions,)).fetchone():
        return None
    row = connection.execute(f"select version_num from {schema.versions}").fetchone()
    return str(row[0]) if row else None


def schema_of(path: Path) -> str | None:
    """The version of a file's schema, read without changing anything; None when there is none yet.

    :raises DatabaseUnavailable, DatabaseLocked: the file cannot be read
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return _found_version(connection)
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def copy_to(path: Path, copy: Path) -> None:
    """Copy a database as it is at one moment, while others write to it; the copy is its owner's alone.

    :raises DatabaseUnavailable, DatabaseLocked: it cannot be read, or the copy cannot be written
    :raises FileExistsError: there is something where the copy would be
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
    except sqlite3.Error as error:
        raise _translate(error, path) from error
