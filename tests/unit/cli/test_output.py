"""Tables and documents that `get` prints."""

import json

import pytest
import yaml

from tortie.cli.documents import Document, exported
from tortie.cli.kinds import kind_named
from tortie.cli.native import node_document, node_patch, node_resource
from tortie.cli.output import Format, FormatError, parse_format, render, table

POLICIES: list[Document] = [
    {"metadata": {"name": "b", "namespace": "shop"}, "spec": {"order": 5.0, "selector": "all()"}},
    {"metadata": {"name": "a", "namespace": "bar"}, "spec": {"tier": "net"}},
]


def test_table_shows_namespaces_when_several_are_asked_for() -> None:
    kind = kind_named("np")
    assert table(kind, POLICIES, Format("wide"), spaces=True) == (
        "NAMESPACE   NAME   TIER      ORDER   SELECTOR\n"
        "shop        b      default   5       all()\n"
        "bar         a      net       <nil>\n"
    )
    assert table(kind, POLICIES, Format("ps"), spaces=False) == "NAME   TIER\nb      default\na      net\n"


def test_chosen_columns_come_in_the_given_order() -> None:
    form = parse_format("custom-columns=order,NAME,namespace")
    assert table(kind_named("np"), POLICIES, form, spaces=False) == (
        "ORDER   NAME   NAMESPACE\n5       b      shop\n<nil>   a      bar\n"
    )


def test_unknown_column_is_answered_with_the_known_ones() -> None:
    form = parse_format("custom-columns=NAME,COLOUR")
    with pytest.raises(FormatError, match="Tier has no column 'COLOUR'; it has: NAME, ORDER, DEFAULTACTION"):
        table(kind_named("tier"), [], form, spaces=False)


def test_one_object_stands_for_itself_and_several_are_a_list() -> None:
    kind = kind_named("np")
    single = render(kind, POLICIES[:1], "", Format("json"), single=True, spaces=False)
    assert json.loads(single) == POLICIES[0]
    every = yaml.safe_load(render(kind, POLICIES, "7", Format("yaml"), single=False, spaces=False))
    assert every == {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicyList",
        "items": POLICIES,
        "metadata": {"resourceVersion": "7"},
    }
    assert render(kind, [], "", Format("yaml"), single=True, spaces=False) == ""


def test_export_drops_what_belongs_to_the_cluster() -> None:
    body = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1", "labels": {"x": "y"}},
        "spec": {"order": 1},
        "status": {"a": 1},
    }
    assert exported(body, with_namespace=True) == {
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}},
        "spec": {"order": 1},
    }
    assert "namespace" not in exported(body, with_namespace=False)["metadata"]


def test_joined_lists_are_cut() -> None:
    kind = kind_named("globalnetworkset")
    nets = [f"10.0.{number}.0/24" for number in range(100)]
    cell = kind.cells({"metadata": {"name": "s"}, "spec": {"nets": nets}})["NETS"]
    assert len(cell) == 80
    assert cell.endswith("...")


def test_node_patch_has_only_what_changed() -> None:
    old = {
        "metadata": {"name": "n", "labels": {"a": "1", "b": "2"}, "annotations": {"x": "1"}},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 64512}},
    }
    new = {
        "metadata": {"name": "n", "labels": {"a": "1", "c": "3"}, "annotations": {"x": "1"}},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1/24", "routeReflectorClusterID": "1.0.0.1"}},
    }
    assert node_patch(old, old) == {}
    assert node_patch(old, new) == {
        "metadata": {
            "labels": {"b": None, "c": "3"},
            "annotations": {
                "projectcalico.org/ASNumber": None,
                "projectcalico.org/RouteReflectorClusterID": "1.0.0.1",
            },
        }
    }


def test_node_for_etcd_has_the_documents_data() -> None:
    spec = {
        "bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 64512},
        "vxlanTunnelMACAddr": "66:00:00:00:00:01",
    }
    node = node_resource({"metadata": {"name": "n", "labels": {"a": "1"}}, "spec": spec})
    shown = node_document(node)
    assert spec.items() <= shown["spec"].items()
    assert shown["metadata"] == {"name": "n", "labels": {"a": "1"}}
