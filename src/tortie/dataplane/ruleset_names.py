"""Names in the kernel's table. Nothing that a user chose stands in them as it is: a policy's name and a
set's identity become digests; an interface keeps its name only when that is plain."""

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import count

from tortie.policy.state import PolicyKey

TABLE = "tortie_policy"
# 128 bits: two policies of one digest would share a chain, and somebody may look for such a pair.
DIGEST_DIGITS = 32
TAG_BYTES = 4
_PLAIN = re.compile(r"(?!x_)[A-Za-z0-9_.-]{1,15}\Z")  # IFNAMSIZ is 16 with the zero
IFNAMSIZ = 16  # linux/if.h


@lru_cache(maxsize=65536)
def digest(text: str) -> str:
    """A name's stand-in."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_DIGITS]


class Tags:
    """Numbers of 4 bytes that stand for sets: no two sets have the same at a time. They come from a digest,
    so that a restarted agent gives the same ones, whatever the order (unless two sets want one number)."""

    def __init__(self, draw: Callable[[str, int], bytes] | None = None) -> None:
        self._draw = draw or _tag
        self._tags: dict[str, bytes] = {}
        self._taken: set[bytes] = set()

    def of(self, identity: str) -> bytes:
        """The set's tag, until it is released."""
        known = self._tags.get(identity)
        if known is None:
            known = next(
                tag for attempt in count() if (tag := self._draw(identity, attempt)) not in self._taken
            )
            self._tags[identity] = known
            self._taken.add(known)
        return known

    def release(self, identity: str) -> None:
        """The set has no tag any more."""
        self._taken.discard(self._tags.pop(identity))


def _tag(identity: str, attempt: int) -> bytes:
    return bytes.fromhex(digest(f"{attempt} {identity}" if attempt else identity)[: 2 * TAG_BYTES])


@lru_cache(maxsize=16384)
def interface_label(interface: str) -> str:
    """An interface as part of a chain's name."""
    return interface if _PLAIN.match(interface) else "x_" + digest(interface)


@lru_cache(maxsize=65536)
def policy_chain(purpose: str, key: PolicyKey) -> str:
    """The chain of a policy's rules. `purpose` says direction and hook: see ruleset_endpoints."""
    # NUL is in no name of the API, so no two keys give the same text.
    return f"{purpose}_{digest(chr(0).join((key.kind, key.namespace, key.name)))}"


@lru_cache(maxsize=16384)
def interface_key(interface: str) -> bytes:
    """An interface as the kernel holds it in a register: 16 bytes, filled with zeros."""
    name = interface.encode("utf-8", "surrogateescape")
    if len(name) >= IFNAMSIZ or not name or b"\0" in name:
        raise ValueError(
            f"interface {interface!r} is no name of an interface: give 1 to {IFNAMSIZ - 1} bytes without NUL"
        )
    return name.ljust(IFNAMSIZ, b"\0")
