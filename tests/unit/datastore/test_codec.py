import json
import logging

import msgspec
import pytest

from tortie.datastore import codec
from tortie.datastore.interface import InvalidError
from tortie.model.resources import (
    AllocationAttribute,
    IPAMBlock,
    IPAMBlockSpec,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPAMHandleSpec,
    IPPool,
    Metadata,
    Node,
    Resource,
)


def written(resource: Resource) -> dict[str, object]:
    body = json.loads(codec.encode(resource))
    assert isinstance(body, dict)
    return body


def test_object_is_written_with_its_api_version_and_kind() -> None:
    body = written(IPAMHandle(metadata=Metadata(name="h"), spec=IPAMHandleSpec(handle_id="H", block={})))
    assert body == {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMHandle",
        "metadata": {"name": "h"},
        "spec": {"handleID": "H", "block": {}, "deleted": False},
    }


def test_required_fields_are_written_even_when_they_are_false() -> None:
    assert written(IPAMConfig(spec=IPAMConfigSpec()))["spec"] == {
        "strictAffinity": False,
        "autoAllocateBlocks": True,
        "maxBlocksPerHost": 0,
    }


def test_absent_values_are_left_out_but_free_ordinals_stay_null() -> None:
    spec = IPAMBlockSpec(
        cidr="10.5.0.0/31",
        allocations=[None, 0],
        unallocated=[0],
        attributes=[AllocationAttribute(handle_id="h")],
    )
    body = written(IPAMBlock(spec=spec))["spec"]
    assert isinstance(body, dict)
    assert body["allocations"] == [None, 0]
    assert body["attributes"] == [{"handle_id": "h"}]
    assert body["strictAffinity"] is False
    assert "affinity" not in body


def test_unknown_fields_are_ignored_when_reading() -> None:
    text = (
        b'{"metadata": {"name": "n", "managedFields": []}, "spec": {"podCIDR": "x", "taints": []}, "new": 1}'
    )
    assert codec.decode(Node, text).spec.pod_cidr == "x"


def test_object_that_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidError, match=r"IPPool mine .*cidr"):
        codec.decode(IPPool, b'{"metadata": {"name": "mine"}, "spec": {}}')


def test_list_leaves_out_and_logs_an_object_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    good = {"metadata": {"name": "good"}, "spec": {"cidr": "10.5.0.0/16"}}
    bad = {"metadata": {"name": "bad"}, "spec": {"cidr": 5}}
    page = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [bad, good]}
    with caplog.at_level(logging.ERROR):
        items, version, token = codec.decode_page(IPPool, json.dumps(page).encode())
    assert [item.metadata.name for item in items] == ["good"]
    assert (version, token) == ("7", "more")
    assert "bad" in caplog.text


@pytest.mark.parametrize("text", [b"", b"404 page not found", b"[]", b'{"items": 3}'])
def test_answer_that_is_no_list_is_an_error(text: bytes) -> None:
    with pytest.raises(InvalidError):
        codec.decode_page(IPPool, text)


def pool_with_annotation(value: str, **annotations: str) -> bytes:
    metadata = {
        "name": "p",
        "labels": {"native": "1", "projectcalico.org/kept": "2"},
        "annotations": {"projectcalico.org/metadata": value, **annotations},
    }
    return json.dumps({"metadata": metadata, "spec": {"cidr": "10.5.0.0/16"}}).encode()


def test_labels_and_annotations_in_calicos_metadata_annotation_count() -> None:
    stored = json.dumps({"creationTimestamp": None, "labels": {"app": "x"}, "annotations": {"note": "y"}})
    metadata = codec.decode(IPPool, pool_with_annotation(stored, other="z")).metadata
    assert metadata.labels == {"projectcalico.org/kept": "2", "app": "x"}
    assert metadata.annotations["note"] == "y"
    assert "other" not in metadata.annotations
    assert metadata.annotations["projectcalico.org/metadata"] == stored


def test_unreadable_metadata_annotation_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        metadata = codec.decode(IPPool, pool_with_annotation("{")).metadata
    assert metadata.labels["native"] == "1"
    assert "projectcalico.org/metadata" in caplog.text


def test_metadata_annotation_on_a_native_object_means_nothing() -> None:
    body = msgspec.json.decode(pool_with_annotation('{"labels": {"app": "x"}}'))
    metadata = codec.decode(Node, msgspec.json.encode({"metadata": body["metadata"]})).metadata
    assert metadata.labels["native"] == "1"


def test_error_answer_that_is_no_status_is_read_as_an_empty_one() -> None:
    assert codec.decode_status(b"<html>Bad Gateway</html>") == codec.Status()
    assert codec.decode_status(b'{"reason": "NotFound", "code": 404}').reason == "NotFound"
