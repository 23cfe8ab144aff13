"""Settings of FelixConfiguration: all of Calico's are typed, kept, judged, and known to be heeded or not."""

import ast
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

import tortie
from tests.unit.model.felix_samples import GOOD
from tortie.datastore import codec
from tortie.model.felix import FelixConfiguration, FelixConfigurationSpec
from tortie.model.felix_settings import SETTINGS, unheeded
from tortie.model.validation import problems, without_effect

INT32: Final = 2**31 - 1


def spec_shape() -> inspect.StructType:
    info = inspect.type_info(FelixConfigurationSpec)
    assert isinstance(info, inspect.StructType)
    return info


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type that are not its default."""
    match info:
        case inspect.UnionType(types=types):
            return st.one_of([values(item) for item in types if not isinstance(item, inspect.NoneType)])
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(-(2**53), 2**53)
        case inspect.StrType():
            return st.text(min_size=1, max_size=8)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), min_size=1, max_size=3)
        case inspect.DictType(value_type=item):
            return st.dictionaries(st.text(min_size=1, max_size=4), values(item), min_size=1, max_size=3)
        case inspect.StructType(fields=fields):
            return st.fixed_dictionaries({item.encode_name: values(item.type) for item in fields})
    raise TypeError(f"{info!r} has no values here")


def of(name: str = "default", **spec: Any) -> FelixConfiguration:
    document = {"metadata": {"name": name}, "spec": spec}
    return msgspec.convert(document, FelixConfiguration)


def test_every_setting_of_calico_is_typed_and_has_its_rule() -> None:
    names = FelixConfigurationSpec.__struct_encode_fields__
    assert len(names) == 188
    assert list(SETTINGS) == list(names)


@settings(deadline=None, max_examples=30)
@given(spec=values(spec_shape()))
def test_document_with_every_setting_comes_back_as_it_was(spec: dict[str, Any]) -> None:
    assert set(spec) == set(SETTINGS)
    document = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default", "resourceVersion": "1"},
        "spec": spec,
    }
    read = codec.decode(FelixConfiguration, msgspec.json.encode(document))
    assert codec.encode_object(read) == document
    # Typed, and not only kept as an unknown field is.
    assert msgspec.to_builtins(read.spec) == spec


# field of spec, its value, the path and value that are named, a part of the rule
BAD: Final[list[tuple[str, Any, str, str, str]]] = [
    ("bpfIPFragTimeout", "30", "", "30", "a duration such as 90s"),
    ("netlinkTimeout", "-10s", "", "-10s", "a duration such as 90s"),
    ("vxlanPort", 0, "", "0", "must be 1 to 65535"),
    ("debugPort", 65536, "", "65536", "must be 0 to 65535"),
    ("wireguardListeningPortV6", 0, "", "0", "must be 1 to 65535"),
    ("wireguardRoutingRulePriority", 32766, "", "32766", "must be 1 to 32765"),
    ("ipv6ElevatedRoutePriority", INT32, "", str(INT32), "must be 1 to 2147483646"),
    ("bpfExtToServiceConnmark", 2**32, "", str(2**32), "must be 0 to 4294967295"),
    ("bpfMaglevMaxServices", 3001, "", "3001", "must be 1 to 3000"),
    ("bpfMapSizeConntrackCleanupQueue", 0, "", "0", "must be 1 to"),
    ("goGCThreshold", -2, "", "-2", "must be -1 to"),
    ("logActionRateLimitBurst", 10000, "", "10000", "must be 0 to 9999"),
    ("bpfAttachType", "XDP", "", "XDP", "one of TC, TCX"),
    ("istioAmbientMode", "On", "", "On", "one of Enabled, Disabled"),
    ("prometheusMetricsClientAuth", "None", "", "None", "one of NoClientCert"),
    ("bpfDataIfacePattern", "(", "", "(", "a regular expression"),
    ("bpfDSROptoutCIDRs", ["10.0.0.0/8", "10.1.2.3/8"], "[1]", "10.1.2.3/8", "write 10.0.0.0/8"),
    ("externalNodesList", ["fd00::/8"], "[0]", "fd00::/8", "an IPv4 CIDR"),
    ("natOutgoingAddress", "fd00::1", "", "fd00::1", "an IPv4 address"),
    ("deviceRouteSourceAddressIPv6", "10.0.0.1", "", "10.0.0.1", "an IPv6 address"),
    ("bpfPSNATPorts", "29999:20000", "", "29999:20000", "a port or a range"),
    ("iptablesMarkMask", 2**32 + 0xFF, "", str(2**32 + 0xFF), "a mask of 32 bits"),
    ("nftablesMarkMask", 0x7F, "", "127", "at least 8 set"),
    ("istioDSCPMark", 64, "", "64", "0 to 63 or a name"),
    ("istioDSCPMark", "AF44", "", "AF44", "0 to 63 or a name"),
    ("featureDetectOverride", "SNATFullyRandom=yes", "", "SNATFullyRandom=yes", "pairs such as"),
    ("featureGates", "A", "", "A", "name=value pairs"),
    ("interfaceExclude", "/(/,veth1", "", "(", "a regular expression"),
    ("interfaceExclude", "a b", "", "a b", "1 to 15 of letters"),
    ("iptablesNATOutgoingInterfaceFilter", "eth*", "", "eth*", "must be a device"),
    ("bpfForceTrackPacketsFromIfaces", ["docker+", "a/b"], "[1]", "a/b", "must be a device"),
    ("logActionRateLimit", "0/second", "", "0/second", "a rate such as"),
    ("logPrefix", 'x"', "", 'x"', "letters, digits"),
    ("debugHost", "a host", "", "a host", "a host's name or address"),
    ("prometheusMetricsCAFile", "ca.crt", "", "ca.crt", "an absolute path"),
    ("routeTableRange", {"min": 1, "max": 251}, "", "1-251", "two tables of 1 to 250"),
    ("routeTableRanges", [{"min": 200, "max": 100}], "[0]", "200-100", "the lower one as min"),
    ("routeTableRanges", [{"min": 250, "max": 260}], "[0]", "250-260", "they are the kernel's"),
    ("routeTableRanges", [{"min": 1000, "max": 2**20}], "", "1047577 tables", "at most 65535 tables"),
    ("healthTimeoutOverrides", [{"name": "a", "timeout": "9"}], "[0].timeout", "9", "a duration"),
    ("healthTimeoutOverrides", [{"name": "a", "timeout": ""}], "[0].timeout", "", "a duration"),
    ("healthTimeoutOverrides", [{"name": "", "timeout": "9s"}], "[0].name", "", "must name a part"),
    ("bpfConntrackTimeouts", {"udpTimeout": "auto"}, ".udpTimeout", "auto", "a duration"),
    ("bpfLogFilters", {"all": ""}, "[all]", "", "a filter such as"),
    ("failsafeInboundHostPorts", [{"port": 65536}], "[0].port", "65536", "must be 0 to 65535"),
    ("nodeSelector", "has(", "", "has(", "a selector"),
]


@pytest.mark.parametrize(("field", "accepted"), GOOD, ids=[field for field, _accepted in GOOD])
def test_value_within_its_rule_passes(field: str, accepted: list[Any]) -> None:
    for value in accepted:
        assert problems(of(**{field: value})) == []


@pytest.mark.parametrize(("field", "value", "place", "shown", "rule"), BAD)
def test_value_outside_its_rule_is_named_with_field_and_rule(
    field: str, value: Any, place: str, shown: str, rule: str
) -> None:
    (found,) = problems(of("some-nodes", **{field: value}))
    assert (found.field, found.value) == (f"spec.{field}{place}", shown)
    assert rule in found.rule


def test_both_forms_of_route_table_ranges_exclude_each_other() -> None:
    one = {"min": 1, "max": 250}
    (found,) = problems(of(routeTableRange=one, routeTableRanges=[one]))
    assert (found.field, found.value) == ("spec.routeTableRange", "1-250")
    assert found.rule == "must not be set together with spec.routeTableRanges: remove one of them"


@pytest.mark.parametrize("name", ["default", "node.n1"])
def test_selector_is_for_objects_of_other_names(name: str) -> None:
    assert problems(of("rack-a", nodeSelector="rack == 'a'")) == []
    (found,) = problems(of(name, nodeSelector="rack == 'a'"))
    assert (found.field, found.value) == ("spec.nodeSelector", "rack == 'a'")


def test_one_notice_names_what_is_set_and_not_heeded() -> None:
    heeded = of(serviceLoopPrevention="Reject", failsafeInboundHostPorts=[])
    assert without_effect(heeded) == []
    (found,) = without_effect(of(serviceLoopPrevention="Reject", bpfEnabled=False, vxlanMTU=1400))
    assert str(found) == (
        "spec: '' has settings that this agent keeps but does not heed: vxlanMTU, bpfEnabled"
    )
    assert unheeded(of(bpfDSROptoutCIDRs=[]).spec) == []  # as if it were not there


def test_heeded_settings_are_those_that_the_agent_reads() -> None:
    """Whoever makes the agent read another one says so in SETTINGS."""
    wire = dict(
        zip(
            FelixConfigurationSpec.__struct_fields__,
            FelixConfigurationSpec.__struct_encode_fields__,
            strict=True,
        )
    )
    read: set[str] = set()
    source = Path(tortie.__file__).parent
    for part in ("agent", "cni"):
        for file in (source / part).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value).startswith("felix"):
                    read.add(wire.get(node.attr, ""))
    assert read - {""} == {name for name, setting in SETTINGS.items() if setting.heeded}
