"""Telling webhooks what was written for them, each thing by one process; again after a pause where that failed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

from flux.agents.webhooks.sender import Answer, Sender
from flux.engine.configuration.secrets import Secrets
from flux.engine.dispatching.upkeep import keep_up, survive, to_the_end
from flux.errors import FluxError
from flux.store import webhooks
from flux.store.database import Database, Steps
from flux.store.webhooks import Delivery, Webhook

#: Seconds to wait after the n-th failure; after the last one a delivery has failed.
BACKOFFS: tuple[float, ...] = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
#: So many are sent at a time.
MOST = 20
#: Seconds between two looks at most: a process that has died may have left something behind.
LOOK_SECONDS = 30.0
#: Seconds that a process which leaves gives to receivers.
LEAVE_SECONDS = 2.0
#: What is said of an attempt whose process has left.
LEFT = "the process left while it was sent"
#: What a process that sends holds a delivery for, in times of the timeout.
LEASE = 2.0


class Deliverer:
    """Sends what is due, then sleeps until the next time or until something is written."""

    def __init__(self, database: Database, secrets: Secrets, sender: Sender, timeout: float) -> None:
        self._database = database
        self._secrets = secrets
        self._sender = sender
        self._lease = LEASE * timeout
        self._changed = asyncio.Event()
        self._sending: set[asyncio.Task[bool]] = set()

    def changed(self) -> None:
        """Something is to be told: look."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Deliver until cancelled; what is being sent then is sent again by whoever looks next."""
        try:
            await keep_up("webhooks are not told", self._step)
        finally:
            for task in self._sending:
                task.cancel()
            if self._sending:
                await asyncio.wait(self._sending)

    async def finish(self) -> None:
        """Before the process leaves: send what is due and wait for what is being sent, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await survive("webhooks are not told", self._finish())

    async def _finish(self) -> None:
        await self._look()
        while self._sending:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            await self._look()

    async def _step(self) -> None:
        self._changed.clear()
        seconds = await self._look()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _look(self) -> float | None:
        """Begin to send what is due; returns seconds until the next look, None: when a place is free."""
        free = MOST - len(self._sending)
        if not free:
            return None
        due, seconds = await self._database.single(webhooks.outlook(free))
        if due:
            await to_the_end(self._begin(free))  # what was taken is sent, or given back
        if due == free:
            return None if len(self._sending) == MOST else 0.0
        return LOOK_SECONDS if seconds is None else min(seconds, LOOK_SECONDS)

    async def _begin(self, free: int) -> None:
        for delivery, webhook in await self._database.write(webhooks.claim(free, self._lease)):
            sending = survive(f"webhook {webhook.name} was not told", self._send(delivery, webhook))
            task = asyncio.create_task(sending)
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[bool]) -> None:
        self._sending.discard(task)
        self._changed.set()

    async def _send(self, delivery: Delivery, webhook: Webhook) -> None:
        try:
            await self._database.write(settled(delivery, await self._answer(delivery, webhook)))
        except asyncio.CancelledError:
            await to_the_end(self._database.write(webhooks.settle(delivery, "pending", status=None, error=LEFT)))
            raise

    async def _answer(self, delivery: Delivery, webhook: Webhook) -> Answer:
        try:
            secret = await self._secrets.kept(webhook.scope, secret_of(webhook.id))
        except FluxError as error:  # such as a key that this process does not have
            return Answer(None, str(error))
        if secret is None:
            return Answer(None, "its secret is gone; delete the webhook and make it again")
        return await self._sender.send(webhook.url, delivery.id, delivery.body.encode(), secret)


def settled(delivery: Delivery, answer: Answer) -> Steps[None]:
    """The program that writes what became of an attempt."""
    if answer.error is None:
        return webhooks.settle(delivery, "delivered", status=answer.status, error=None)
    last = delivery.attempts > len(BACKOFFS) or answer.status == 410  # gone: it says so itself
    wait = 0.0 if last else BACKOFFS[delivery.attempts - 1]
    state: webhooks.DeliveryState = "failed" if last else "pending"
    return webhooks.settle(delivery, state, status=answer.status, error=answer.error, wait=wait)


def secret_of(webhook: str) -> str:
    """The name under which the secret of a webhook is kept."""
    return f"webhook.{webhook}"
