"""Statements to Postgres and their rows back: those of one step travel together, and end by one Sync.

psycopg's own pipeline sends each statement by itself and a Flush behind the last: that stops the clock by which
the server gives up the transaction of a frozen process.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import abc, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from flux.store.database import Row

Connection = psycopg.AsyncConnection[Any]
Statement = tuple[str, Mapping[str, Any]]

#: The database clock: the start of the statement, in seconds since the epoch.
NOW = "extract(epoch from statement_timestamp())::float8"
#: Statements that a connection keeps prepared; each kind of parameters makes one of its own.
PREPARED = 400

#: A statement, and the types of its parameters.
Key = tuple[bytes, tuple[int, ...]]
_prepared: WeakKeyDictionary[Connection, dict[Key, bytes]] = WeakKeyDictionary()
_names = itertools.count()


class Text(NamedTuple):
    """A statement as Postgres reads it, and the names of its parameters in their order."""

    sql: bytes
    names: tuple[str, ...]


class _Call(NamedTuple):
    sql: bytes
    values: Sequence[Any]
    types: tuple[int, ...]
    formats: Sequence[Any]


async def exchange(connection: Connection, statements: Sequence[Statement]) -> list[list[Row]]:
    """The rows of each statement, all of which travel together; outside a transaction they are one by themselves.

    :raises psycopg.Error: one failed, and those behind it were not run
    """
    transformer: abc.Transformer = Transformer(connection)
    calls = [_call(transformer, text_of(sql), parameters) for sql, parameters in statements]
    async with connection.lock:
        results = await connection.wait(_exchange(connection, calls))
    return [_rows(transformer, result) for result in results]


def _call(transformer: abc.Transformer, text: Text, parameters: Mapping[str, Any]) -> _Call:
    if not text.names:
        return _Call(text.sql, (), (), ())
    values = [parameters[name] for name in text.names]
    dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return _Call(text.sql, dumped, transformer.types or (), transformer.formats or ())


def _exchange(connection: Connection, calls: Sequence[_Call]) -> Generator[Any, Any, list[PGresult]]:
    pgconn = connection.pgconn
    known = _prepared.setdefault(connection, {})
    pgconn.enter_pipeline_mode()
    try:
        prepares = [_send(pgconn, call, known) for call in calls]
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results = yield from _results(pgconn)
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=connection.info.encoding)
    answers = iter(results)
    found = []
    for call, name in zip(calls, prepares, strict=True):
        if name is not None:
            known[call.sql, call.types] = name
            next(answers)
        found.append(next(answers))
    return found


def _send(pgconn: PGconn, call: _Call, known: dict[Key, bytes]) -> bytes | None:
    """Send a call; the name of the statement if it is prepared by this."""
    name = known.get((call.sql, call.types))
    if name is not None:
        pgconn.send_query_prepared(name, call.values, call.formats)
        return None
    if len(known) >= PREPARED:
        pgconn.send_query_params(call.sql, call.values, call.types, call.formats)
        return None
    name = b"flux_%d" % next(_names)
    pgconn.send_prepare(name, call.sql, call.types)
    pgconn.send_query_prepared(name, call.values, call.formats)
    return name


def _results(pgconn: PGconn) -> Generator[Any, Any, list[PGresult]]:
    """The result of each message, up to the Sync."""
    found: list[PGresult] = []
    while True:
        for result in (yield from generators.fetch_many(pgconn)):
            if result.status == ExecStatus.PIPELINE_SYNC:
                return found
            found.append(result)


def _rows(transformer: abc.Transformer, result: PGresult) -> list[Row]:
    if not result.nfields:
        return []
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


@functools.cache
def text_of(sql: str) -> Text:
    """A statement in Postgres's form. Statements are constants of the code, never user text."""
    names: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return names.setdefault(found[1], f"${len(names) + 1}")

    text = re.sub(r"(?<![:\w]):now\b", NOW, sql)
    return Text(re.sub(r"(?<![:\w]):(\w+)", numbered, text).encode(), tuple(names))
