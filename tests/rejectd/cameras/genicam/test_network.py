"""What keeps the packets of a camera away, in the files in which the kernel tells it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from rejectd.cameras.genicam.network import filtered, obstacle, small_buffer, too_large

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def _hex(address: str) -> str:
    return f"{int.from_bytes(ipaddress.IPv4Address(address).packed, 'little'):08X}"


def _machine(root: Path, *cards: tuple[str, str, int], rp_filter: int = 0, rmem_max: int = 212_992) -> Path:
    """A machine with a default route over eth0 and these cards: name, subnet, MTU."""
    lines = [HEAD, f"eth0\t00000000\t{_hex('10.0.0.1')}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"]
    for name, subnet, mtu in cards:
        network = ipaddress.IPv4Network(subnet)
        lines.append(
            f"{name}\t{_hex(str(network.network_address))}\t00000000\t0001\t0\t0\t0\t{_hex(str(network.netmask))}\t0\t0\t0\n"
        )
        (root / f"sys/class/net/{name}").mkdir(parents=True)
        (root / f"sys/class/net/{name}/mtu").write_text(f"{mtu}\n")
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/route").write_text("".join(lines))
    (root / "proc/sys/net/core").mkdir(parents=True)
    (root / "proc/sys/net/core/rmem_max").write_text(f"{rmem_max}\n")
    (root / "proc/sys/net/ipv4/conf/all").mkdir(parents=True)
    (root / "proc/sys/net/ipv4/conf/all/rp_filter").write_text(f"{rp_filter}\n")
    return root


def test_a_camera_in_the_subnet_of_a_card_has_no_obstacle(tmp_path: Path) -> None:
    root = _machine(tmp_path, ("eth0", "10.0.0.0/24", 1500), ("enp3s0", "192.168.20.0/24", 9000))
    assert obstacle("192.168.20.20", root=root) == ""
    assert too_large("192.168.20.20", 9000, root=root) == ""


def test_a_camera_behind_the_gateway_lies_in_the_wrong_subnet(tmp_path: Path) -> None:
    root = _machine(tmp_path, ("eth0", "10.0.0.0/24", 1500))
    assert "192.168.20.20 lies in no subnet of a network card" in obstacle("192.168.20.20", root=root)


def test_two_cards_with_one_subnet_are_told_apart_by_nobody(tmp_path: Path) -> None:
    root = _machine(tmp_path, ("enp3s0", "192.168.20.0/24", 1500), ("enp4s0", "192.168.20.0/24", 1500))
    assert "enp3s0 and enp4s0 have the subnet 192.168.20.0/24 both" in obstacle("192.168.20.20", root=root)


def test_packets_that_are_larger_than_the_card_lets_through_are_named_with_both_sizes(tmp_path: Path) -> None:
    root = _machine(tmp_path, ("enp3s0", "192.168.20.0/24", 1500))
    told = too_large("192.168.20.20", 9000, root=root)
    assert "packets of 9000 bytes do not pass enp3s0, whose MTU is 1500" in told
    assert too_large("192.168.20.20", 1500, root=root) == ""


@pytest.mark.parametrize("name", ["22334455", "left", "127.0.0.1"])
def test_a_serial_number_a_name_and_this_machine_say_nothing_about_the_network(tmp_path: Path, name: str) -> None:
    root = _machine(tmp_path, rp_filter=1)
    assert obstacle(name, root=root) == ""
    assert too_large(name, 9000, root=root) == ""
    assert filtered(name, root=root) == ""


@pytest.mark.parametrize(("rp_filter", "strict"), [(0, False), (1, True), (2, False)])
def test_a_strict_reverse_path_filter_is_named(tmp_path: Path, rp_filter: int, strict: bool) -> None:
    root = _machine(tmp_path, ("enp3s0", "192.168.20.0/24", 1500), rp_filter=rp_filter)
    assert bool(filtered("192.168.20.20", root=root)) == strict


def test_a_receive_buffer_below_one_picture_is_named_with_the_command(tmp_path: Path) -> None:
    root = _machine(tmp_path, rmem_max=212_992)
    assert small_buffer(200_000, root=root) == ""
    assert "net.core.rmem_max=10000000" in small_buffer(5_000_000, root=root)


def test_a_machine_that_tells_nothing_has_no_obstacle_but_the_subnet(tmp_path: Path) -> None:
    assert small_buffer(5_000_000, root=tmp_path) == ""
    assert filtered("192.168.20.20", root=tmp_path) == ""
