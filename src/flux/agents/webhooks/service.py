"""What may be done with webhooks. Every method takes the caller's scope and finds only what is their tenant's."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import get_args

from flux.agents.webhooks.deliverer import Deliverer, secret_of
from flux.agents.webhooks.sender import Sender
from flux.engine.configuration.configs import check_name
from flux.engine.configuration.secrets import Secrets
from flux.errors import FluxError, InvalidInput, WebhookNotFound
from flux.store import audit, webhooks
from flux.store.database import Database, Scope
from flux.store.webhooks import Delivery, DeliveryState, Happening, Webhook
from flux.suggest import nearest
from flux.webhooks import new_secret

EVENTS: tuple[Happening, ...] = get_args(Happening)


class Webhooks:
    """Webhooks of tenants."""

    def __init__(self, database: Database, secrets: Secrets, sender: Sender, deliverer: Deliverer) -> None:
        self._database = database
        self._secrets = secrets
        self._sender = sender
        self._deliverer = deliverer

    async def create(
        self, scope: Scope, name: str, url: str, events: Sequence[str] = (), agent: str | None = None
    ) -> tuple[Webhook, str]:
        """Store a new webhook of these events (none: of all), of one agent or of all; and its secret, told this once.

        :raises InvalidInput: the name, the URL or an event cannot be used
        :raises WebhookExists: the name is taken
        """
        check_name("webhook", name)
        for event in events:
            if event not in EVENTS:
                like = nearest(event, EVENTS)
                raise InvalidInput(f"events: there is no event {event[:80]!r}; did you mean {like or EVENTS[0]!r}?")
        await self._sender.check(url)
        id, secret = str(uuid.uuid4()), new_secret()
        wanted = " ".join(event for event in EVENTS if event in events or not events)
        # The secret first: as soon as the webhook is there, something may be told.
        await self._secrets.keep(scope, secret_of(id), secret)
        try:
            program = webhooks.create(scope, id, name, url, wanted, agent)
            made = await self._database.write(audit.noted(scope, program, "webhook.create", name, {"agent": agent}))
        except FluxError:
            await self._secrets.unkeep(scope, secret_of(id))
            raise
        return made, secret

    async def get(self, scope: Scope, name: str) -> Webhook:
        """A webhook.

        :raises WebhookNotFound: there is none
        """
        found = await self._database.read(webhooks.get(scope, name))
        if found is None:
            raise WebhookNotFound(f"there is no webhook {name[:80]!r}; `flux webhook list` shows those that exist")
        return found

    async def page(self, scope: Scope, after: str, limit: int) -> list[Webhook]:
        """Webhooks by name."""
        return await self._database.read(webhooks.page(scope, after, limit))

    async def delete(self, scope: Scope, name: str) -> None:
        """Remove a webhook with its deliveries.

        :raises WebhookNotFound: there is none
        """
        found = await self.get(scope, name)
        await self._database.write(audit.noted(scope, webhooks.delete(scope, name), "webhook.delete", name))
        await self._secrets.unkeep(found.scope, secret_of(found.id))

    async def deliveries(
        self,
        scope: Scope,
        name: str,
        *,
        state: DeliveryState | None = None,
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """What a webhook was told and is to be told, newest first.

        :raises WebhookNotFound: there is none
        """
        await self.get(scope, name)
        return await self._database.read(webhooks.deliveries(scope, name, state=state, after=after, limit=limit))

    async def redeliver(self, scope: Scope, name: str, delivery: str) -> Delivery:
        """Tell something again, with the same id.

        :raises WebhookNotFound: there is no such webhook, or delivery of it
        """
        found = await self._database.write(webhooks.redeliver(scope, name, delivery))
        if found is None:
            raise WebhookNotFound(f"webhook {name[:80]!r} has no delivery {delivery[:80]!r}")
        self._deliverer.changed()
        return found
