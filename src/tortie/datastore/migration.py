"""Everything of the network's in one datastore as documents, and those documents into another datastore.

The datastore that is left and the one that is entered are both locked (ClusterInformation's datastoreReady is
false), so nobody allocates an address in between. Objects that follow from Kubernetes' own (WorkloadEndpoint,
Profile) are not carried over.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from tortie.datastore import codec
from tortie.datastore.interface import Datastore, InvalidError, NotFoundError
from tortie.model.registry import CRD_KINDS, IPAM_STATE_KINDS, kind_of
from tortie.model.resources import ClusterInformation, ClusterInformationSpec, Metadata, Node, Resource

Document = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name

# Metadata that belongs to one datastore only.
_LOCAL: Final = frozenset(
    {
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
        "ownerReferences",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
    }
)
_CALICO_ANNOTATION: Final = "projectcalico.org/"
_AT_ONCE: Final = 50  # objects that are written at the same time
# Settings first, what was allocated last.
_ORDER: Final[tuple[type[Resource], ...]] = (
    *(kind for kind in CRD_KINDS if kind not in IPAM_STATE_KINDS and kind is not ClusterInformation),
    Node,
    *IPAM_STATE_KINDS,
)
_EXPORTED: Final[tuple[type[Resource], ...]] = (ClusterInformation, *_ORDER)


async def is_locked(store: Datastore) -> bool:
    """Whether CNI and controllers keep their hands off this datastore; true when nobody uses it yet."""
    try:
        return (await store.get(ClusterInformation, "default")).spec.datastore_ready is False
    except NotFoundError:
        return True


async def set_lock(store: Datastore, locked: bool) -> None:
    """Lock or unlock. Raise NotFoundError when no network was ever installed on it."""
    await store.patch(ClusterInformation, "default", {"spec": {"datastoreReady": not locked}})


async def export_documents(store: Datastore) -> list[Document]:
    """Every object, in the order in which to write them. Raise InvalidError when it is not locked."""
    if not await is_locked(store):
        raise InvalidError(
            "The datastore is not locked, so addresses may be allocated while it is read; "
            "run `tortiectl datastore migrate lock` first."
        )
    documents: list[Document] = []
    for kind in _EXPORTED:
        documents += [document_of(item) for item in (await store.list(kind)).items]
    return documents


def document_of(resource: Resource) -> Document:
    """An object without what only its datastore has a use for."""
    body = codec.unfolded(resource)
    metadata = {key: value for key, value in body["metadata"].items() if key not in _LOCAL and value}
    if isinstance(resource, Node):
        annotations = {
            key: value
            for key, value in resource.metadata.annotations.items()
            if key.startswith(_CALICO_ANNOTATION)
        }
        body["status"] = {"addresses": body.get("status", {}).get("addresses", [])}
        metadata = {key: value for key, value in metadata.items() if key != "annotations"}
        metadata |= {"annotations": annotations} if annotations else {}
    return {**body, "metadata": metadata}


def key_of(document: Document) -> Key:
    """Which object a document is."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def read_documents(documents: Iterable[Any]) -> list[tuple[type[Resource], Document]]:
    """Documents and kinds. Raise InvalidError for what is no object of a kind of ours, or a repetition."""
    found: list[tuple[type[Resource], Document]] = []
    seen: set[Key] = set()
    for number, document in enumerate(documents, start=1):
        try:
            kind = kind_of(document["apiVersion"], document["kind"])
            codec.decode(kind, msgspec.json.encode(document))
            key = key_of(document)
        except (LookupError, TypeError) as error:
            raise InvalidError(f"Document {number} of the file is no object to import: {error}.") from error
        if kind not in _EXPORTED:
            raise InvalidError(f"Document {number} of the file is a {key[0]}, which is not imported.")
        if key in seen:
            raise InvalidError(f"Document {number} of the file is {key[0]} {key[2]} for the second time.")
        seen.add(key)
        found.append((kind, document))
    return found


async def import_documents(
    store: Datastore, documents: Iterable[Any], *, has_nodes: bool, warn: Callable[[str], None]
) -> int:
    """Write documents into an empty, locked datastore, and leave it locked; how many were written.

    What an import that was interrupted has written already may be there; anything else makes it fail with
    InvalidError before a write. `has_nodes`: the datastore has Node objects of its own (Kubernetes), which
    get our annotations; a Node that it does not have is reported through `warn`.
    """
    found = read_documents(documents)
    if not await is_locked(store):
        raise InvalidError(
            "The datastore to import into is in use (ClusterInformation's datastoreReady is not false); "
            "run `tortiectl datastore migrate lock` on it first."
        )
    present = await _present(store, found, has_nodes)
    information = next((document for kind, document in found if kind is ClusterInformation), None)
    await _ensure_locked(store)
    count = 0
    for wanted in _ORDER:
        of_kind = [document for kind, document in found if kind is wanted and key_of(document) not in present]
        for start in range(0, len(of_kind), _AT_ONCE):
            batch = of_kind[start : start + _AT_ONCE]
            written = await asyncio.gather(
                *(_write(store, wanted, document, has_nodes, warn) for document in batch)
            )
            count += sum(written)
    if information is not None:
        spec = {**information["spec"], "datastoreReady": False}
        await store.patch(ClusterInformation, "default", {"spec": spec})
        count += 1
    return count


async def _present(
    store: Datastore, found: Sequence[tuple[type[Resource], Document]], has_nodes: bool
) -> set[Key]:
    """Objects of the file that are in the datastore already. Raise InvalidError when others are."""
    wanted = {key_of(document): document for _kind, document in found}
    present: set[Key] = set()
    for kind in _ORDER:
        if kind is Node and has_nodes:
            continue
        for item in (await store.list(kind)).items:
            document = document_of(item)
            key = key_of(document)
            if wanted.get(key) != document:
                raise InvalidError(
                    f"The datastore to import into is not empty: it has {key[0]} {key[2]}, which is not in "
                    "the file, or is different there. Nothing was written. Import into an empty datastore."
                )
            present.add(key)
    return present


async def _ensure_locked(store: Datastore) -> None:
    try:
        await set_lock(store, True)
    except NotFoundError:
        spec = ClusterInformationSpec(datastore_ready=False)
        await store.create(ClusterInformation(metadata=Metadata(name="default"), spec=spec))


async def _write(
    store: Datastore,
    kind: type[Resource],
    document: Document,
    has_nodes: bool,
    warn: Callable[[str], None],
) -> bool:
    if kind is Node and has_nodes:
        name = document["metadata"]["name"]
        patch = {"metadata": {"annotations": document["metadata"].get("annotations", {})}}
        try:
            await store.patch(Node, name, patch, subresource="status")
        except NotFoundError:
            warn(f"Node {name} is not in this cluster; what the file says of it is left out.")
            return False
        return True
    await store.create(codec.decode(kind, msgspec.json.encode(document)))
    return True
