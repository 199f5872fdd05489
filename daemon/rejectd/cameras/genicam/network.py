"""Finds what keeps the packets of a GigE Vision camera away: address, size of packets, filter and receive buffer.

Reads what the kernel says under /proc and /sys. Knows IPv4 alone, which GigE Vision is made of.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from pathlib import Path

_GATEWAY = 0x2  # a flag in /proc/net/route
_STRICT = 1  # packets whose answer would leave by another network card are dropped
_COLUMNS = 8  # of a route that are read


@dataclass(frozen=True, slots=True)
class Route:
    """How packets to an address leave this machine."""

    card: str
    subnet: ipaddress.IPv4Network
    gateway: bool


def obstacle(address: str, *, root: Path = Path("/")) -> str:
    """Why a camera at an address does not answer, and what to do; empty if nothing is seen.

    A name or serial number in place of the address says nothing about the network. `root` is that of the file system.
    """
    camera = _camera(address)
    if camera is None:
        return ""
    routes = _towards(camera, root)
    if not routes or routes[0].gateway:
        return f"{address} lies in no subnet of a network card here; give the camera or the card another address"
    card, subnet = routes[0].card, routes[0].subnet
    others = sorted({route.card for route in routes if route.subnet == subnet and route.card != card})
    if others:
        return f"{card} and {', '.join(others)} have the subnet {subnet} both; give each card a subnet of its own"
    return ""


def too_large(address: str, packet_bytes: int, *, root: Path = Path("/")) -> str:
    """Why packets of this size, with headers, do not come through, and what to do; empty if nothing is seen."""
    camera = _camera(address)
    routes = _towards(camera, root) if camera else []
    mtu = _number(root / f"sys/class/net/{routes[0].card}/mtu") if routes else None
    if mtu is None or packet_bytes <= mtu:
        return ""
    card = routes[0].card
    return (
        f"packets of {packet_bytes} bytes do not pass {card}, whose MTU is {mtu}; lower `packet_size`, or"
        f" `ip link set {card} mtu {packet_bytes}` there and on each switch"
    )


def filtered(address: str, *, root: Path = Path("/")) -> str:
    """Whether the reverse-path filter may drop the packets of a camera that answers and sends no picture."""
    camera = _camera(address)
    if camera is None:
        return ""
    cards = ["all", *(route.card for route in _towards(camera, root) if not route.gateway)]
    strict = max(_number(root / f"proc/sys/net/ipv4/conf/{card}/rp_filter") or 0 for card in cards) == _STRICT
    return "the reverse-path filter is strict; try `sysctl -w net.ipv4.conf.all.rp_filter=2`" if strict else ""


def small_buffer(picture_bytes: int, *, root: Path = Path("/")) -> str:
    """Whether less than a picture fits into the receive buffer of a socket, so that a short pause loses packets."""
    most = _number(root / "proc/sys/net/core/rmem_max")
    if most is None or most >= picture_bytes:
        return ""
    wanted = 2 * picture_bytes
    return (
        f"a picture has {picture_bytes} bytes, a receive buffer at most {most}; `sysctl -w net.core.rmem_max={wanted}`"
    )


def _camera(address: str) -> ipaddress.IPv4Address | None:
    """The address of a camera on a network; None for a name, and for this machine itself."""
    try:
        camera = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    return None if camera.is_loopback else camera


def _towards(camera: ipaddress.IPv4Address, root: Path) -> list[Route]:
    """The routes to a camera, the one that is taken first."""
    routes = (route for route in _routes(root) if camera in route.subnet)
    return sorted(routes, key=lambda route: -route.subnet.prefixlen)


def _routes(root: Path) -> list[Route]:
    try:
        lines = (root / "proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    routes = []
    for line in lines:
        columns = line.split()
        if len(columns) >= _COLUMNS:
            mask = _address(columns[7])
            subnet = ipaddress.IPv4Network(f"{_address(columns[1])}/{mask}", strict=False)
            routes.append(Route(columns[0], subnet, bool(int(columns[3], 16) & _GATEWAY)))
    return routes


def _address(hexadecimal: str) -> ipaddress.IPv4Address:
    """An address in the byte order of this machine, as /proc writes it."""
    return ipaddress.IPv4Address(struct.pack("=I", int(hexadecimal, 16)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
