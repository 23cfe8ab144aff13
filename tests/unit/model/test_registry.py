import pytest

from tortie.model import registry
from tortie.model.resources import IPPool, Node, Resource


def test_no_two_kinds_share_a_path() -> None:
    paths = {(kind.resource_type.api_version, kind.resource_type.plural) for kind in registry.KINDS}
    assert len(paths) == len(registry.KINDS)


def test_kind_is_found_by_its_documents_header() -> None:
    assert registry.kind_of("crd.projectcalico.org/v1", "IPPool") is IPPool
    assert registry.kind_of("v1", "Node") is Node
    assert registry.crd_kind("IPPool") is IPPool


@pytest.mark.parametrize("kind", registry.CRD_KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_has_a_typed_spec_and_its_own_name(kind: type[Resource]) -> None:
    assert "spec" in kind.__struct_fields__
    assert kind.__name__ == kind.resource_type.kind


def test_unknown_kind_is_named_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"Pool2.*IPPool"):
        registry.crd_kind("Pool2")
    with pytest.raises(LookupError, match=r"Pool2.*IPPool"):
        registry.kind_of("crd.projectcalico.org/v1", "Pool2")
