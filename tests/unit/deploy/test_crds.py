"""The CRDs: generated, structural, with Calico's names and mandatory fields."""

import re
from typing import Any

import msgspec
import pytest
import yaml
from deploy.generate_crds import CEL_TARGET, TARGET, main, render, schema_of

from tortie.model import registry

DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(TARGET.read_text()))
BY_KIND = {document["spec"]["names"]["kind"]: document for document in DOCUMENTS}

# Calico's own CRDs: fields of spec without which the API server refuses an object.
REQUIRED = {
    "BlockAffinity": ["cidr", "deleted", "node", "state"],
    "IPAMBlock": ["allocations", "attributes", "cidr", "strictAffinity", "unallocated"],
    "IPAMConfig": ["autoAllocateBlocks", "strictAffinity"],
    "IPAMHandle": ["block", "handleID"],
    "IPPool": ["cidr"],
    "KubeControllersConfiguration": ["controllers"],
}
KINDS = [
    "BGPConfiguration",
    "BGPFilter",
    "BGPPeer",
    "BlockAffinity",
    "CalicoNodeStatus",
    "ClusterInformation",
    "FelixConfiguration",
    "GlobalNetworkPolicy",
    "GlobalNetworkSet",
    "HostEndpoint",
    "IPAMBlock",
    "IPAMConfig",
    "IPAMHandle",
    "IPPool",
    "IPReservation",
    "KubeControllersConfiguration",
    "NetworkPolicy",
    "NetworkSet",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "Tier",
]
NAMESPACED = {"NetworkPolicy", "NetworkSet", "StagedKubernetesNetworkPolicy", "StagedNetworkPolicy"}


def spec_schema(kind: str) -> dict[str, Any]:
    """The schema of `spec`."""
    (version,) = BY_KIND[kind]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def schemas_within(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema and all schemas inside it."""
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    return [schema, *(found for item in inner for found in schemas_within(item))]


def test_file_is_what_the_generator_writes() -> None:
    assert TARGET.read_text() == render(), "run python -m deploy.generate_crds"
    assert CEL_TARGET.read_text() == render(cel=True), "run python -m deploy.generate_crds"


def test_check_reports_a_stale_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "crds.yaml"
    stale.write_text("---\n")
    monkeypatch.setattr("deploy.generate_crds.TARGET", stale)
    monkeypatch.setattr("deploy.generate_crds.CEL_TARGET", tmp_path / "cel" / "crds.yaml")
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_every_kind_is_there_once() -> None:
    assert sorted(BY_KIND) == KINDS
    assert len(DOCUMENTS) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_required_fields_are_calicos(kind: str) -> None:
    assert spec_schema(kind).get("required", []) == REQUIRED.get(kind, [])


@pytest.mark.parametrize("kind", KINDS)
def test_spec_preserves_fields_that_we_do_not_read(kind: str) -> None:
    assert spec_schema(kind)["x-kubernetes-preserve-unknown-fields"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_names_follow_from_the_kind(kind: str) -> None:
    document = BY_KIND[kind]
    names = document["spec"]["names"]
    assert names["singular"] == kind.lower()
    assert names["listKind"] == f"{kind}List"
    assert document["metadata"]["name"] == f"{names['plural']}.crd.projectcalico.org"
    assert document["spec"]["scope"] == ("Namespaced" if kind in NAMESPACED else "Cluster")


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_structural_for_the_oldest_server(kind: str) -> None:
    known = {"type", "format", "nullable", "enum", "properties", "items", "additionalProperties", "required"}
    known |= {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"}
    for schema in schemas_within(spec_schema(kind)):
        assert set(schema) <= known
        assert ("type" in schema) != schema.get("x-kubernetes-int-or-string", False)
        assert not ("properties" in schema and "additionalProperties" in schema)


def test_model_and_crds_agree_on_plurals() -> None:
    for kind, document in BY_KIND.items():
        struct = registry.crd_kind(kind)
        assert struct.resource_type.plural == document["spec"]["names"]["plural"]
        assert struct.resource_type.kind == kind


def test_free_ordinals_and_absent_handles_may_be_null() -> None:
    block = spec_schema("IPAMBlock")["properties"]
    assert block["allocations"]["items"] == {"type": "integer", "format": "int64", "nullable": True}
    assert block["attributes"]["items"]["properties"]["handle_id"]["nullable"] is True


def test_affinity_deleted_is_a_string() -> None:
    assert spec_schema("BlockAffinity")["properties"]["deleted"] == {"type": "string"}


def test_type_without_a_schema_is_refused() -> None:
    with pytest.raises(TypeError, match="has no structural schema"):
        schema_of(msgspec.inspect.type_info(int | list[str]))


def test_ports_may_be_numbers_or_text() -> None:
    rule = spec_schema("NetworkPolicy")["properties"]["ingress"]["items"]["properties"]
    assert rule["source"]["properties"]["ports"]["items"] == {"x-kubernetes-int-or-string": True}


def test_rules_speak_of_fields_that_exist() -> None:
    count = 0
    for document in yaml.safe_load_all(render(cel=True)):
        schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for rule in schema.get("x-kubernetes-validations", []):
            named = set(re.findall(r"(?:self|oldSelf)\.(\w+)", rule["rule"]))
            assert named
            assert named <= set(schema["properties"])
            count += 1
    assert count >= 8
