"""Write the CRDs from the resource structs: `python -m deploy.generate_crds [--check]`.

The schemas are structural (apiextensions.k8s.io/v1). Every object in a spec preserves unknown fields: Calico
has more fields than we read, and its documents must survive. Two variants:

    deploy/crds.yaml      every Kubernetes version that we support
    deploy/cel/crds.yaml  with rules in CEL (x-kubernetes-validations), for Kubernetes 1.25 and later

An API server of 1.20 takes the second as well and drops the rules, but kubectl of that age refuses the file.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from deploy.crd_rules import SPEC_RULES, Rule

from tortie.model.registry import CRD_KINDS
from tortie.model.resources import CRD_GROUP_VERSION, Resource

TARGET = Path(__file__).with_name("crds.yaml")
CEL_TARGET = TARGET.parent / "cel" / TARGET.name
HEADER = (
    "# Generated from src/tortie/model/ by `python -m deploy.generate_crds`; do not edit.\n"
    "# Names, scope and required fields are Calico's (crd.projectcalico.org/v1).\n"
)
PRESERVE = {"x-kubernetes-preserve-unknown-fields": True}
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """One CustomResourceDefinition; `rules` are about its spec."""

    kind: str
    plural: str
    namespaced: bool
    spec: Schema
    status: Schema
    rules: tuple[Rule, ...] = ()

    def document(self, cel: bool) -> Schema:
        """The manifest, with one served and stored version; `cel`: with the rules."""
        spec = {key: value for key, value in self.spec.items() if value != []}
        if cel and self.rules:
            spec["x-kubernetes-validations"] = [
                {"rule": item.expression, "message": item.message} for item in self.rules
            ]
        group, version = CRD_GROUP_VERSION.split("/")
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
                "scope": "Namespaced" if self.namespaced else "Cluster",
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
                                    "status": self.status,
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
            required = sorted(item.encode_name for item in fields if item.required)
            return {
                "type": "object",
                "properties": {item.encode_name: schema_of(item.type) for item in fields},
                **({"required": required} if required else {}),
                **PRESERVE,
            }
        case msgspec.inspect.StrType():
            return {"type": "string"}
        case msgspec.inspect.BoolType():
            return {"type": "boolean"}
        case msgspec.inspect.IntType():
            return {"type": "integer", "format": "int64"}
        case msgspec.inspect.FloatType():
            return {"type": "number"}
        case msgspec.inspect.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case msgspec.inspect.ListType(item_type=item):
            return {"type": "array", "items": schema_of(item)}
        case msgspec.inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": schema_of(value)}
        case msgspec.inspect.UnionType(types=types):
            some = [item for item in types if not isinstance(item, msgspec.inspect.NoneType)]
            nullable = {"nullable": True} if len(some) < len(types) else {}
            names = {type(item) for item in some}
            if len(some) == 1:
                return {**schema_of(some[0]), **nullable}
            if names == {msgspec.inspect.IntType, msgspec.inspect.StrType}:
                return {"x-kubernetes-int-or-string": True, **nullable}
            if names == {msgspec.inspect.IntType, msgspec.inspect.FloatType}:
                return {"type": "number", **nullable}
    raise TypeError(f"{info!r} has no structural schema; extend deploy/generate_crds.py")


# Fields of spec without which Calico's own CRDs refuse an object.
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "BlockAffinity": ("cidr", "deleted", "node", "state"),
    "IPAMBlock": ("allocations", "attributes", "cidr", "strictAffinity", "unallocated"),
    "IPAMConfig": ("autoAllocateBlocks", "strictAffinity"),
    "IPAMHandle": ("block", "handleID"),
    "IPPool": ("cidr",),
    "KubeControllersConfiguration": ("controllers",),
}


def definition(resource: type[Resource]) -> Definition:
    """The definition of a kind that the model types; the types of `spec` and `status` say the fields."""
    where = resource.resource_type
    parts = {item.name: item.type for item in msgspec.structs.fields(resource)}
    status = parts.get("status")
    return Definition(
        kind=where.kind,
        plural=where.plural,
        namespaced=where.namespaced,
        spec={**struct_schema(parts["spec"]), "required": sorted(REQUIRED.get(where.kind, ()))},
        status={"type": "object", **PRESERVE}
        if status is None
        else schema_of(msgspec.inspect.type_info(status)),
        rules=SPEC_RULES.get(where.kind, ()),
    )


def definitions() -> Iterator[Definition]:
    """Every kind of the group, in alphabetical order."""
    yield from (definition(kind) for kind in CRD_KINDS)


class IndentedDumper(yaml.SafeDumper):
    """Sequences indented below their key, without anchors: the repository's YAML style."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never put a sequence at its key's own column."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out."""
        return True


def render(cel: bool = False) -> str:
    """The text of one variant."""
    documents = [definition.document(cel) for definition in definitions()]
    return HEADER + yaml.dump_all(
        documents, Dumper=IndentedDumper, sort_keys=False, explicit_start=True, width=110
    )


def main(arguments: list[str]) -> int:
    """Write the files; with --check only compare, and return 1 when one is out of date."""
    for target, text in ((TARGET, render()), (CEL_TARGET, render(cel=True))):
        if arguments != ["--check"]:
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
            print(f"wrote {target}")
        elif not target.exists() or target.read_text() != text:
            print(f"{target} differs from the structs: run python -m deploy.generate_crds", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
