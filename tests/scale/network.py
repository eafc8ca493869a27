"""Machines of a test: network namespaces with addresses of their own, whose cables can be pulled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import LACKING


class Machine:
    """A network namespace that reaches this one, and nothing else, over one cable.

    `gateway` is the address of this end, `address` that of the other.
    """

    def __init__(self, number: int) -> None:
        unique = f"{os.getpid()}x{number}"
        self.name = f"flux{unique}"
        self.gateway = f"10.213.{number}.1"
        self.address = f"10.213.{number}.2"
        self.network = f"10.213.{number}.0/30"
        self._cable = f"fx{unique}"

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to run there."""
        return ("ip", "netns", "exec", self.name)

    def make(self) -> None:
        """Make it."""
        ip("netns", "add", self.name)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("address", "add", f"{self.gateway}/30", "dev", self._cable)
        ip("link", "set", self._cable, "up")
        # While the cable is out, what goes there is lost, and not sent elsewhere.
        ip("route", "add", "blackhole", self.network, "metric", "9000")
        ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def cut_off(self) -> None:
        """Pull the cable."""
        ip("link", "set", self._cable, "down")

    def connect(self) -> None:
        """Put it back."""
        ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        """Take everything away; what runs there must have ended."""
        for command in (
            ("route", "del", "blackhole", self.network, "metric", "9000"),
            ("link", "del", self._cable),
            ("netns", "del", self.name),
        ):
            subprocess.run(("ip", *command), capture_output=True, check=False)


def ip(*words: str) -> None:
    """Change the network."""
    subprocess.run(("ip", *words), capture_output=True, text=True, check=True)


@contextmanager
def two_machines(config: pytest.Config, require_tool: Callable[[str], str]) -> Iterator[tuple[Machine, Machine]]:
    """Two namespaces; the test is skipped where the kernel does not let us make them."""
    require_tool("ip")
    made = (Machine(1 + os.getpid() % 100), Machine(101 + os.getpid() % 100))
    with ExitStack() as stack:
        for machine in made:
            stack.callback(machine.remove)
            try:
                machine.make()
            except subprocess.CalledProcessError as error:
                config.stash[LACKING].add("network namespaces")
                pytest.skip(f"no network namespaces can be made here: {error.stderr.strip()}")
        yield made
