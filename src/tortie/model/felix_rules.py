"""What a setting of FelixConfiguration may hold, by kind. A rule takes path and value of one that is set."""

import re
from collections.abc import Callable
from typing import Final

from tortie.model import checks
from tortie.model.checks import Findings
from tortie.model.felix import ConntrackTimeouts, HealthTimeout, ProtoPort, RouteTableRange
from tortie.model.problems import Problem

Rule = Callable[[str, object], Findings]

MAX_UINT32: Final = 2**32 - 1
_LEAST_MASK_BITS: Final = 8  # as many marks as Felix needs
_MAX_DSCP: Final = 63  # RFC 2474: six bits
# Names of RFC 2474 (CS, DF), RFC 2597 (AF) and RFC 3246 (EF).
_DSCP_NAMES: Final = frozenset(
    ["DF", "EF", *(f"CS{number}" for number in range(8))]
    + [f"AF{group}{drop}" for group in range(1, 5) for drop in range(1, 4)]
)
_PORT_RANGE: Final = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")
_HOST: Final = re.compile(r"[a-zA-Z0-9:._+-]{1,64}")  # Calico's bound
_DEVICES: Final = re.compile(r"[a-zA-Z0-9:._+-]{1,15}")  # IFNAMSIZ - 1, and + for any ending
_KEY_VALUES: Final = re.compile(r"(\w[\w-]*=[^=,]*)(,\w[\w-]*=[^=,]*)*,?")
_FEATURES: Final = re.compile(r"(\w[\w-]*=(true|false)?)(,\w[\w-]*=(true|false)?)*,?")
_RATE: Final = re.compile(r"[1-9]\d{0,3}/(second|minute|hour|day)")
_LOG_PREFIX: Final = re.compile(r"[a-zA-Z0-9%: /_-]*")
# Linux keeps these for its own tables (linux/rtnetlink.h: default, main, local).
_KERNEL_TABLES: Final = (253, 254, 255)
_MOST_TABLES: Final = 0xFFFF  # Calico's bound on all ranges together
_LAST_OLD_TABLE: Final = 250  # of the single range that the list replaced


def anything(path: str, value: object) -> Findings:
    """Nothing but the type is asked."""
    yield from ()


def duration(path: str, value: object) -> Findings:
    """A duration."""
    yield from checks.duration(path, str(value))


def number(least: int, most: int) -> Rule:
    """A whole number within bounds."""

    def check(path: str, value: object) -> Findings:
        if isinstance(value, int):
            yield from checks.between(path, value, least, most)

    return check


def one_of(*allowed: str) -> Rule:
    """One of the words."""

    def check(path: str, value: object) -> Findings:
        yield from checks.one_of(path, str(value), allowed)

    return check


def matching(pattern: re.Pattern[str], rule: str) -> Rule:
    """Text that matches as a whole."""

    def check(path: str, value: object) -> Findings:
        if not pattern.fullmatch(str(value)):
            yield Problem(path, str(value), rule)

    return check


def regex(path: str, value: object) -> Findings:
    """A regular expression."""
    yield from checks.regex(path, str(value))


def selector(path: str, value: object) -> Findings:
    """A selector."""
    yield from checks.selector(path, str(value))


def interface(path: str, value: object) -> Findings:
    """The name of a device."""
    yield from checks.interface(path, str(value))


def address(version: int) -> Rule:
    """An address of an IP version."""

    def check(path: str, value: object) -> Findings:
        yield from checks.address(path, str(value), version)

    return check


def each(rule: Rule) -> Rule:
    """A list, each of whose entries keeps the rule."""

    def check(path: str, value: object) -> Findings:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from rule(f"{path}[{index}]", item)

    return check


def cidrs(version: int = 0) -> Rule:
    """A list of CIDRs or addresses."""

    def check(path: str, value: object) -> Findings:
        yield from checks.cidr(path, str(value), version, bare=True)

    return each(check)


def port_range(path: str, value: object) -> Findings:
    """A port or a range of ports; 0 is one that is not set."""
    if value in ("", 0):
        return
    found = _PORT_RANGE.fullmatch(str(value))
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= checks.MAX_PORT:
        yield Problem(path, str(value), "must be a port or a range such as 30000:32767")


def mask(path: str, value: object) -> Findings:
    """Bits of a packet's mark."""
    if isinstance(value, int) and not (0 <= value <= MAX_UINT32 and value.bit_count() >= _LEAST_MASK_BITS):
        rule = f"must be a mask of 32 bits (0 to {MAX_UINT32}) with at least {_LEAST_MASK_BITS} set"
        yield Problem(path, str(value), rule)


def dscp(path: str, value: object) -> Findings:
    """A code point of DiffServ: its number or its name."""
    text = str(value)
    if text.isdecimal() and int(text) <= _MAX_DSCP:
        return
    if text not in _DSCP_NAMES:
        yield Problem(path, text, f"must be 0 to {_MAX_DSCP} or a name: DF, EF, CS0 to CS7, AF11 to AF43")


host: Final = matching(
    _HOST, "must be a host's name or address: at most 64 of letters, digits, '.', ':', '_', '+' and '-'"
)
devices: Final = matching(
    _DEVICES, "must be a device: 1 to 15 of letters, digits, ':', '.', '_', '-', and '+' for any ending"
)
key_values: Final = matching(_KEY_VALUES, "must be name=value pairs with commas between them")
features: Final = matching(
    _FEATURES, "must be pairs such as Name=true,Other=false; nothing behind = means that it is detected"
)
rate: Final = matching(_RATE, "must be a rate such as 10/second: 1 to 9999 per second, minute, hour or day")
log_prefix: Final = matching(
    _LOG_PREFIX, "must be letters, digits, spaces, '%', ':', '/', '_' and '-' only: nftables prints it"
)
absolute_path: Final = matching(re.compile(r"/[^\0]*"), "must be an absolute path of a file")


def prefixes(path: str, value: object) -> Findings:
    """Beginnings of devices' names, with commas between them."""
    for prefix in filter(None, str(value).split(",")):
        yield from checks.interface(path, prefix)


def exclusions(path: str, value: object) -> Findings:
    """Names of devices with commas between them, and regular expressions between slashes."""
    for item in filter(None, str(value).split(",")):
        if len(item) > 1 and item.startswith("/") and item.endswith("/"):
            yield from checks.regex(path, item[1:-1])
        else:
            yield from checks.interface(path, item)


def failsafe(path: str, value: object) -> Findings:
    """A port that policy never closes."""
    assert isinstance(value, ProtoPort)
    yield from checks.one_of(f"{path}.protocol", value.protocol.upper(), ("TCP", "UDP", "SCTP"))
    yield from checks.port(f"{path}.port", value.port, least=0)
    if value.net:
        yield from checks.cidr(f"{path}.net", value.net, bare=True)


def table_range(path: str, value: object) -> Findings:
    """The single range of routing tables."""
    assert isinstance(value, RouteTableRange)
    if not 1 <= value.min <= value.max <= _LAST_OLD_TABLE:
        rule = f"must be two tables of 1 to {_LAST_OLD_TABLE}, the lower one as min"
        yield Problem(path, f"{value.min}-{value.max}", rule)


def table_ranges(path: str, value: object) -> Findings:
    """Ranges of routing tables."""
    ranges = [item for item in value if isinstance(item, RouteTableRange)] if isinstance(value, list) else []
    for index, item in enumerate(ranges):
        shown = f"{item.min}-{item.max}"
        if not 1 <= item.min <= item.max <= MAX_UINT32:
            yield Problem(f"{path}[{index}]", shown, f"must be 1 to {MAX_UINT32}, the lower one as min")
        elif any(item.min <= table <= item.max for table in _KERNEL_TABLES):
            yield Problem(f"{path}[{index}]", shown, "must not have 253, 254 or 255: they are the kernel's")
    count = sum(max(0, item.max - item.min + 1) for item in ranges)
    if count > _MOST_TABLES:
        yield Problem(path, f"{count} tables", f"must have at most {_MOST_TABLES} tables in all")


def health_timeouts(path: str, value: object) -> Findings:
    """Names and durations, no name twice."""
    items = [item for item in value if isinstance(item, HealthTimeout)] if isinstance(value, list) else []
    for index, item in enumerate(items):
        if not item.name:
            yield Problem(f"{path}[{index}].name", "", "must name a part of the agent")
        if not item.timeout:
            yield Problem(f"{path}[{index}].timeout", "", "must be a duration such as 90s")
        yield from checks.duration(f"{path}[{index}].timeout", item.timeout)
    yield from checks.unique(path, [item.name for item in items])


def conntrack_timeouts(path: str, value: object) -> Findings:
    """Durations, or Auto."""
    assert isinstance(value, ConntrackTimeouts)
    for wire, name in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
        text = getattr(value, name)
        if text != "Auto":
            yield from checks.duration(f"{path}.{wire}", text)


def pcap_filters(path: str, value: object) -> Findings:
    """A filter for each device, or group of them; the filters themselves are libpcap's business."""
    for device, text in value.items() if isinstance(value, dict) else ():
        yield from devices(f"{path}[{device}]", device)
        if not text:
            yield Problem(f"{path}[{device}]", text, "must be a filter such as tcp port 80")
