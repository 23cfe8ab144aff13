import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.datastore import codec
from tortie.datastore.document import rewritten
from tortie.model.policies import NetworkPolicy, Rule
from tortie.model.resources import (
    BGPPeer,
    IPAMBlock,
    IPPool,
    Metadata,
    Resource,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
UNKNOWN = st.dictionaries(st.text("xyz", min_size=3, max_size=6), JSON, max_size=3)


def stored(kind: type[Resource], document: dict[str, Any]) -> Any:
    return codec.decode(kind, msgspec.json.encode(document))


def pool(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "p", "resourceVersion": "1"},
        "spec": {"cidr": "10.5.0.0/16", **spec},
    }


@settings(deadline=None)
@given(spec=UNKNOWN, metadata=UNKNOWN, status=JSON)
def test_document_comes_back_as_it_was(spec: Any, metadata: Any, status: Any) -> None:
    document = pool(**spec)
    document["metadata"] |= metadata
    document["status"] = status
    assert codec.encode_object(stored(IPPool, document)) == document


@settings(deadline=None)
@given(spec=UNKNOWN)
def test_one_changed_field_changes_nothing_else(spec: Any) -> None:
    document = pool(**spec, ipipMode="Always", natOutgoing=True)
    resource = stored(IPPool, document)
    resource.spec.ipip_mode = "Never"
    resource.spec.disabled = True
    expected = {**document["spec"], "disabled": True}
    del expected["ipipMode"]  # its default
    assert codec.encode_object(resource)["spec"] == expected


def test_default_that_was_written_out_stays_and_one_that_was_not_stays_away() -> None:
    document = pool(ipipMode="Never", nodeSelector="all()")
    resource = stored(IPPool, document)
    resource.spec.disabled = True
    assert codec.encode_object(resource)["spec"] == {**document["spec"], "disabled": True}


def test_null_stays_null() -> None:
    document = {"metadata": {"name": "p"}, "spec": {"peerIP": "192.0.2.1", "asNumber": None, "new": None}}
    assert codec.encode_object(stored(BGPPeer, document))["spec"] == document["spec"]


def test_removed_map_entries_are_removed_and_unknown_ones_are_not_touched() -> None:
    spec = {
        "cidr": "10.5.0.0/31",
        "allocations": [0, None],
        "unallocated": [1],
        "attributes": [{"handle_id": "h", "secondary": {"node": "n"}, "future": 1}],
        "strictAffinity": False,
        "sequenceNumberForAllocation": {"0": 5},
    }
    block = stored(IPAMBlock, {"metadata": {"name": "10-5-0-0-31"}, "spec": spec})
    block.spec.sequence_number_for_allocation = {}
    block.spec.attributes[0].secondary = {}
    written = codec.encode_object(block)["spec"]
    assert written["sequenceNumberForAllocation"] == {}
    assert written["attributes"] == [{"handle_id": "h", "secondary": {}, "future": 1}]


def test_list_elements_keep_what_is_unknown_in_them_when_others_come_and_go() -> None:
    rules = [{"action": "Allow", "new": 1}, {"action": "Deny", "new": 2}, {"action": "Log", "new": 3}]
    policy = stored(NetworkPolicy, {"metadata": {"name": "p"}, "spec": {"ingress": rules}})
    policy.spec.ingress = [policy.spec.ingress[2], Rule(action="Pass"), policy.spec.ingress[0]]
    policy.spec.ingress[1] = Rule(action="Pass")
    assert codec.encode_object(policy)["spec"]["ingress"][0] == rules[2]
    assert codec.encode_object(policy)["spec"]["ingress"][2] == rules[0]


def test_changed_list_element_keeps_what_is_unknown_in_it() -> None:
    rules = [{"action": "Allow", "source": {"nets": ["10.0.0.0/8"], "new": 1}}, {"action": "Deny"}]
    policy = stored(NetworkPolicy, {"metadata": {"name": "p"}, "spec": {"ingress": rules}})
    policy.spec.ingress[0].source.nets = ["10.9.0.0/16"]
    assert codec.encode_object(policy)["spec"]["ingress"] == [
        {"action": "Allow", "source": {"nets": ["10.9.0.0/16"], "new": 1}},
        {"action": "Deny"},
    ]


def test_object_made_here_is_written_from_its_fields() -> None:
    made = IPPool(metadata=Metadata(name="p"), spec=stored(IPPool, pool(new=1)).spec)
    assert "new" not in codec.encode_object(made)["spec"]


def test_copy_with_changes_still_knows_its_document() -> None:
    resource = stored(IPPool, pool(new=1))
    copied = msgspec.structs.replace(resource, spec=msgspec.structs.replace(resource.spec, disabled=True))
    assert codec.encode_object(copied)["spec"]["new"] == 1


def test_objects_are_equal_whatever_stands_beside_their_typed_fields() -> None:
    assert stored(IPPool, pool(new=1)) == stored(IPPool, pool(new=2))
    assert stored(IPPool, pool()) != stored(IPPool, pool(disabled=True))


def folded(**users: Any) -> dict[str, Any]:
    document = pool()
    document["metadata"] |= {
        "labels": {"hidden": "1", "projectcalico.org/kept": "2"},
        "annotations": {"hidden": "1", "projectcalico.org/metadata": json.dumps(users)},
    }
    return document


def users_part(body: dict[str, Any]) -> Any:
    return json.loads(body["metadata"]["annotations"]["projectcalico.org/metadata"])


def test_folded_metadata_that_nobody_changed_stays_to_the_letter() -> None:
    document = folded(labels={"app": "x"}, creationTimestamp=None)
    assert codec.encode_object(stored(IPPool, document)) == document


def test_user_label_goes_into_the_annotation_and_calicos_own_stays_native() -> None:
    resource = stored(IPPool, folded(labels={"app": "x", "old": "y"}))
    del resource.metadata.labels["old"]
    resource.metadata.labels |= {"new": "z", "projectcalico.org/own": "w"}
    body = codec.encode_object(resource)
    assert users_part(body)["labels"] == {"app": "x", "new": "z"}
    assert body["metadata"]["labels"] == {
        "hidden": "1",
        "projectcalico.org/kept": "2",
        "projectcalico.org/own": "w",
    }


def test_label_of_calicos_own_that_stands_in_both_places_is_changed_in_both() -> None:
    resource = stored(IPPool, folded(labels={"projectcalico.org/kept": "2"}))
    resource.metadata.labels["projectcalico.org/kept"] = "3"
    body = codec.encode_object(resource)
    assert users_part(body)["labels"] == {"projectcalico.org/kept": "3"}
    assert body["metadata"]["labels"]["projectcalico.org/kept"] == "3"
    assert stored(IPPool, body).metadata.labels == {"projectcalico.org/kept": "3"}


def test_removed_annotation_makes_everything_native() -> None:
    resource = stored(IPPool, folded(labels={"app": "x"}))
    del resource.metadata.annotations["projectcalico.org/metadata"]
    body = codec.encode_object(resource)
    assert body["metadata"]["labels"] == {"app": "x", "projectcalico.org/kept": "2"}
    assert stored(IPPool, body).metadata.labels == resource.metadata.labels


@settings(deadline=None)
@given(labels=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4))
def test_any_set_of_labels_can_be_written_to_a_folded_object(labels: dict[str, str]) -> None:
    resource = stored(IPPool, folded(labels={"a": "1", "b": "1"}))
    resource.metadata.labels = dict(labels)
    again = stored(IPPool, codec.encode_object(resource))
    assert again.metadata.labels == labels


@settings(deadline=None)
@given(before=JSON, after=JSON)
def test_difference_of_fully_typed_documents_is_the_new_one(before: Any, after: Any) -> None:
    old, new = {"metadata": {}, "spec": before}, {"metadata": {}, "spec": after}
    assert rewritten(old, old, new) == new
