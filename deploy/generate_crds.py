"""Write deploy/crds.yaml from the resource structs: `python -m deploy.generate_crds [--check]`.

The schemas are structural (apiextensions.k8s.io/v1) and keep to what kube-apiserver 1.20 knows, so there are
no CEL rules. Every spec preserves unknown fields: Calico has more fields than we read, and its documents must
survive.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tortie.model import resources

TARGET = Path(__file__).with_name("crds.yaml")
HEADER = (
    "# Generated from src/tortie/model/resources.py by `python -m deploy.generate_crds`; do not edit.\n"
    "# Names, scope and required fields are Calico's (crd.projectcalico.org/v1).\n"
)
PRESERVE = {"x-kubernetes-preserve-unknown-fields": True}
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """One CustomResourceDefinition. `required`: the spec's mandatory fields, as Calico's own CRD has them."""

    kind: str
    plural: str
    spec: Schema
    required: tuple[str, ...] = ()

    def document(self) -> Schema:
        """The manifest. Cluster scope, one served and stored version."""
        spec = {**self.spec, **({"required": sorted(self.required)} if self.required else {})}
        group, version = resources.CRD_GROUP_VERSION.split("/")
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{group}"},
            "spec": {
                "group": group,
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.kind.lower(),
                },
                "scope": "Cluster",
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "schema": {
                            "openAPIV3Schema": {
                                "type": "object",
                                "properties": {
                                    "apiVersion": {"type": "string"},
                                    "kind": {"type": "string"},
                                    "metadata": {"type": "object"},
                                    "spec": spec,
                                    "status": {"type": "object", **PRESERVE},
                                },
                            }
                        },
                    }
                ],
            },
        }


def struct_schema(struct: type[msgspec.Struct]) -> Schema:
    """The structural schema of a struct under its wire names; unknown fields are preserved."""
    return schema_of(msgspec.inspect.type_info(struct))


def schema_of(info: msgspec.inspect.Type) -> Schema:
    """The structural schema of one msgspec type. Raise TypeError for a type the CRDs have no shape for."""
    match info:
        case msgspec.inspect.StructType(fields=fields):
            return {
                "type": "object",
                "properties": {item.encode_name: schema_of(item.type) for item in fields},
                **PRESERVE,
            }
        case msgspec.inspect.StrType():
            return {"type": "string"}
        case msgspec.inspect.BoolType():
            return {"type": "boolean"}
        case msgspec.inspect.IntType():
            return {"type": "integer", "format": "int64"}
        case msgspec.inspect.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case msgspec.inspect.ListType(item_type=item):
            return {"type": "array", "items": schema_of(item)}
        case msgspec.inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": schema_of(value)}
        case msgspec.inspect.UnionType(types=types):
            some = [item for item in types if not isinstance(item, msgspec.inspect.NoneType)]
            if len(some) == 1 and len(some) < len(types):
                return {**schema_of(some[0]), "nullable": True}
    raise TypeError(f"{info!r} has no structural schema; extend deploy/generate_crds.py")


def from_struct(resource: type[resources.Resource], *required: str) -> Definition:
    """The definition of a kind that the model types; `spec`'s type says the fields."""
    where = resource.resource_type
    spec = next(item.type for item in msgspec.structs.fields(resource) if item.name == "spec")
    return Definition(kind=where.kind, plural=where.plural, spec=struct_schema(spec), required=required)


BGP_PEER_SPEC: Schema = {
    "type": "object",
    "properties": {
        "asNumber": {"type": "integer", "format": "int64"},
        "node": {"type": "string"},
        "nodeSelector": {"type": "string"},
        "peerIP": {"type": "string"},
        "peerSelector": {"type": "string"},
    },
    **PRESERVE,
}


def definitions() -> Iterator[Definition]:
    """Every kind of the group that Tortie installs, in alphabetical order of the plural."""
    yield from_struct(resources.BGPConfiguration)
    yield Definition(kind="BGPPeer", plural="bgppeers", spec=BGP_PEER_SPEC)
    yield from_struct(resources.BlockAffinity, "cidr", "deleted", "node", "state")
    yield from_struct(resources.ClusterInformation)
    yield Definition(
        kind="FelixConfiguration", plural="felixconfigurations", spec={"type": "object", **PRESERVE}
    )
    yield from_struct(
        resources.IPAMBlock, "allocations", "attributes", "cidr", "strictAffinity", "unallocated"
    )
    yield from_struct(resources.IPAMConfig, "autoAllocateBlocks", "strictAffinity")
    yield from_struct(resources.IPAMHandle, "block", "handleID")
    yield from_struct(resources.IPPool, "cidr")


class IndentedDumper(yaml.SafeDumper):
    """Sequences indented below their key, without anchors: the repository's YAML style."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never put a sequence at its key's own column."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out."""
        return True


def render() -> str:
    """The text of deploy/crds.yaml."""
    documents = [definition.document() for definition in definitions()]
    return HEADER + yaml.dump_all(
        documents, Dumper=IndentedDumper, sort_keys=False, explicit_start=True, width=110
    )


def main(arguments: list[str]) -> int:
    """Write the file; with --check only compare, and return 1 when it is out of date."""
    text = render()
    if arguments == ["--check"]:
        if TARGET.read_text() == text:
            return 0
        print(f"{TARGET.name} differs from the structs: run python -m deploy.generate_crds", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
