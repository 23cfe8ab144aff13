"""What a container needs, from what it is."""

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_plan
from ansible_collections.tortie.cluster.plugins.module_utils.lab_machine import Container, action_for
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab

from tests.unit.lab.test_lab_plan import parameters

NAMESPACE = 4026532000


@pytest.fixture
def lab() -> Lab:
    return lab_plan.lab_from_params(parameters())


def container(lab: Lab, *, running: bool = True, network: int = NAMESPACE, spec: str = "") -> Container:
    own = lab_plan.spec_digest(lab_plan.container_spec(lab, lab.nodes[0]))
    return Container("tortie-master-01", "master-01", running, spec or own, 100 if running else 0, network)


def test_running_container_in_its_namespace_is_left_alone(lab: Lab) -> None:
    assert action_for(lab, lab.nodes[0], container(lab), NAMESPACE) == ""


def test_missing_container_is_created(lab: Lab) -> None:
    assert action_for(lab, lab.nodes[0], None, NAMESPACE) == "create"


def test_stopped_container_is_started(lab: Lab) -> None:
    assert action_for(lab, lab.nodes[0], container(lab, running=False, network=0), NAMESPACE) == "start"


def test_container_in_a_namespace_that_was_replaced_is_restarted(lab: Lab) -> None:
    assert action_for(lab, lab.nodes[0], container(lab, network=NAMESPACE + 1), NAMESPACE) == "restart"


def test_container_of_another_address_is_recreated(lab: Lab) -> None:
    assert action_for(lab, lab.nodes[0], container(lab, spec="0123456789abcdef"), NAMESPACE) == "recreate"
