"""Settings of every kind of rule through a real API server, whose CRDs type all of them, and through etcd."""

from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from tests.integration.cli.tool import Tool
from tests.unit.model.felix_samples import GOOD

# The two forms of routing tables exclude each other.
SPEC = {field: accepted[-1] for field, accepted in GOOD if field != "routeTableRange"}


def felix(**spec: Any) -> dict[str, Any]:
    """The cluster's FelixConfiguration."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    }


def test_settings_of_every_kind_are_stored_and_read_back(either: Tool) -> None:
    written = either.run("apply", "-f", "-", stdin=yaml.safe_dump(felix(**SPEC)))
    assert (written.status, written.stderr.count("Warning: ")) == (0, 1)
    assert either.get("felixconfig", "default")["spec"] == SPEC
    patched = either.run("patch", "felixconfig", "default", "-p", '{"spec": {"vxlanPort": 8472}}')
    assert patched.status == 0
    assert either.get("felixconfig", "default")["spec"] == SPEC | {"vxlanPort": 8472}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vxlanMTU", "1400"),
        ("bpfLogFilters", ["all"]),
        ("routeTableRanges", [{"min": 1}]),
        ("bpfEnabled", "on"),
    ],
)
def test_api_server_refuses_a_setting_of_another_type(tool: Tool, field: str, value: Any) -> None:
    body = felix(**{field: value}) | {"apiVersion": "crd.projectcalico.org/v1"}
    group = "/apis/crd.projectcalico.org/v1"
    with pytest.raises(HTTPError) as refused:
        tool.server.request("POST", f"{group}/felixconfigurations", body)
    assert refused.value.code == 422
    assert f"spec.{field}" in refused.value.read().decode()
