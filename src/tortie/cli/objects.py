"""Reading and writing v3 documents in a datastore, whichever it is.

Every change is a read, a decision and a compare-and-swap. A document that names a resource version is written
only over that version; one that does not is tried again when somebody else was faster.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tortie.cli import native
from tortie.cli.constraints import (
    BUILT_IN_TIERS,
    RefusedError,
    refuse_immutable,
    refuse_overlap,
    refuse_tier_in_use,
)
from tortie.cli.defaults import with_defaults
from tortie.cli.documents import (
    Document,
    name_of,
    namespace_of,
    spec_of,
    version_of,
    with_content,
    with_metadata_of,
)
from tortie.cli.kinds import KINDS, Backend, Kind, Verb, kind_titled
from tortie.cli.kubernetes_policies import PREFIX
from tortie.cli.pools import addresses_in_use, retire
from tortie.datastore.interface import (
    AlreadyExistsError,
    ConflictError,
    Datastore,
    InvalidError,
    NotFoundError,
)
from tortie.model.policies import DEFAULT_TIER
from tortie.model.resources import Node, Resource

_ATTEMPTS: Final = 10
_FIRST_WAIT: Final = 0.05  # seconds before the second attempt; doubled each time
_LONGEST_WAIT: Final = 1.0
# Calico up to 3.31 stored the policies of tier `default` under this prefix; since then under their own name.
_OLD_PREFIX: Final = "default."

Change = Callable[[Document], Document]


@dataclass(frozen=True, slots=True)
class Found:
    """Objects of one kind as documents, and the list's resource version."""

    items: list[Document]
    version: str


class Objects:
    """The objects of one datastore."""

    def __init__(
        self, store: Datastore, backend: Backend, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.store = store
        self.warn = warn
        self.backend = backend

    async def list(self, kind: Kind, namespace: str = "") -> Found:
        """All objects of a kind, tiers in their order, others by namespace and name; an empty namespace means
        all of them."""
        scope = namespace if kind.namespaced else ""
        read = kind.reads(self.backend)
        if kind.guest is not None and self.backend == "kubernetes":
            read = (*read, kind.guest)
        listings = [await self.store.list(source, scope) for source in read]
        items = [body for listing in listings for item in listing.items if (body := kind.to_document(item))]
        if kind.title == "Profile" and self.backend == "kubernetes":
            items.append(native.default_allow_profile())
        if kind.in_tiers:
            items = _with_plain_names(items)
        items.sort(key=_place)
        return Found(items, listings[0].resource_version)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        """One object. Raise NotFoundError."""
        if kind.title == "Node":
            resource: Resource = await self.store.get(Node, name)
        elif kind.sources and self.backend == "kubernetes":
            for item in (await self.list(kind, namespace)).items:
                if name_of(item) == name:
                    return item
            raise NotFoundError(f"{kind.title} {name} does not exist")
        elif kind.guest is not None and kind.is_guest(name) and self.backend == "kubernetes":
            resource = await self.store.get(kind.guest, name.removeprefix(PREFIX), namespace)
        else:
            resource = await self._find(kind, name, namespace)
        body = kind.to_document(resource)
        if body is None:
            raise NotFoundError(f"{kind.title} {name} is being deleted")
        # A policy answers to either of its names, and is shown under the one that was asked for.
        return renamed(body, name) if kind.in_tiers else body

    async def create(self, kind: Kind, document: Document) -> None:
        """Raise AlreadyExistsError, RefusedError, InvalidError."""
        self.allow(kind, "create", name_of(document))
        body = with_defaults(kind, document)
        await self._check_references(kind, body)
        if kind.in_tiers and await self._exists(kind, document):
            raise AlreadyExistsError(f"{kind.title} {name_of(document)} already exists")
        new = native.node_resource(body) if kind.title == "Node" else self._stored(kind, body)
        await self.store.create(new)

    async def apply(self, kind: Kind, document: Document) -> None:
        """Create it, or replace what there is. Raise ConflictError when the document's resource version is
        not the stored one's."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self.replace(kind, document)
            except NotFoundError:
                try:
                    return await self.create(kind, without_version(document))
                except AlreadyExistsError as error:
                    if attempt == _ATTEMPTS - 1:
                        raise ConflictError(str(error)) from error
        return None

    async def replace(self, kind: Kind, document: Document) -> None:
        """The document's spec, labels and annotations take the place of the stored ones; what else the
        server has (uid, owners, finalizers, status) stays. Raise NotFoundError, ConflictError."""
        self.allow(kind, "change", name_of(document))
        body = with_defaults(kind, document)
        await self._check_references(kind, body)
        wanted = version_of(document)

        def change(old: Document) -> Document:
            if wanted and wanted != version_of(old):
                raise RefusedError(_out_of_date(kind, name_of(old), wanted, version_of(old)))
            return body

        await self.change(kind, name_of(document), namespace_of(document), change)

    async def change(self, kind: Kind, name: str, namespace: str, change: Change) -> Document:
        """Replace an object by what `change` makes of its document; return that. `change` is called again
        when somebody else wrote meanwhile. Raise NotFoundError, ConflictError, RefusedError."""
        wait = _FIRST_WAIT
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._change_once(kind, name, namespace, change)
            except ConflictError:
                if attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError("the last attempt returns or raises")

    async def delete(self, kind: Kind, name: str, namespace: str = "", version: str = "") -> None:
        """Delete an object; with `version` only that one. A pool is emptied of its block claims first.

        Raise NotFoundError, RefusedError, ConflictError.
        """
        self.allow(kind, "delete", name)
        stored = await self._find(kind, name, namespace)
        if kind.title == "Tier":
            refuse_tier_in_use(name, await self._policies())
        if version and version != stored.metadata.resource_version:
            raise RefusedError(_out_of_date(kind, name, version, stored.metadata.resource_version))
        if kind.title == "IPPool" and (count := await addresses_in_use(self.store, stored)):
            self.warn(
                f"IPPool {name}: {count} of its addresses are in use, to which other nodes have no route "
                "any more; delete their pods, so that new ones get addresses of another pool"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if kind.title == "IPPool":
                    stored = await retire(self.store, stored)
                return await self.store.delete(stored)
            except ConflictError:
                if version or attempt == _ATTEMPTS:
                    raise
            stored = await self._find(kind, name, namespace)
        return None

    def allow(self, kind: Kind, verb: Verb, name: str) -> None:
        """Raise RefusedError when the kind does not have the verb in this datastore."""
        reason = kind.reason_against(verb, self.backend, name)
        if reason:
            words = {"create": "created", "change": "changed", "delete": "deleted"}[verb]
            raise RefusedError(f"{kind.title} {name} cannot be {words}: {reason}")

    # --- inside ------------------------------------------------------------------------------------------

    async def _change_once(self, kind: Kind, name: str, namespace: str, change: Change) -> Document:
        if kind.title == "Node":
            return await self._change_node(name, change)
        current = await self._find(kind, name, namespace)
        old = kind.to_document(current)
        if old is None:
            raise NotFoundError(f"{kind.title} {name} is being deleted")
        new = with_defaults(kind, change(old))
        refuse_immutable(kind, old, new)
        metadata = with_metadata_of(current.metadata, new)
        stored = await self.store.update(with_content(current, metadata, new["spec"]))
        return kind.to_document(stored) or new

    async def _change_node(self, name: str, change: Change) -> Document:
        node = await self.store.get(Node, name)
        old = native.node_document(node)
        new = change(old)
        patch = native.node_patch(old, new)
        if not patch:
            return old
        # The version makes the patch a compare-and-swap.
        patch["metadata"]["resourceVersion"] = node.metadata.resource_version
        return native.node_document(await self.store.patch(Node, name, patch))

    async def _find(self, kind: Kind, name: str, namespace: str) -> Resource:
        """The stored object; a policy of tier `default` may stand there under its old name, or be asked for
        by it. Raise NotFoundError."""
        (stored,) = kind.reads(self.backend)
        scope = namespace if kind.namespaced else ""
        try:
            return await self.store.get(stored, name, scope)
        except NotFoundError:
            if not kind.in_tiers:
                raise NotFoundError(f"{kind.title} {name} does not exist") from None
        try:
            found = await self.store.get(stored, _other_name(name), scope)
        except NotFoundError:
            raise NotFoundError(f"{kind.title} {name} does not exist") from None
        if (spec_of(found).get("tier") or DEFAULT_TIER) != DEFAULT_TIER:
            raise NotFoundError(f"{kind.title} {name} does not exist")
        return found

    async def _exists(self, kind: Kind, document: Document) -> bool:
        try:
            await self._find(kind, name_of(document), namespace_of(document))
        except NotFoundError:
            return False
        return True

    def _stored(self, kind: Kind, document: Document) -> Resource:
        """A new object. What only a server can say is left out. Raise InvalidError."""
        given = document["metadata"]
        body = {
            "metadata": {
                "name": name_of(document),
                "namespace": namespace_of(document),
                "labels": given.get("labels") or {},
                "annotations": given.get("annotations") or {},
            },
            "spec": document["spec"],
        }
        try:
            return msgspec.convert(body, kind.stored_kind(self.backend))
        except msgspec.ValidationError as error:
            raise InvalidError(f"{kind.title} {name_of(document)} does not fit its kind: {error}.") from error

    async def _check_references(self, kind: Kind, document: Document) -> None:
        """What only the other objects can tell: pools must not overlap, a policy's tier must exist."""
        if kind.title == "IPPool":
            pools = (await self.list(kind)).items
            refuse_overlap(document, (item for item in pools if name_of(item) != name_of(document)))
        tier = document["spec"].get("tier") if kind.in_tiers else None
        if tier and tier not in BUILT_IN_TIERS:
            try:
                await self.get(kind_titled("Tier"), str(tier))
            except NotFoundError as error:
                raise RefusedError(
                    f"{kind.title} {name_of(document)}: spec.tier {tier!r} does not exist; create the tier "
                    "first, or leave the field out for tier default"
                ) from error

    async def _policies(self) -> Sequence[tuple[Kind, Document]]:
        """Every object that belongs to a tier."""
        kinds = [kind for kind in KINDS if kind.in_tiers]
        return [(kind, item) for kind in kinds for item in (await self.list(kind)).items]


def _place(body: Document) -> tuple[float, str, str]:
    order = body["spec"].get("order") if body["kind"] == "Tier" else 0
    return (order if isinstance(order, int | float) else math.inf, namespace_of(body), name_of(body))


def _out_of_date(kind: Kind, name: str, given: str, stored: str) -> str:
    return (
        f"{kind.title} {name}: metadata.resourceVersion {given!r} is out of date, the object has {stored!r}; "
        "get it again, or leave the field out to overrule"
    )


def _other_name(name: str) -> str:
    """The name of tier default's policies in the other of the two styles."""
    return name.removeprefix(_OLD_PREFIX) if name.startswith(_OLD_PREFIX) else _OLD_PREFIX + name


def _with_plain_names(items: Iterable[Document]) -> list[Document]:
    """Policies under their names in the v3 API. Of two that would be called the same, the one with the old
    name keeps it: nothing is hidden."""
    listed = list(items)
    taken = {(namespace_of(item), name_of(item)) for item in listed}
    result = []
    for item in listed:
        name = name_of(item).removeprefix(_OLD_PREFIX)
        plain = (item["spec"].get("tier") or DEFAULT_TIER) == DEFAULT_TIER
        free = (namespace_of(item), name) not in taken
        result.append(renamed(item, name) if plain and free else item)
    return result


def renamed(document: Document, name: str) -> Document:
    """A copy with another name."""
    return {**document, "metadata": {**document["metadata"], "name": name}}


def without_version(document: Document) -> Document:
    """A copy that claims no version: to be created."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "resourceVersion"}
    return {**document, "metadata": metadata}
