"""Names in the kernel's table. Nothing that a user chose stands in them as it is: a policy's name and a
set's identity become digests; an interface keeps its name only when that is plain."""

import hashlib
import re
from functools import lru_cache

from tortie.policy.state import PolicyKey

TABLE = "tortie_policy"
# 128 bits: two policies of one digest would share a chain, and somebody may look for such a pair.
DIGEST_DIGITS = 32
_PLAIN = re.compile(r"(?!x_)[A-Za-z0-9_.-]{1,15}\Z")  # IFNAMSIZ is 16 with the zero
IFNAMSIZ = 16  # linux/if.h


@lru_cache(maxsize=65536)
def digest(text: str) -> str:
    """A name's stand-in."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]


@lru_cache(maxsize=16384)
def interface_label(interface: str) -> str:
    """An interface as part of a chain's name."""
    return interface if _PLAIN.match(interface) else "x_" + digest(interface)


@lru_cache(maxsize=65536)
def policy_chain(purpose: str, key: PolicyKey) -> str:
    """The chain of a policy's rules. `purpose` says direction and hook: see ruleset_endpoints."""
    # NUL is in no name of the API, so no two keys give the same text.
    return f"{purpose}_{digest(chr(0).join((key.kind, key.namespace, key.name)))}"


def interface_key(interface: str) -> bytes:
    """An interface as the kernel holds it in a register: 16 bytes, filled with zeros."""
    name = interface.encode("utf-8", "surrogateescape")
    if len(name) >= IFNAMSIZ or not name or b"\0" in name:
        raise ValueError(
            f"interface {interface!r} is no name of an interface: give 1 to {IFNAMSIZ - 1} bytes without NUL"
        )
    return name.ljust(IFNAMSIZ, b"\0")
