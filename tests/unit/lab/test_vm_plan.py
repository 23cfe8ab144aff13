"""Virtual machines as data: sizes, QEMU's arguments, what a machine needs."""

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_plan, lab_vm_plan
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab, PlanError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_plan import Image, Machine, Record

from tests.unit.lab.test_lab_plan import parameters

IMAGE = Image(Path("/cache/machines/0123456789ab"))


@pytest.fixture
def lab() -> Lab:
    return lab_plan.lab_from_params(parameters())


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return Machine(lab.nodes[0], 2, 2048)


def record(machine: Machine) -> Record:
    return Record(machine.node.address, machine.cpus, machine.memory_mib, "0123456789ab", answered=True)


def argument(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_machines_get_the_sizes_of_their_nodes_and_defaults_without(lab: Lab) -> None:
    first, second = lab.nodes[:2]
    made = lab_vm_plan.machines(lab, {first.name: "1"}, {first.name: 1536})
    assert (made[0].cpus, made[0].memory_mib) == (1, 1536)
    assert (made[1].node, made[1].cpus, made[1].memory_mib) == (second, 2, 2048)


@pytest.mark.parametrize(
    ("cpus", "memory", "sentence"),
    [
        ("many", 2048, "lab_vm_cpus of master-01 is 'many'; it must be a whole number"),
        (0, 2048, "lab_vm_cpus of master-01 is 0; a machine needs at least 1"),
        (2, "2 GiB", "lab_vm_memory_mib of master-01 is '2 GiB'"),
        (2, 64, "lab_vm_memory_mib of master-01 is 64; a machine needs at least 512"),
    ],
)
def test_sizes_that_cannot_be_are_refused(lab: Lab, cpus: object, memory: object, sentence: str) -> None:
    with pytest.raises(PlanError, match=sentence):
        lab_vm_plan.machines(lab, {"master-01": cpus}, {"master-01": memory})


def test_machines_that_fit_have_no_problem(machine: Machine) -> None:
    assert lab_vm_plan.size_problems([machine], "tcg", 2, 2048 + lab_vm_plan.OVERHEAD_MIB["tcg"]) == []


def test_too_few_processors_and_too_little_memory_are_two_sentences(machine: Machine) -> None:
    processors, memory = lab_vm_plan.size_problems([machine], "tcg", 1, 2000)
    assert "lab_vm_cpus of master-01 is 2, but this machine lets the lab use 1" in processors
    assert "2000 MiB available" in memory
    assert "master-01 2048" in memory


def test_space_is_wanted_for_every_new_disk() -> None:
    assert lab_vm_plan.space_problem(Path("/lab"), 2, 4096) is None
    assert "4096 MiB in /lab, where 4095 MiB are free" in str(
        lab_vm_plan.space_problem(Path("/lab"), 2, 4095)
    )
    assert lab_vm_plan.space_problem(Path("/lab"), 0, 0) is None


def test_machine_is_on_the_nodes_own_tap_with_an_address_of_its_own(lab: Lab) -> None:
    lines = [lab_vm_plan.qemu_arguments(lab, Machine(node, 1, 1024), IMAGE, "tcg") for node in lab.nodes[:2]]
    for node, line in zip(lab.nodes, lines, strict=False):
        assert f"ifname={node.port}," in argument(line, "-netdev")
    assert lab_vm_plan.hardware_address(lab.nodes[0]) == "52:54:00:1e:c8:01"
    assert len({lab_vm_plan.hardware_address(node) for node in lab.nodes}) == len(lab.nodes)


def test_acceleration_decides_about_processor_and_clock(lab: Lab, machine: Machine) -> None:
    emulated = lab_vm_plan.qemu_arguments(lab, machine, IMAGE, "tcg")
    accelerated = lab_vm_plan.qemu_arguments(lab, machine, IMAGE, "kvm")
    assert argument(emulated, "-accel").startswith("tcg,")
    assert "tsc=reliable" in argument(emulated, "-append")
    assert (argument(accelerated, "-accel"), argument(accelerated, "-cpu")) == ("kvm", "host")
    assert "tsc=reliable" not in argument(accelerated, "-append")


def test_comma_in_a_path_is_doubled_inside_options(lab: Lab, machine: Machine) -> None:
    odd = replace(lab, directory=Path("/a,b"))
    line = lab_vm_plan.qemu_arguments(odd, machine, IMAGE, "tcg")
    assert "file=/a,,b/nodes/master-01/disk.qcow2," in argument(line, "-drive")
    assert argument(line, "-pidfile") == "/a,b/nodes/master-01/pid"


def test_own_files_give_name_address_and_keys(lab: Lab) -> None:
    files = lab_vm_plan.own_files(lab, lab.nodes[0], b"secret", b"public")
    assert files["etc/hostname"].content == b"master-01\n"
    network = files["etc/systemd/network/10-lab.network"].content.decode()
    assert "Address=10.30.200.1/24\nGateway=10.30.200.254\n" in network
    assert files["etc/ssh/lab/ssh_host_ed25519_key"].mode == 0o600


def test_record_survives_being_written_and_a_cut_one_is_none(machine: Machine) -> None:
    text = record(machine).render()
    assert lab_vm_plan.parse_record(text) == record(machine)
    assert lab_vm_plan.parse_record(text[:20]) is None
    assert lab_vm_plan.parse_record("{}") is None


def test_running_machine_is_left_alone(machine: Machine) -> None:
    assert lab_vm_plan.action_for(machine, record(machine), True, running=True, connected=True) == ""


def test_machine_without_record_or_disk_is_made_anew(machine: Machine) -> None:
    assert lab_vm_plan.action_for(machine, None, True, running=False, connected=False) == "create"
    assert lab_vm_plan.action_for(machine, record(machine), False, running=False, connected=False) == "create"
    assert lab_vm_plan.action_for(machine, None, True, running=True, connected=True) == "recreate"


def test_ended_machine_is_started_with_its_disk(machine: Machine) -> None:
    assert lab_vm_plan.action_for(machine, record(machine), True, running=False, connected=False) == "start"


def test_machine_that_never_answered_gets_a_new_disk(machine: Machine) -> None:
    never = replace(record(machine), answered=False)
    assert lab_vm_plan.action_for(machine, never, True, running=False, connected=False) == "recreate"
    # Another run may just be waiting for it.
    assert lab_vm_plan.action_for(machine, never, True, running=True, connected=True) == ""


def test_machine_of_another_address_is_recreated(machine: Machine) -> None:
    moved = replace(record(machine), address="10.30.200.77")
    assert lab_vm_plan.action_for(machine, moved, True, running=True, connected=True) == "recreate"


def test_machine_of_another_size_or_cut_from_the_switch_is_restarted(machine: Machine) -> None:
    smaller = replace(record(machine), memory_mib=1024)
    assert lab_vm_plan.action_for(machine, smaller, True, running=True, connected=True) == "restart"
    assert lab_vm_plan.action_for(machine, record(machine), True, running=True, connected=False) == "restart"
