"""Addresses that host-local gave out are kept."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.components import ipam_audit as audit
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.migration import Reservation, migrate, parse_reservation

NETWORK = "k8s-pod-network"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("10.5.0.7", "c1\r\neth0", Reservation(ip_address("10.5.0.7"), "c1")),
        ("10.5.0.7", "c1", Reservation(ip_address("10.5.0.7"), "c1")),
        ("fd00_5__7", "c1\neth0\n", Reservation(ip_address("fd00:5::7"), "c1")),
        ("10.5.0.7", "", None),
        ("last_reserved_ip.0", "10.5.0.7", None),
        ("lock", "", None),
    ],
)
def test_file(name: str, text: str, expected: Reservation | None) -> None:
    assert parse_reservation(name, text) == expected


@pytest.fixture
async def store() -> MemoryDatastore:
    made = MemoryDatastore()
    await made.create(audit.pool("10.5.0.0/24", 26))
    await made.create(audit.pool("fd00:5::/64", 122, "six"))
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / NETWORK
    directory.mkdir()
    for name, text in {
        "10.5.0.7": "c1\r\neth0",
        "fd00:5::7": "c1\r\neth0",
        "10.5.0.70": "c2",
        "last_reserved_ip.0": "10.5.0.70",
        "lock": "",
    }.items():
        (directory / name).write_text(text)
    return tmp_path


async def test_every_container_keeps_its_addresses(store: MemoryDatastore, files: Path) -> None:
    allocator = Allocator(store, "n1", rng=audit.Eager(1))
    result = await migrate(allocator, "n1", NETWORK, files)
    assert result.refused == ()
    held = {str(address): handle for address, handle in (await audit.holders(store)).items()}
    assert held == {
        "10.5.0.7": f"{NETWORK}.c1",
        "fd00:5::7": f"{NETWORK}.c1",
        "10.5.0.70": f"{NETWORK}.c2",
    }
    assert await migrate(allocator, "n1", NETWORK, files) == result
    assert len(await allocator.release_handle(f"{NETWORK}.c1")) == 2
    await audit.check(store)


async def test_address_of_no_pool_is_named_and_the_others_are_kept(
    store: MemoryDatastore, files: Path
) -> None:
    (files / NETWORK / "10.9.0.1").write_text("c3")
    result = await migrate(Allocator(store, "n1", rng=audit.Eager(1)), "n1", NETWORK, files)
    (sentence,) = result.refused
    assert "Container c3" in sentence
    assert "10.9.0.1" in sentence
    assert len(result.addresses) == 3


async def test_node_without_host_local_has_nothing_to_migrate(store: MemoryDatastore, tmp_path: Path) -> None:
    result = await migrate(Allocator(store, "n1", rng=audit.Eager(1)), "n1", NETWORK, tmp_path)
    assert result.addresses == ()
    assert await audit.holders(store) == {}
