"""A database as somebody else sees it: straight through its driver."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection of somebody else."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(url), isolation_level=None)) as connection:
            yield connection
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


def run(url: str, sql: str) -> list[Any]:
    with connected(url) as connection:
        cursor = connection.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []
