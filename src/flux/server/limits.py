"""What one principal, and all of them together, may ask of a server at once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from flux.errors import TooManyRequests
from flux.settings import Settings
from flux.store.database import Scope

#: Seconds' worth of requests that may come at once.
BURST_SECONDS = 2.0
#: Principals that are remembered; those that rest longest are forgotten first.
REMEMBERED = 10_000
#: Tenant and principal.
Who = tuple[str, str]


class ServerLimits:
    """Counts requests and readers by principal. A limit of 0 is none."""

    def __init__(self, settings: Settings) -> None:
        self._rate = settings.request_rate
        self._readers = settings.max_readers
        self._readers_each = settings.max_readers_per_principal
        self._left: OrderedDict[Who, tuple[float, float]] = OrderedDict()
        self._reading: dict[Who, int] = {}
        self._all = 0

    def count(self, scope: Scope) -> None:
        """Count a request.

        :raises TooManyRequests: the principal sends too many
        """
        if not self._rate:
            return
        now, most = time.monotonic(), max(1.0, self._rate * BURST_SECONDS)
        left, at = self._left.pop(scope[:2], (most, now))
        left = min(most, left + (now - at) * self._rate)
        self._left[scope[:2]] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        if left < 1:
            raise TooManyRequests(
                f"you may send {self._rate:g} requests a second", retry_after=round((1 - left) / self._rate, 3)
            )

    def check_reader(self, scope: Scope) -> None:
        """Refuse one more reader where there are too many.

        :raises TooManyRequests: there are
        """
        if self._readers and self._all >= self._readers:
            raise TooManyRequests(f"this server has {self._readers:,} readers already", retry_after=5.0)
        if self._readers_each and self._reading.get(scope[:2], 0) >= self._readers_each:
            raise TooManyRequests(f"you read {self._readers_each:,} streams already; close one first", retry_after=5.0)

    @contextmanager
    def reading(self, scope: Scope) -> Iterator[None]:
        """While somebody reads."""
        who = scope[:2]
        self._all += 1
        self._reading[who] = self._reading.get(who, 0) + 1
        try:
            yield
        finally:
            self._all -= 1
            self._reading[who] -= 1
            if not self._reading[who]:
                del self._reading[who]
