"""What every resource kind has: metadata, where it is stored, and the document it was read from."""

from dataclasses import dataclass
from typing import ClassVar, Final

from msgspec import Struct, field

CRD_GROUP_VERSION: Final = "crd.projectcalico.org/v1"
# Kinds that only Calico's own keys in etcd hold; a Kubernetes API server has native objects instead.
CALICO_GROUP_VERSION: Final = "projectcalico.org/v3"

# No JSON document has a member with this name: the document beside the struct is never read from one.
_DOCUMENT_MEMBER: Final = " document"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Where a kind lives in the Kubernetes API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = False


class Metadata(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """ObjectMeta, the part that matters here. `resource_version` is the CAS token."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


class Resource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of every kind. `resource_type` says where it is stored.

    `document` is the JSON text that a CRD kind was read from, empty for an object made here. Writing the
    object back changes in it only what changed in the typed fields, so what we do not know survives; keep it
    when you make a changed copy (msgspec.structs.replace does).
    """

    resource_type: ClassVar[ResourceType]
    metadata: Metadata = field(default_factory=Metadata)
    document: bytes = field(default=b"", name=_DOCUMENT_MEMBER)

    def __eq__(self, other: object) -> bool:
        """Equal in every typed field; what is beside them is another writer's."""
        if type(self) is not type(other):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name)
            for name in self.__struct_fields__
            if name != "document"
        )

    def __hash__(self) -> int:
        """Resources change, so they have no hash. Raise TypeError."""
        raise TypeError(f"{type(self).__name__} is not hashable; use its namespace and name as the key")
