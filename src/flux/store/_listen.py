"""Hearing bells: one connection of a process that listens, made again when it is lost."""

from __future__ import annotations

import asyncio
import logging

import psycopg
from psycopg.sql import SQL, Identifier

from flux.store.database import Heard
from flux.store.deltas import CHANNEL

logger = logging.getLogger(__name__)

#: Seconds between two looks at everything: a bell may be lost with its ringer, or with a connection.
LOOK_SECONDS = 3.0
#: Seconds before a lost connection is tried again.
AGAIN_SECONDS = 0.2
#: Seconds that the database gets to answer.
ANSWER_SECONDS = 10
#: Seconds of silence before the other end of a connection is asked whether it is there.
QUIET_SECONDS = 10


async def listen(url: str, heard: Heard) -> None:
    """Tell each bell that is heard, and None now and then and after each gap, until cancelled."""
    told, task = False, asyncio.current_task()
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                url,
                autocommit=True,
                connect_timeout=ANSWER_SECONDS,
                keepalives_idle=QUIET_SECONDS,
                keepalives_interval=QUIET_SECONDS,
                keepalives_count=2,
            ) as connection:
                await _begin(connection)
                told = False
                while True:
                    heard(None)
                    async for bell in connection.notifies(timeout=LOOK_SECONDS):
                        heard(bell.payload)
                    if task is not None and task.cancelling():
                        return  # on Python 3.11 wait_for may lose a cancellation
        except (psycopg.Error, OSError) as error:
            if not told:
                logger.warning("bells of other processes are not heard: %s", str(error).strip() or type(error).__name__)
            told = True
            heard(None)
        await asyncio.sleep(AGAIN_SECONDS)


async def _begin(connection: psycopg.AsyncConnection[tuple[str]]) -> None:
    for (channel,) in await (await connection.execute(SQL("select {}").format(SQL(CHANNEL)))).fetchall():
        await connection.execute(SQL("listen {}").format(Identifier(channel)))
