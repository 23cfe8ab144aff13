"""Checks of single values. Each yields at most one `Problem` for the field at `path`; nothing is raised."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from tortie.model.problems import Problem
from tortie.model.selectors import SelectorError, parse

Findings = Iterator[Problem]
Network = IPv4Network | IPv6Network

MAX_AS_NUMBER: Final = 2**32 - 1  # RFC 6793: four octets
MAX_PORT: Final = 65535
LOG_LEVELS: Final = ("Debug", "Info", "Warning", "Error", "Fatal")
SWITCH: Final = ("Enabled", "Disabled")

# RFC 1123 subdomain, as Kubernetes requires of an object's name.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME: Final = 253
# A label's value, or the part of a key behind its slash; annotations share one limit (256 KiB).
_LABEL_PART: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAX_LABEL_PART: Final = 63
_MAX_ANNOTATIONS: Final = 256 * 1024
_KEY_RULE: Final = (
    "must be a key as Kubernetes has them: a name of at most 63 letters, digits, '-', '_' and '.', before "
    "it, if you like, a domain in lower case and a slash"
)
# Go's time.ParseDuration; it is what Calico reads durations with.
_DURATION: Final = re.compile(r"[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)")
_COMMUNITY: Final = re.compile(r"(\d+):(\d+)(:(\d+))?")
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,15}")  # IFNAMSIZ - 1, linux/if.h


def object_name(name: str) -> Findings:
    """The name of any object."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        yield Problem(
            "metadata.name",
            name,
            f"must be 1 to {_MAX_NAME} of a-z, 0-9, '-' and '.', with a letter or digit at each end",
        )


def labels(path: str, entries: Mapping[str, str]) -> Findings:
    """Labels as Kubernetes has them: at most one finding for each."""
    for key, value in entries.items():
        if not _is_qualified(key):
            yield Problem(f"{path}[{key}]", key, _KEY_RULE)
        elif value and (not _LABEL_PART.fullmatch(value) or len(value) > _MAX_LABEL_PART):
            rule = f"must be empty, or 1 to {_MAX_LABEL_PART} of letters, digits, '-', '_' and '.'"
            yield Problem(f"{path}[{key}]", value, f"{rule}, with a letter or digit at each end")


def annotations(path: str, entries: Mapping[str, str]) -> Findings:
    """Annotations as Kubernetes has them: a key's case does not matter, the values may be anything."""
    for key in entries:
        if not _is_qualified(key.lower()):
            yield Problem(f"{path}[{key}]", key, _KEY_RULE)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())
    if size > _MAX_ANNOTATIONS:
        yield Problem(path, f"{size} bytes", f"must have at most {_MAX_ANNOTATIONS} bytes in all")


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (not _NAME.fullmatch(prefix) or len(prefix) > _MAX_NAME):
        return False
    return bool(_LABEL_PART.fullmatch(name)) and len(name) <= _MAX_LABEL_PART


def named_default(name: str) -> Findings:
    """The name of a kind of which there is one object."""
    if name != "default":
        yield Problem("metadata.name", name, "must be default, for there is one object of this kind")


def one_of(path: str, value: str, allowed: Collection[str]) -> Findings:
    """A value out of a list; an empty one is one that is not set."""
    if value and value not in allowed:
        yield Problem(path, value, f"must be one of {', '.join(allowed)}")


def between(path: str, value: int | None, least: int, most: int) -> Findings:
    """A whole number; None is one that is not set."""
    if value is not None and not least <= value <= most:
        yield Problem(path, str(value), f"must be {least} to {most}")


def as_number(path: str, value: int | None) -> Findings:
    """A BGP AS number."""
    return between(path, value, 1, MAX_AS_NUMBER)


def port(path: str, value: int | None, least: int = 1) -> Findings:
    """A TCP or UDP port; `least` 0 where 0 switches something off."""
    return between(path, value, least, MAX_PORT)


def duration(path: str, value: str) -> Findings:
    """A duration that is not negative."""
    if value and (not _DURATION.fullmatch(value) or value.startswith("-")):
        yield Problem(path, value, "must be a duration such as 90s, 1m30s or 0s")


def selector(path: str, value: str) -> Findings:
    """A selector; an empty one selects everything."""
    try:
        parse(value)
    except SelectorError as error:
        yield Problem(
            path, value, f"must be a selector, but at character {error.position + 1}: {error.reason}"
        )


def regex(path: str, value: str) -> Findings:
    """A regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        yield Problem(path, value, f"must be a regular expression ({error})")


def interface(path: str, value: str) -> Findings:
    """The name of a network device."""
    if not _INTERFACE.fullmatch(value):
        yield Problem(path, value, "must be 1 to 15 of letters, digits, '_', '.', ':' and '-'")


def address(path: str, value: str, version: int = 0) -> Findings:
    """An IP address; `version` 4 or 6 when only one family will do."""
    if not value:
        return
    try:
        found = ip_address(value)
    except ValueError:
        yield Problem(path, value, "must be an IP address")
        return
    if version and found.version != version:
        yield Problem(path, value, f"must be an IPv{version} address")


def network(value: str) -> Network | None:
    """The network of a CIDR, bits after its prefix ignored; None when it is none."""
    try:
        return ip_network(value, strict=False)
    except ValueError:
        return None


def cidr(path: str, value: str, version: int = 0, *, bare: bool = False) -> Findings:
    """A CIDR in normal form: a prefix length, no bits after the prefix. `bare`: an address will do, too."""
    found = network(value)
    if found is None or ("/" not in value and not bare):
        yield Problem(path, value, "must be a CIDR such as 10.5.0.0/16 or fd00:10:5::/48")
    elif version and found.version != version:
        yield Problem(path, value, f"must be an IPv{version} CIDR")
    elif "/" in value and ip_address(value.partition("/")[0]) != found.network_address:
        yield Problem(path, value, f"must have no bits after its prefix: write {found}")


def community(path: str, value: str) -> Findings:
    """A BGP community `aa:nn` of 16-bit halves (RFC 1997) or `aa:nn:mm` of 32-bit parts (RFC 8092)."""
    found = _COMMUNITY.fullmatch(value)
    limit = 0xFFFF if found is None or found[4] is None else 0xFFFFFFFF
    if found is None or any(int(part) > limit for part in value.split(":")):
        yield Problem(
            path,
            value,
            "must be aa:nn with numbers up to 65535, or aa:nn:mm with numbers up to 4294967295",
        )


def unique(path: str, values: Iterable[str]) -> Findings:
    """A list in which nothing stands twice."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield Problem(f"{path}[{index}]", value, "must not stand in the list twice")
        seen.add(value)


def not_together(path: str, value: str, other: str, *, both: bool) -> Findings:
    """A field that excludes another one."""
    if both:
        yield Problem(path, value, f"must not be set together with {other}: remove one of them")
