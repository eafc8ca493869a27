"""Fresh databases on a Postgres server."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier


@contextmanager
def fresh_schema(server: str) -> Iterator[str]:
    """The URL of an empty schema of its own; it is dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("create schema {}").format(Identifier(name)))
    yield f"{server}{'&' if '?' in server else '?'}options={quote(f'-csearch_path={name}')}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("drop schema {} cascade").format(Identifier(name)))
