"""Which hosts a model may reach: public ones, and those that whoever runs Flux has named."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Container

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Networks that hold IPv4 addresses inside of IPv6 ones, or are somebody's own, and count as global all the same.
_ODD = tuple(
    ipaddress.ip_network(one)
    for one in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/23",
        "fec0::/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
    )
)


#: Where machines of clouds find out about themselves, keys included: for nobody, whoever names it.
_NEVER = tuple(
    ipaddress.ip_network(one)
    for one in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "192.0.0.192/32")
)


#: Networks whose addresses end in one of IPv4.
_HOLDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


class NotAllowed(Exception):
    """A host must not be reached; says why."""


async def address_of(host: str, port: int, allowed: Container[str]) -> str:
    """The address to connect to for a host: each that it has is public, or the host is among those `allowed`.

    Who connects must use this address: the name may mean another one the next moment. `allowed` holds names,
    in small letters, with or without `:PORT`.

    :raises NotAllowed: an address of it is none that everybody can reach
    :raises OSError: it has no address
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(place[0]) for *_, place in sorted(found, key=lambda one: one[0] != socket.AF_INET)]
    for address in filter(is_never, addresses):
        raise NotAllowed(f"{host} is {address}, which is of the machine's own network and never reached")
    if host.lower() not in allowed and f"{host.lower()}:{port}" not in allowed:
        for address in (one for one in addresses if not is_public(one)):
            raise NotAllowed(
                f"{host} is {address}, which is not a public address; whoever runs Flux can name it in web_fetch_hosts"
            )
    return addresses[0]


def is_never(text: str) -> bool:
    """Whether an address is one at which a machine tells about itself, whatever form it has."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return any(one in network for one in _places(address) for network in _NEVER if network.version == one.version)


def _places(address: Address) -> list[Address]:
    """An address, and the one of IPv4 that it stands for."""
    if address.version == 4:
        return [address]
    inside = address.ipv4_mapped or address.sixtofour
    if inside is None and any(address in network for network in _HOLDING):
        inside = ipaddress.IPv4Address(address.packed[-4:])
    return [address] if inside is None else [address, inside]


def is_public(text: str) -> bool:
    """Whether an address can be reached by everybody; also one that stands for another is none."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False
    odd = any(address in network for network in _ODD if network.version == address.version)
    return address.is_global and not address.is_multicast and not address.is_reserved and not odd
