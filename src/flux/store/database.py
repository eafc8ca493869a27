"""The one database: programs of SQL steps run in a transaction, on SQLite or Postgres.

A program is a generator: it yields `(sql, parameters)`, is sent the rows, and returns its result. The
SQL is the same text on both databases: named parameters, and `:now` for the database clock. `together` makes
one step of several statements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from flux.errors import DatabaseTooNew
from flux.store.schema import VERSION

T = TypeVar("T")
Row = tuple[Any, ...]
#: A step of several statements, which are its parameters: for each of them its rows come back, as one row.
TOGETHER = "together"
Steps = Generator[tuple[str, Mapping[str, Any]], list[Row], T]
Heard = Callable[[str | None], None]


class Reach(NamedTuple):
    """Whose executions besides the principal's own: those of workflows, and sessions of these agents (None: of all)."""

    workflows: bool = False
    agents: frozenset[str] | None = frozenset()


OWN = Reach()
EVERYBODYS = Reach(True, None)


#: Sorts behind every version.
NEWEST = 2**31 - 1
#: Passwords that stand among the parameters of a URL.
_PASSWORDS = re.compile(r"([?&](?:ssl)?password=)[^&]*", re.IGNORECASE)


class Scope(NamedTuple):
    """On whose behalf a store function acts, and what of others that principal was found to be allowed to see."""

    tenant: str
    principal: str
    reach: Reach = OWN

    def sees(self, owner: str, agent: str | None) -> bool:
        """Whether an execution of its tenant is there for it; `agent` None: it is no session."""
        if owner == self.principal:
            return True
        if agent is None:
            return self.reach.workflows
        return self.reach.agents is None or agent in self.reach.agents


LOCAL = Scope("default", "local")


def visible_to(scope: Scope, parameters: dict[str, Any], table: str = "") -> str:
    """The condition that `Scope.sees` is, on the rows of `table` (such as "e."); its parameters are put in."""
    parameters["owner"] = scope.principal
    if scope.reach == EVERYBODYS:
        return "1 = 1"
    workflows, agents = scope.reach
    names = {f"agent_{n}": name for n, name in enumerate(sorted(agents or ()))}
    parameters |= names
    ways = [f"{table}owner = :owner"]
    if workflows:
        ways.append(f"{table}agent is null")
    if agents is None:
        ways.append(f"{table}agent is not null")
    elif names:
        ways.append(f"{table}agent in ({', '.join(f':{name}' for name in names)})")
    return f"({' or '.join(ways)})"


class CommitObserver(Protocol):
    """Is told of each commit; tests crash a process there."""

    def before(self) -> None:
        """The transaction is complete but not committed."""
        ...

    def after(self) -> None:
        """The transaction is durable."""
        ...


class Database(Protocol):
    """A database. `write` programs are atomic; what a program raises rolls it back and comes out here."""

    url: str
    #: Whether processes on several machines work on it: deltas and bells go through it then.
    shared: bool

    async def write(self, steps: Steps[T]) -> T:
        """Run a program in a write transaction.

        :raises DatabaseUnavailable: the database does not answer; the commit may or may not have landed
        :raises DatabaseLocked: another process holds the write lock for too long
        """
        ...

    async def read(self, steps: Steps[T]) -> T:
        """Run a short program that only reads, on one snapshot."""
        ...

    async def single(self, steps: Steps[T]) -> T:
        """Run a program of one step, which needs no transaction around it; where processes share, also a write.

        Nobody observes it, and where one process has the database, it only reads.
        """
        ...

    async def write_one(self, steps: Steps[T]) -> T:
        """Run a program of one step as `write` would; what it raises behind that undoes nothing.

        :raises DatabaseUnavailable, DatabaseLocked: as for `write`
        """
        ...

    async def scan(self, steps: Steps[T]) -> T:
        """Run a program that reads much, on one snapshot, without holding up others."""
        ...

    async def listen(self, heard: Heard) -> None:
        """Tell what comes from other processes, until cancelled: a bell they rang, or None: look at everything.

        Where nothing rings, or may not have been heard, None comes now and then.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and close."""
        ...


def one(sql: str, **parameters: Any) -> Steps[list[Row]]:
    """The program of a single statement; returns its rows."""
    return (yield sql, parameters)


def together(*programs: Steps[Any]) -> Steps[list[Any]]:
    """Run programs that need nothing of one another, step by step beside each other; returns what each returned.

    On Postgres the statements of a step share one way to the server and back.
    """
    returned: list[Any] = [None] * len(programs)
    rows: dict[int, Any] = dict.fromkeys(range(len(programs)))
    while True:
        asked: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for n, found in rows.items():
            try:
                asked[str(n)] = programs[n].send(found)
            except StopIteration as stop:
                returned[n] = stop.value
        if not asked:
            return returned
        rows = dict(zip(map(int, asked), map(list, (yield TOGETHER, asked)), strict=True))


def check_version(found: str | None, url: str, known: str = VERSION) -> bool:
    """Whether migrations must run.

    :raises DatabaseTooNew: the database has a version this Flux does not know
    """
    if found is not None and found > known:
        raise DatabaseTooNew(
            f"the database {hide_password(url)} has schema {found}, this Flux knows {known}; upgrade Flux to open it"
        )
    return found != known


def hide_password(url: str) -> str:
    """A database URL fit to be shown."""
    url = _PASSWORDS.sub(r"\1***", url)
    scheme, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}" if at else url
