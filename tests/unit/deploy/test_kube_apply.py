"""What kube_apply concludes from definitions, stored objects and the server's dry run."""

import copy
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import kube_apply as core


def config_map(name: str = "settings", namespace: str = "web", **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def crd(established: str | None = "True", message: str = "") -> dict[str, Any]:
    """A CustomResourceDefinition of kind Cat."""
    conditions = [{"type": "NamesAccepted", "status": "True", "message": message}]
    if established is not None:
        conditions.append({"type": "Established", "status": established, "message": ""})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "cats.example.org"},
        "spec": {"group": "example.org", "names": {"kind": "Cat"}},
        "status": {"conditions": conditions},
    }


def cat(name: str = "tom") -> dict[str, Any]:
    """A Cat."""
    return {"apiVersion": "example.org/v1", "kind": "Cat", "metadata": {"name": name}}


def stored(document: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """The document as a server returns it."""
    result = copy.deepcopy(document)
    result["metadata"].update(
        {"uid": "1", "resourceVersion": "7", "managedFields": [{"manager": "x"}]}, **metadata
    )
    result["status"] = {"observed": 1}
    return result


def keyed(*documents: dict[str, Any]) -> dict[core.Key, dict[str, Any]]:
    """By key."""
    return {core.key_of(document): document for document in documents}


def test_object_that_only_the_server_annotated_is_unchanged() -> None:
    live = stored(
        config_map(a="1"),
        generation=3,
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    plan = core.compare(keyed(config_map(a="1")), keyed(live))
    assert (plan.changed, [str(key) for key in plan.unchanged]) == (
        False,
        ["ConfigMap settings in namespace web"],
    )
    assert plan.differences == []


def test_missing_object_is_created_and_different_one_updated() -> None:
    wanted = keyed(config_map("new", b="2"), config_map("old", a="2"), config_map("same"))
    plan = core.compare(wanted, keyed(stored(config_map("old", a="1")), stored(config_map("same"))))
    assert [key.name for key in plan.created] == ["new"]
    assert [key.name for key in plan.updated] == ["old"]
    assert [key.name for key in plan.unchanged] == ["same"]
    texts = {item["after_header"]: item for item in plan.differences}
    changed = texts["ConfigMap old in namespace web (wanted)"]
    assert '"a": "1"' in changed["before"]
    assert '"a": "2"' in changed["after"]
    assert texts["ConfigMap new in namespace web (wanted)"]["before"] == ""


def test_annotation_that_somebody_else_wrote_counts() -> None:
    live = stored(config_map(), annotations={"owner": "me"})
    assert core.compare(keyed(config_map()), keyed(live)).changed


def test_values_of_a_secret_are_not_in_the_difference() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "web"},
        "data": {"password": "aHVudGVyMg=="},
        "stringData": {"token": "hunter3"},
    }
    (difference,) = core.compare(keyed(secret), {}).differences
    assert "aHVudGVyMg==" not in difference["after"]
    assert "hunter3" not in difference["after"]
    assert '"password": "(not shown)"' in difference["after"]


def test_default_namespace_and_none_are_the_same_place() -> None:
    assert core.key_of(config_map(namespace="default")) == core.key_of(config_map(namespace=""))


def test_api_version_does_not_make_another_object() -> None:
    assert core.key_of({**cat(), "apiVersion": "example.org/v2"}) == core.key_of(cat())
    assert core.key_of({**cat(), "apiVersion": "example.com/v1"}) != core.key_of(cat())


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("text", "definitions[0] is str, not a mapping."),
        ({"kind": "Pod", "metadata": {"name": "x"}}, "definitions[0] (kind Pod) lacks apiVersion."),
        ({"apiVersion": "v1", "metadata": {}}, "definitions[0] (kind unknown) lacks kind, metadata.name."),
        (
            {"apiVersion": "v1", "kind": "Pod", "metadata": None},
            "definitions[0] (kind Pod) lacks metadata.name.",
        ),
    ],
)
def test_malformed_definition_is_described(definition: Any, words: str) -> None:
    assert core.problems([definition]) == [words]


def test_definition_given_twice_is_refused() -> None:
    assert core.problems([cat(), cat("jerry"), cat()]) == ["definitions[2] repeats Cat tom."]


def test_objects_that_need_a_kind_or_namespace_of_the_set_come_later() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}
    other = config_map(namespace="elsewhere")
    first, later = core.split([cat(), config_map(), crd(), other, namespace])
    assert first == [crd(), other, namespace]
    assert later == [cat(), config_map()]


POOL = core.Patch(
    definition={
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "default"},
        "spec": {"cidr": "10.5.0.0/16", "blockSize": 26, "vxlanMode": "Never", "natOutgoing": True},
    },
    absent_means={"spec.blockSize": 26, "spec.vxlanMode": "Never", "spec.natOutgoing": False},
    immutable=["spec.cidr", "spec.blockSize"],
)


def pool(**spec: Any) -> dict[str, Any]:
    """A stored pool."""
    return {**POOL.definition, "spec": {"cidr": "10.5.0.0/16", "natOutgoing": True, **spec}}


def test_absent_field_stands_for_its_default() -> None:
    assert core.patch_differences(POOL, pool()) == []
    assert core.patch_differences(POOL, pool(nodeSelector="all()", blockSize=26)) == []


def test_different_field_is_found_with_both_values() -> None:
    assert core.patch_differences(POOL, pool(vxlanMode="Always")) == [("spec.vxlanMode", "Always", "Never")]
    lacking = {**POOL.definition, "spec": {"cidr": "10.5.0.0/16"}}
    assert core.patch_differences(POOL, lacking) == [("spec.natOutgoing", False, True)]


def test_immutable_field_is_a_conflict_even_where_its_default_is_meant() -> None:
    assert core.immutable_conflicts(POOL, pool(vxlanMode="Always")) == []
    cidr, remedy = core.immutable_conflicts(POOL, pool(cidr="10.6.0.0/16"))
    assert 'IPPool default has spec.cidr "10.6.0.0/16", which cannot be changed to "10.5.0.0/16"' in cidr
    assert remedy == POOL.remedy
    smaller = core.Patch(
        {**POOL.definition, "spec": {**POOL.definition["spec"], "blockSize": 24}},
        POOL.absent_means,
        POOL.immutable,
    )
    size, _remedy = core.immutable_conflicts(smaller, pool())
    assert "spec.blockSize 26, which cannot be changed to 24" in size


def test_only_definitions_that_are_not_served_are_waited_for() -> None:
    assert core.unready([crd(), cat()]) == []
    assert core.unready([crd(None)]) == [
        "CustomResourceDefinition cats.example.org is not served: it is not established yet."
    ]
    assert core.unready([crd("False", "the name cats is taken")]) == [
        "CustomResourceDefinition cats.example.org is not served: the name cats is taken."
    ]


def test_refusal_names_object_reason_and_remedy() -> None:
    assert core.refusal("check the objects", [("Service x", 422, "spec.ports is required")]) == (
        "Cannot check the objects: Service x: spec.ports is required. Correct the definition."
    )


def test_refusals_of_one_kind_share_their_remedy() -> None:
    sentence = core.refusal("apply the objects", [("Cat a", 403, "no"), ("Cat b", 403, "no")])
    assert (
        sentence == "Cannot apply the objects: Cat a: no; Cat b: no. Give the kubeconfig of an administrator."
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "crictl ps"), (401, "check-expiration"), (404, "namespace"), (503, "Run this again")],
)
def test_every_status_has_a_remedy(status: int, words: str) -> None:
    assert words in core.refusal("read the objects", [("Cat a", status, "no")]).partition("no. ")[2]


def test_kind_is_announced_once_per_served_version() -> None:
    versions = [{"name": "v1", "served": True}, {"name": "v0", "served": False}, {"name": "v2"}]
    document = {"spec": {"group": "example.org", "names": {"kind": "Cat"}, "versions": versions}}
    assert core.kinds_of(document) == [("example.org/v1", "Cat"), ("example.org/v2", "Cat")]
