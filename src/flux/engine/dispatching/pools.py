"""Which work goes to which workers: pools by labels, and what an execution asks of its worker."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from flux.errors import InvalidInput

DEFAULT = "default"
#: The label of workers that have what one tenant's runtime has; its value is the tenant.
RUNTIME = "runtime"
#: A worker of n labels may serve 2**n pools.
MAX_LABELS = 8
MAX_CHARS = 100
#: Seconds that the driver gets to count graphics cards.
GPU_SECONDS = 10.0
#: What pools and queues are joined by.
_RESERVED = frozenset("=,|\n\0")


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker has: cores, memory in bytes, graphics cards, and Python packages by their normal names."""

    cpu: float = 1.0
    memory: int = 0
    gpu: int = 0
    packages: frozenset[str] = frozenset()


class ResourceRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an execution asks of its worker: cores, memory in bytes, graphics cards, Python packages."""

    cpu: Annotated[float, Meta(ge=0)] = 0.0
    memory: Annotated[int, Meta(ge=0)] = 0
    gpu: Annotated[int, Meta(ge=0)] = 0
    packages: tuple[str, ...] = ()

    def satisfied_by(self, has: Resources) -> bool:
        """Whether a worker has all of it."""
        enough = self.cpu <= has.cpu and self.memory <= has.memory and self.gpu <= has.gpu
        return enough and all(_normal(package) in has.packages for package in self.packages)

    def to_json(self) -> str:
        """The text of the column `requests`; equal requests have equal text."""
        return msgspec.json.encode(msgspec.structs.replace(self, packages=tuple(sorted(self.packages)))).decode()


class Offer(Struct, frozen=True):
    """What a worker takes: work of its pools that asks for no more than it has."""

    pools: tuple[str, ...] = (DEFAULT,)
    resources: Resources = Resources()

    def fits(self, requests: str | None) -> bool:
        """Whether it has what the column `requests` says; not, if that cannot be read."""
        if requests is None:
            return True
        try:
            return _decode(requests).satisfied_by(self.resources)
        except msgspec.MsgspecError:
            return False

    def takes(self, pool: str, requests: str | None) -> bool:
        """Whether an execution may run here."""
        return pool in self.pools and self.fits(requests)


DEFAULT_OFFER = Offer()

_decode = msgspec.json.Decoder(ResourceRequest).decode


class _Place(Struct, frozen=True):
    """What a definition says of where its sessions run."""

    affinity: dict[str, str] = {}


_decode_place = msgspec.json.Decoder(_Place).decode


def pool_of(affinity: Mapping[str, str]) -> str:
    """The pool of work that needs these labels of its worker.

    :raises InvalidInput: too many labels, or one that cannot be written
    """
    return ",".join(_pairs(affinity)) or DEFAULT


def pools_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Every pool that a worker with these labels may serve, the default one first.

    :raises InvalidInput: too many labels, or one that cannot be written
    """
    pairs = _pairs(labels)
    chosen = (itertools.combinations(pairs, n) for n in range(1, len(pairs) + 1))
    return (DEFAULT, *(",".join(some) for some in itertools.chain.from_iterable(chosen)))


def check_tenant(pool: str, tenant: str) -> None:
    """Refuse work for the workers of another tenant's runtime, which have its functions and connections.

    :raises InvalidInput: it is such work
    """
    for pair in pool.split(","):
        label, _, owner = pair.partition("=")
        if label == RUNTIME and owner != tenant:
            raise InvalidInput(f"affinity: the workers with the label {pair[:80]} run the work of that tenant alone")


def pool_of_agent(definition: str) -> str:
    """The pool of sessions of an agent, from the stored form of its definition.

    :raises InvalidInput: its labels cannot be used
    """
    return pool_of(_decode_place(definition).affinity)


@functools.cache
def resources_here() -> Resources:
    """What this machine and this Python have. Graphics cards are asked of their driver, which may take a second."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 0
    return Resources(float(os.cpu_count() or 1), memory, _gpus(), frozenset(_packages()))


def _gpus() -> int:
    """Graphics cards, where the driver's own program tells of them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "--list-gpus"], capture_output=True, text=True, timeout=GPU_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _packages() -> Iterator[str]:
    """Installed packages, by the names of their folders: to read what is in them costs twenty times as much."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield _normal(name.rpartition(".")[0].partition("-")[0])


def _normal(package: str) -> str:
    """The one form of a package's name."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _pairs(labels: Mapping[str, str]) -> list[str]:
    if len(labels) > MAX_LABELS:
        raise InvalidInput(f"{len(labels)} labels are too many; give at most {MAX_LABELS}")
    for text in itertools.chain.from_iterable(labels.items()):
        if not text or len(text) > MAX_CHARS or not _RESERVED.isdisjoint(text):
            raise InvalidInput(
                f"label {text[:MAX_CHARS]!r} cannot be used: keys and values have 1 to {MAX_CHARS} characters, "
                "without '=', ',' and '|'"
            )
    return [f"{key}={labels[key]}" for key in sorted(labels)]


def place_of(options: str) -> tuple[str, str | None]:
    """The pool of a workflow, and what it asks of its worker, from its options.

    :raises InvalidInput: they cannot be used
    """
    given = msgspec.json.decode(options)
    pool = pool_of(given.get("affinity") or {})
    if not given.get("requests"):
        return pool, None
    try:
        return pool, msgspec.convert(given["requests"], ResourceRequest).to_json()
    except msgspec.ValidationError as error:
        raise InvalidInput(f"requests: {error}; its fields are cpu, memory (bytes), gpu and packages") from error
