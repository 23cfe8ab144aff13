"""The commands of `tortiectl ipam`, on a datastore in memory."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.components import ipam_audit as audit
from tests.unit.controllers.scene import POOL, Scene
from tortie.cli import connection
from tortie.cli.main import main
from tortie.datastore.memory import MemoryDatastore
from tortie.model.resources import (
    ClusterInformation,
    ClusterInformationSpec,
    IPAMConfig,
    IPAMHandle,
    IPPool,
    Metadata,
)

Run = Callable[..., Result]


@pytest.fixture
def store() -> MemoryDatastore:
    made = MemoryDatastore()
    made.put(audit.pool(*POOL))
    spec = ClusterInformationSpec(cluster_guid="guid", datastore_ready=True)
    made.put(ClusterInformation(metadata=Metadata(name="default"), spec=spec))
    return made


@pytest.fixture
def run(store: MemoryDatastore, monkeypatch: pytest.MonkeyPatch) -> Run:
    async def connect(_connection: connection.Connection) -> MemoryDatastore:
        return store

    monkeypatch.setattr(connection, "connect", connect)
    return lambda *words: CliRunner().invoke(main, ["ipam", *map(str, words)])


def leak(store: MemoryDatastore) -> tuple[str, str]:
    """The address of a living pod, and one that leaked."""

    async def scene() -> tuple[str, str]:
        cluster = Scene(store)
        await cluster.add_node("n1")
        kept = await cluster.start_pod("n1", "kept")
        lost = await cluster.start_pod("n1", "lost")
        await cluster.delete_pod("lost")
        return str(kept), str(lost)

    return asyncio.run(scene())


def held(store: MemoryDatastore) -> set[str]:
    return {str(address) for address in asyncio.run(audit.holders(store))}


def test_check_finds_the_leak_and_release_takes_back_what_the_report_names(
    run: Run, store: MemoryDatastore, tmp_path: Path
) -> None:
    kept, lost = leak(store)
    report = tmp_path / "report.json"
    result = run("check", "--show-problem-ips", "-o", report)
    assert result.exit_code == 0
    assert f"{lost} is allocated but not in use: pod default/lost does not exist" in result.output
    assert "found 1 problems" in result.output
    assert json.loads(report.read_text())["allocations"][kept]["inUse"] is True
    result = run("release", "--from-report", report)
    assert result.output == f"Released {lost}\nReleased 1 of 1 reported addresses.\n"
    assert held(store) == {kept}
    assert run("release", f"--from-report={report}").output == "Released 0 of 1 reported addresses.\n"


def test_address_that_was_assigned_anew_since_the_report_is_left_alone(
    run: Run, store: MemoryDatastore, tmp_path: Path
) -> None:
    kept, lost = leak(store)
    report = tmp_path / "report.json"
    run("check", "-o", report)
    document = json.loads(report.read_text())
    document["allocations"][lost]["sequenceNumber"] -= 1
    document["allocations"][kept]["inUse"] = False
    report.write_text(json.dumps(document))
    assert "Released 0 of 2" in run("release", "--from-report", report).output
    assert held(store) == {kept, lost}


def test_report_of_another_cluster_is_refused_without_force(
    run: Run, store: MemoryDatastore, tmp_path: Path
) -> None:
    leak(store)
    report = tmp_path / "report.json"
    run("check", "-o", report)
    report.write_text(report.read_text().replace('"guid"', '"other"'))
    result = run("release", "--from-report", report)
    assert result.exit_code == 1
    assert "The report is of cluster other, this is guid" in result.output
    assert "Released 1 of 1" in run("release", "--from-report", report, "--force").output


def test_one_address_is_released_whoever_uses_it(run: Run, store: MemoryDatastore) -> None:
    kept, lost = leak(store)
    assert run("release", f"--ip={kept}").output == f"Successfully released IP address {kept}\n"
    assert held(store) == {lost}
    handles = asyncio.run(store.list(IPAMHandle)).items
    assert [handle.spec.handle_id for handle in handles] == ["net.lost-c1"]
    result = run("release", f"--ip={kept}")
    assert result.exit_code == 1
    assert f"{kept} is not assigned" in result.output
    assert run("release", "--ip=10.9.9.9").exit_code == 1
    assert run("release").exit_code == 2


def test_split_needs_a_lock_and_replaces_the_pool(run: Run, store: MemoryDatastore) -> None:
    result = run("split", 2, "--name=default")
    assert result.exit_code == 1
    assert "The datastore is not locked" in result.output
    spec = ClusterInformationSpec(cluster_guid="guid", datastore_ready=False)
    store.put(ClusterInformation(metadata=Metadata(name="default"), spec=spec))
    result = run("split", 2, f"--cidr={POOL[0]}")
    assert result.exit_code == 0, result.output
    pools = {pool.metadata.name: pool.spec.cidr for pool in asyncio.run(store.list(IPPool)).items}
    assert pools == {"split-default-0": "10.5.0.0/25", "split-default-1": "10.5.0.128/25"}
    assert "no network" in run("split", 2, "--cidr=10.5").output
    assert run("split", 2).exit_code == 2


def test_configure_creates_changes_and_shows(run: Run, store: MemoryDatastore) -> None:
    result = run("configure", "--strictaffinity=true", "--max-blocks-per-host=4")
    assert result.output == (
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n"
    )
    assert run("configure", "--ip-cooldown-seconds", 30).exit_code == 0
    spec = asyncio.run(store.get(IPAMConfig, "default")).spec
    assert (spec.strict_affinity, spec.max_blocks_per_host, spec.ip_cooldown_seconds) == (True, 4, 30)
    assert "| MaxBlocksPerHost   | 4     |" in run("show", "--show-configuration").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strictaffinity=false", "--max-blocks-per-host=3"], "needs StrictAffinity true"),
        (["--max-blocks-per-host=3"], "needs StrictAffinity true"),
        (["--ip-cooldown-seconds=1201"], "0<=x<=1200"),
        (["--strictaffinity=perhaps"], "perhaps"),
        ([], "Give at least one option"),
    ],
)
def test_configuration_that_contradicts_itself_is_refused(
    run: Run, store: MemoryDatastore, words: list[str], said: str
) -> None:
    result = run("configure", *words)
    assert result.exit_code != 0
    assert said in result.output
    assert asyncio.run(store.list(IPAMConfig)).items == []


def test_show_takes_addresses_of_both_families(run: Run, store: MemoryDatastore) -> None:
    kept, _lost = leak(store)
    assert f"IP {kept} is in use" in run("show", f"--ip={kept}").output
    assert "fd00::1 is in no IP pool" in run("show", "--ip=fd00::1").output
    assert run("show", "--ip=10.5").exit_code == 2
    assert "BORROWING-NODE" in run("show", "--show-borrowed").output


def test_addresses_of_host_local_are_taken_over(run: Run, store: MemoryDatastore, tmp_path: Path) -> None:
    network = tmp_path / "k8s-pod-network"
    network.mkdir()
    (network / "10.5.0.7").write_text("c1\r\neth0")
    words = ("migrate-host-local", "--node=n1", f"--directory={tmp_path}")
    assert run(*words).output == "Took over 1 addresses of network k8s-pod-network.\n"
    assert held(store) == {"10.5.0.7"}
    (network / "10.9.0.1").write_text("c2")
    result = run(*words)
    assert result.exit_code == 1
    assert "Not taken over:\nContainer c2" in result.output
