"""The contract of the datastore: the same assertions on memory, a real API server and a real etcd."""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from tortie.datastore import codec, deletion
from tortie.datastore.interface import (
    AlreadyExistsError,
    ConflictError,
    Datastore,
    Event,
    InvalidError,
    NotFoundError,
)
from tortie.model.policies import NetworkPolicy, NetworkSet, Rule
from tortie.model.resources import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BlockAffinity,
    BlockAffinitySpec,
    IPAMHandle,
    IPAMHandleSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    Resource,
)


def pool(name: str = "p", cidr: str = "10.5.0.0/16") -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr))


def handle(name: str, **block: int) -> IPAMHandle:
    return IPAMHandle(metadata=Metadata(name=name), spec=IPAMHandleSpec(handle_id=name.upper(), block=block))


async def test_created_object_is_stored_as_given_with_version_and_uid(store: Datastore) -> None:
    labelled = pool()
    labelled.metadata.labels = {"app": "x"}
    created = await store.create(labelled)
    assert created.metadata.resource_version
    assert created.metadata.uid
    assert created.metadata.creation_timestamp
    assert created.metadata.labels == {"app": "x"}
    assert created.spec == labelled.spec
    assert await store.get(IPPool, "p") == created


async def test_every_ipam_kind_survives_storage(store: Datastore) -> None:
    spec = BlockAffinitySpec(node="n1", cidr="10.5.0.0/26", state="pending")
    affinity = await store.create(BlockAffinity(metadata=Metadata(name="n1-10-5-0-0-26"), spec=spec))
    assert affinity.spec == spec
    stored = await store.create(handle("h", **{"10.5.0.0/26": 1}))
    assert stored.spec == IPAMHandleSpec(handle_id="H", block={"10.5.0.0/26": 1})


async def test_create_of_a_taken_name_is_refused(store: Datastore) -> None:
    await store.create(pool())
    with pytest.raises(AlreadyExistsError):
        await store.create(pool(cidr="10.6.0.0/16"))
    assert (await store.get(IPPool, "p")).spec.cidr == "10.5.0.0/16"


async def test_create_with_a_resource_version_is_refused(store: Datastore) -> None:
    stored = await store.create(pool())
    await store.delete(stored)
    with pytest.raises(InvalidError):
        await store.create(stored)


async def test_missing_object_is_not_found(store: Datastore) -> None:
    with pytest.raises(NotFoundError):
        await store.get(IPPool, "absent")
    with pytest.raises(NotFoundError):
        await store.patch(IPPool, "absent", {"spec": {}})
    with pytest.raises(NotFoundError):
        await store.delete(pool("absent"))


async def test_update_replaces_the_current_version_only(store: Datastore) -> None:
    old = await store.create(handle("h", a=1))
    new = await store.update(_with_block(old, {"b": 2}))
    assert new.spec.block == {"b": 2}
    assert new.metadata.resource_version != old.metadata.resource_version
    with pytest.raises(ConflictError):
        await store.update(_with_block(old, {"c": 3}))
    assert (await store.get(IPAMHandle, "h")).spec.block == {"b": 2}


def _with_block(resource: IPAMHandle, block: dict[str, int]) -> IPAMHandle:
    return msgspec.structs.replace(resource, spec=msgspec.structs.replace(resource.spec, block=block))


async def test_update_without_a_version_is_refused(store: Datastore) -> None:
    await store.create(handle("h", a=1))
    with pytest.raises(InvalidError):
        await store.update(handle("h", b=1))


async def test_update_of_a_deleted_object_is_a_conflict(store: Datastore) -> None:
    stored = await store.create(handle("h", a=1))
    await store.delete(stored)
    with pytest.raises(ConflictError):
        await store.update(_with_block(stored, {"b": 1}))


async def test_update_of_an_object_that_never_was_is_not_found(store: Datastore) -> None:
    absent = handle("absent", a=1)
    absent.metadata.resource_version = "1"
    with pytest.raises(NotFoundError):
        await store.update(absent)


async def test_update_of_a_recreated_object_is_a_conflict(store: Datastore) -> None:
    stored = await store.create(handle("h", a=1))
    await store.delete(stored)
    await store.create(handle("h", a=1))
    with pytest.raises(ConflictError):
        await store.update(_with_block(stored, {"b": 1}))


async def test_update_that_changes_nothing_keeps_the_version(store: Datastore) -> None:
    stored = await store.create(handle("h", a=1))
    assert (await store.update(stored)).metadata.resource_version == stored.metadata.resource_version


async def test_one_of_many_concurrent_updates_wins(store: Datastore) -> None:
    stored = await store.create(handle("h", a=1))
    results = await asyncio.gather(
        *(store.update(_with_block(stored, {"winner": n})) for n in range(2, 12)), return_exceptions=True
    )
    won = [item for item in results if isinstance(item, IPAMHandle)]
    assert len(won) == 1
    assert all(isinstance(item, ConflictError) for item in results if item is not won[0])
    assert (await store.get(IPAMHandle, "h")).spec == won[0].spec


async def test_delete_with_a_stale_version_or_another_uid_is_a_conflict(store: Datastore) -> None:
    old = await store.create(handle("h", a=1))
    await store.update(_with_block(old, {"b": 1}))
    with pytest.raises(ConflictError):
        await store.delete(old)
    other = handle("h")
    other.metadata.uid = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(ConflictError):
        await store.delete(other)
    await store.delete(handle("h"))
    with pytest.raises(NotFoundError):
        await store.get(IPAMHandle, "h")


async def test_patch_merges_and_null_removes(store: Datastore) -> None:
    await store.create(handle("h", a=1, b=2))
    patch = {"metadata": {"labels": {"app": "x"}}, "spec": {"block": {"a": None, "c": 3}}}
    patched = await store.patch(IPAMHandle, "h", patch)
    assert patched.spec.block == {"b": 2, "c": 3}
    assert patched.metadata.labels == {"app": "x"}


async def test_patch_with_a_stale_version_is_a_conflict(store: Datastore) -> None:
    old = await store.create(pool())
    await store.patch(IPPool, "p", {"spec": {"disabled": True}})
    stale = {"metadata": {"resourceVersion": old.metadata.resource_version}, "spec": {"natOutgoing": True}}
    with pytest.raises(ConflictError):
        await store.patch(IPPool, "p", stale)


async def test_status_patch_writes_status_and_annotations_but_no_spec(store: Datastore) -> None:
    await store.create(Node(metadata=Metadata(name="n1")))
    condition = {"type": "NetworkUnavailable", "status": "False", "reason": "TortieIsUp"}
    patch = {
        "metadata": {"annotations": {"projectcalico.org/IPv4Address": "10.30.200.1/24"}},
        "spec": {"podCIDR": "10.9.0.0/24"},
        "status": {"conditions": [condition]},
    }
    await store.patch(Node, "n1", patch, subresource="status")
    node = await store.get(Node, "n1")
    assert node.metadata.annotations["projectcalico.org/IPv4Address"] == "10.30.200.1/24"
    assert [(c.type, c.status, c.reason) for c in node.status.conditions] == [
        ("NetworkUnavailable", "False", "TortieIsUp")
    ]
    assert node.spec.pod_cidr == ""


async def test_list_has_all_objects_of_the_kind_and_no_other(store: Datastore) -> None:
    for name in ("b", "a", "c"):
        await store.create(pool(name))
    await store.create(handle("h", a=1))
    listing = await store.list(IPPool)
    assert [item.metadata.name for item in listing.items] == ["a", "b", "c"]
    assert listing.resource_version


async def test_field_selector_on_the_name_selects_it(store: Datastore) -> None:
    await store.create(pool("a"))
    await store.create(pool("b"))
    named = await store.list(IPPool, field_selector="metadata.name=b")
    assert [item.metadata.name for item in named.items] == ["b"]
    others = await store.list(IPPool, field_selector="metadata.name!=b")
    assert [item.metadata.name for item in others.items] == ["a"]


async def _take(
    store: Datastore, kind: type[IPPool], version: str, count: int, selector: str = ""
) -> list[Event[IPPool]]:
    events: list[Event[IPPool]] = []
    async with asyncio.timeout(30), aclosing(store.watch(kind, version, field_selector=selector)) as stream:
        async for event in stream:
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_watch_reports_each_change_since_the_list_in_order(store: Datastore) -> None:
    await store.create(pool("before"))
    version = (await store.list(IPPool)).resource_version
    await store.create(pool("a"))
    await store.patch(IPPool, "a", {"spec": {"disabled": True}})
    await store.delete(pool("a"))
    await store.create(pool("b"))
    events = await _take(store, IPPool, version, 4)
    assert [(event.type, event.object.metadata.name) for event in events] == [
        ("added", "a"),
        ("modified", "a"),
        ("deleted", "a"),
        ("added", "b"),
    ]
    assert events[1].object.spec.disabled
    assert events[2].object.spec.disabled
    versions = [int(event.resource_version) for event in events]
    assert versions == sorted(set(versions))
    assert [event.resource_version for event in events] == [
        e.object.metadata.resource_version for e in events
    ]


async def test_watch_from_an_events_version_continues_after_it(store: Datastore) -> None:
    version = (await store.list(IPPool)).resource_version
    for name in ("a", "b", "c"):
        await store.create(pool(name))
    first, _second = await _take(store, IPPool, version, 2)
    rest = await _take(store, IPPool, first.resource_version, 2)
    assert [event.object.metadata.name for event in rest] == ["b", "c"]


async def test_running_watch_sees_what_comes_later_and_only_its_kind(store: Datastore) -> None:
    version = (await store.list(IPPool)).resource_version
    watching = asyncio.create_task(_take(store, IPPool, version, 1))
    await store.create(handle("h", a=1))
    await store.create(pool("later"))
    (event,) = await watching
    assert event.object.metadata.name == "later"


async def test_watch_with_a_field_selector_sees_only_what_it_selects(store: Datastore) -> None:
    version = (await store.list(IPPool)).resource_version
    for name in ("a", "b"):
        await store.create(pool(name))
    await store.delete(pool("b"))
    events = await _take(store, IPPool, version, 2, "metadata.name=b")
    assert [(event.type, event.object.metadata.name) for event in events] == [
        ("added", "b"),
        ("deleted", "b"),
    ]


async def test_object_written_back_by_patch_keeps_fields_we_do_not_know(store: Datastore) -> None:
    created: Resource = await store.create(
        BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(as_number=64513))
    )
    assert created.metadata.name == "default"
    await store.patch(BGPConfiguration, "default", {"spec": {"nodeMeshMaxRestartTime": "120s"}})
    patched = await store.patch(BGPConfiguration, "default", {"spec": {"listenPort": 1179}})
    assert (patched.spec.as_number, patched.spec.listen_port) == (64513, 1179)


# --- documents that others wrote -------------------------------------------------------------------


def written_by_calico(kind: type[Resource], document: dict[str, Any]) -> Resource:
    """The object as a reader has it, not stored yet."""
    return codec.decode(kind, msgspec.json.encode(document))


POOL_DOCUMENT: dict[str, Any] = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPPool",
    "metadata": {"name": "p", "finalizers": ["example.org/mine"]},
    "spec": {
        "cidr": "10.5.0.0/16",
        "ipipMode": "Never",
        "natOutgoing": True,
        "future": {"setting": [1, {"deep": True}]},
    },
}


async def test_update_of_one_field_keeps_every_field_that_is_not_typed(store: Datastore) -> None:
    await store.create(written_by_calico(IPPool, POOL_DOCUMENT))
    stored = await store.get(IPPool, "p")
    spec = msgspec.structs.replace(stored.spec, disabled=True)
    await store.update(msgspec.structs.replace(stored, spec=spec))
    document = msgspec.json.decode((await store.get(IPPool, "p")).document)
    assert document["spec"] == {**POOL_DOCUMENT["spec"], "disabled": True}
    assert document["metadata"]["finalizers"] == ["example.org/mine"]
    await store.patch(IPPool, "p", {"metadata": {"finalizers": None}})


async def test_unknown_fields_inside_lists_survive_a_change_beside_them(store: Datastore) -> None:
    rules = [
        {"action": "Allow", "future": 1},
        {"action": "Deny", "source": {"nets": ["10.0.0.0/8"], "new": 2}},
    ]
    document = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"order": 10, "ingress": rules}}
    await store.create(written_by_calico(NetworkPolicy, document))
    stored = await store.get(NetworkPolicy, "p", "default")
    stored.spec.ingress.insert(0, Rule(action="Log"))
    stored.spec.ingress[2].source.nets.append("10.9.0.0/16")
    updated = await store.update(stored)
    ingress = msgspec.json.decode(updated.document)["spec"]["ingress"]
    assert ingress[1] == rules[0]
    assert [rule["action"] for rule in ingress] == ["Log", "Allow", "Deny"]


async def test_labels_are_found_and_changed_where_calico_keeps_them(store: Datastore) -> None:
    folded = '{"creationTimestamp":null,"labels":{"app":"x","tier":"1"},"annotations":{"note":"y"}}'
    metadata = {
        "name": "p",
        "labels": {"projectcalico.org/kept": "2"},
        "annotations": {"projectcalico.org/metadata": folded},
    }
    await store.create(written_by_calico(IPPool, {"metadata": metadata, "spec": POOL_DOCUMENT["spec"]}))
    stored = await store.get(IPPool, "p")
    assert stored.metadata.labels == {"projectcalico.org/kept": "2", "app": "x", "tier": "1"}
    stored.metadata.labels["app"] = "changed"
    del stored.metadata.labels["tier"]
    await store.update(stored)
    assert (await store.get(IPPool, "p")).metadata.labels == {"projectcalico.org/kept": "2", "app": "changed"}
    patch = {"metadata": {"labels": {"app": None, "new": "z"}, "annotations": {"note": "w"}}}
    patched = await store.patch(IPPool, "p", patch)
    assert patched.metadata.labels == {"projectcalico.org/kept": "2", "new": "z"}
    assert patched.metadata.annotations["note"] == "w"
    assert (await store.get(IPPool, "p")).metadata == patched.metadata


async def test_patch_of_labels_with_a_stale_version_is_a_conflict(store: Datastore) -> None:
    metadata = {"name": "p", "annotations": {"projectcalico.org/metadata": '{"labels":{"app":"x"}}'}}
    old = await store.create(written_by_calico(IPPool, {"metadata": metadata, "spec": POOL_DOCUMENT["spec"]}))
    await store.patch(IPPool, "p", {"spec": {"disabled": True}})
    stale = {"resourceVersion": old.metadata.resource_version, "labels": {"app": "y"}}
    with pytest.raises(ConflictError):
        await store.patch(IPPool, "p", {"metadata": stale})


# --- deletion in two steps -------------------------------------------------------------------------


async def test_object_that_somebody_began_to_delete_is_gone_for_readers(store: Datastore) -> None:
    await store.create(handle("kept", a=1))
    stored = await store.create(handle("h", a=1))
    version = (await store.list(IPAMHandle)).resource_version
    await store.update(deletion.marked(stored))
    assert [item.metadata.name for item in (await store.list(IPAMHandle)).items] == ["kept"]
    with pytest.raises(NotFoundError):
        await store.get(IPAMHandle, "h")
    async with asyncio.timeout(30), aclosing(store.watch(IPAMHandle, version)) as stream:
        event = await anext(stream)
    assert (event.type, event.object.metadata.name) == ("deleted", "h")


async def test_name_of_an_object_that_somebody_began_to_delete_can_be_taken(store: Datastore) -> None:
    old = await store.create(handle("h", a=1))
    await store.update(deletion.marked(old))
    new = await store.create(handle("h", b=2))
    assert new.metadata.uid != old.metadata.uid
    assert (await store.get(IPAMHandle, "h")).spec.block == {"b": 2}


async def test_deletion_is_reported_once(store: Datastore) -> None:
    stored = await store.create(handle("h", a=1))
    version = (await store.list(IPAMHandle)).resource_version
    await store.delete(stored)
    await store.create(handle("h", b=2))
    events: list[str] = []
    async with asyncio.timeout(30), aclosing(store.watch(IPAMHandle, version)) as stream:
        async for event in stream:
            events.append(event.type)
            if event.type == "added":
                break
    assert events == ["deleted", "added"]


# --- every kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NetworkPolicy, NetworkSet], ids=lambda kind: kind.__name__)
async def test_namespaces_hold_objects_of_the_same_name(
    store: Datastore, kind: type[NetworkPolicy | NetworkSet]
) -> None:
    for namespace in ("default", "kube-system"):
        await store.create(kind(metadata=Metadata(name="same", namespace=namespace)))
    everywhere = (await store.list(kind)).items
    assert [item.metadata.namespace for item in everywhere] == ["default", "kube-system"]
    one = (await store.list(kind, namespace="kube-system")).items
    assert [item.metadata.namespace for item in one] == ["kube-system"]
    await store.delete(one[0])
    assert len((await store.list(kind)).items) == 1


async def test_list_of_more_than_a_page_is_complete(store: Datastore) -> None:
    names = [f"h{number:04}" for number in range(1201)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(store.create(handle(name, a=1)) for name in names[start : start + 50]))
    listing = await store.list(IPAMHandle)
    assert [item.metadata.name for item in listing.items] == names
