"""Deletion in two steps: mark the object (`spec.deleted`, compare-and-swap), then remove it by version and
uid.

Calico does so for the kinds that allocators write, because old API servers did not look at the resource
version of a deletion: whoever holds a stale copy fails at the mark. A crash between the steps leaves a marked
object, which every reader takes for deleted, and removes.

Nothing has to be called: `Datastore.delete` of the Kubernetes and the memory backend does both steps for
blocks and affinities, which Calico's own components watch and write. A handle, of which there is one for each
container, is deleted in one step: the API servers that we support compare version and uid. `get` and `list`
hide marked objects, handles too, and finish their deletion, `create` finishes it when it is in the way, and a
watch reports the mark as the deletion. etcd compares and deletes in one transaction, so its backend marks
nothing, but it reads marks of other writers in the same way.
"""

from typing import TypeVar

import msgspec

from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle, Resource

R = TypeVar("R", bound=Resource)


def in_two_steps(kind: type[Resource]) -> bool:
    """Whether we mark objects of this kind before we remove them."""
    return issubclass(kind, BlockAffinity | IPAMBlock)


def may_be_marked(kind: type[Resource]) -> bool:
    """Whether somebody may have marked an object of this kind."""
    return issubclass(kind, BlockAffinity | IPAMBlock | IPAMHandle)


def is_marked(resource: Resource) -> bool:
    """Whether somebody has begun to delete it."""
    if isinstance(resource, BlockAffinity):
        return resource.spec.deleted == "true"
    return isinstance(resource, IPAMBlock | IPAMHandle) and resource.spec.deleted


def marked(resource: R) -> R:
    """A copy with the mark. Raise TypeError for a kind that has none."""
    if isinstance(resource, BlockAffinity):
        affinity = msgspec.structs.replace(resource.spec, deleted="true")
        return msgspec.structs.replace(resource, spec=affinity)
    if isinstance(resource, IPAMBlock):
        block = msgspec.structs.replace(resource.spec, deleted=True)
        return msgspec.structs.replace(resource, spec=block)
    if isinstance(resource, IPAMHandle):
        handle = msgspec.structs.replace(resource.spec, deleted=True)
        return msgspec.structs.replace(resource, spec=handle)
    raise TypeError(f"{resource.resource_type.kind} is not deleted in two steps")
