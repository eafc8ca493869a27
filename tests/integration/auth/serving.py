"""A server that asks who calls, and principals to call it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from flux.client import FluxClient
from flux.settings import ApiKeys, Auth, Settings
from flux.store.database import LOCAL
from tests.integration.server.serving import Served, serving

#: Tests ask faster than people.
NO_LIMITS: Mapping[str, Any] = {"max_requests_per_second": 0.0}
BY_KEYS = Auth(api_keys=ApiKeys(enabled=True))


class Guarded:
    """A server with auth on, and keys of its principals."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.keys: dict[str, str] = {}

    @property
    def admin(self) -> FluxClient:
        """A client of the principal "admin"."""
        return self.as_("admin")

    async def member(self, subject: str, *roles: str, permissions: tuple[str, ...] = ()) -> FluxClient:
        """A new principal; with `permissions` also of a role of its own."""
        principals = self.served.process.principals
        given = list(roles)
        if permissions:
            given.append((await principals.create_role(LOCAL, f"{subject}-role", permissions)).name)
        await principals.create(LOCAL, subject, "service_account", given)
        self.keys[subject] = (await principals.create_key(LOCAL, subject, "test", None)).secret
        return self.as_(subject)

    def as_(self, subject: str) -> FluxClient:
        """A client of somebody."""
        return self.served.new_client(self.keys[subject])


@asynccontextmanager
async def guarded(
    home: Path, *, in_process: bool = True, auth: Auth = BY_KEYS, limits: Mapping[str, Any] = NO_LIMITS, **more: Any
) -> AsyncIterator[Guarded]:
    """A server with auth on; the clients of `served` itself are nobody's."""

    def change(settings: Settings) -> Settings:
        return replace(settings, auth=auth, **limits)

    async with serving(home, in_process=in_process, change=change, **more) as it:
        yield Guarded(it)
