"""Forwarding of pods' packets where somebody else's FORWARD chain drops by default (Docker, ufw).

Accepting a packet in our table does not overrule another table's chain. Where the FORWARD chain of iptables
has policy DROP, two marked rules at its end accept what comes from or goes to pods: behind everybody's own
rules there, and after our table dropped what policy denies. The table of firewalld is not touched: there the
interfaces belong into a zone (docs/security-model.md).
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tortie.dataplane import nfnetlink_dumps as dumps
from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import nfnetlink_objects as objects
from tortie.dataplane.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    DataplaneError,
    Message,
    as_text,
    attribute,
    attributes,
    text,
)
from tortie.dataplane.nfnetlink import (
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Netfilter,
    be64,
    body,
)
from tortie.dataplane.ruleset_base import if_interface
from tortie.model.constants import INTERFACE_PREFIX

TABLE, CHAIN = "filter", "FORWARD"  # what iptables calls them in nftables too
FAMILIES = {"iptables": NFPROTO_IPV4, "ip6tables": NFPROTO_IPV6}
LEGACY_TABLES = {"iptables": "net/ip_tables_names", "ip6tables": "net/ip6_tables_names"}
COMMENT = "tortie: policy is decided in table tortie_policy"
_NF_DROP_POLICY = 0
# nft(8)'s user data of a rule: type 0 (comment), length, text with its zero.
_USERDATA = struct.pack("=BB", 0, len(COMMENT) + 1) + COMMENT.encode() + b"\0"
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7


def allow_forwarding(prefix: str = INTERFACE_PREFIX, kernel: Netfilter | None = None) -> list[str]:
    """Add the rules where they are needed and missing; return what was done, and what cannot be done.

    Whoever owns the chain may remove them (a reload of its firewall), so call this from time to time, with
    a socket that is kept (see `kept_socket`). Raise DataplaneError.
    """
    done = []
    with ExitStack() as stack:
        kernel = kernel or stack.enter_context(Netfilter())
        for name, family in FAMILIES.items():
            if _drops(kernel, family) and not list(_ours(kernel, family)):
                kernel.transaction(list(_rules(family, prefix)))
                done.append(f"{name}: chain FORWARD drops by default, added rules that accept {prefix}*")
    for name in FAMILIES:
        done += _legacy(name, prefix, add=True)
    return done


def remove_forwarding(prefix: str = INTERFACE_PREFIX) -> list[str]:
    """Take the rules away again; return what was done. Raise DataplaneError."""
    done = []
    with Netfilter() as kernel:
        for name, family in FAMILIES.items():
            messages = [_delete(family, handle) for handle in _ours(kernel, family)]
            kernel.transaction(messages)
            if messages:
                done.append(f"{name}: removed the rules that accept {prefix}* from chain FORWARD")
    for name in FAMILIES:
        done += _legacy(name, prefix, add=False)
    return done


def _drops(kernel: Netfilter, family: int) -> bool:
    """Whether iptables-nft's FORWARD chain is there and drops by default."""
    return any(
        chain.name == CHAIN and chain.hook is not None and chain.policy == _NF_DROP_POLICY
        for chain in dumps.chains(kernel, TABLE, family)
    )


def _ours(kernel: Netfilter, family: int) -> Iterator[bytes]:
    """Handles of our rules in the chain."""
    request = body(family, text(_RULE_TABLE, TABLE), text(_RULE_CHAIN, CHAIN))
    kind = NFNL_SUBSYS_NFTABLES << 8 | objects.NFT_MSG_GETRULE
    for _, data in kernel.dump(kind, request, f"list rules of {TABLE}"):
        rule = attributes(data)
        if (
            as_text(rule[_RULE_TABLE]) == TABLE
            and as_text(rule[_RULE_CHAIN]) == CHAIN
            and rule.get(_RULE_USERDATA) == _USERDATA
        ):
            yield rule[_RULE_HANDLE]


def _rules(family: int, prefix: str) -> Iterator[Message]:
    # iptables shows a rule's counter, so it has one, as its own rules do.
    counter = nft.expression("counter", be64(1, 0), be64(2, 0))
    for key in (nft.NFT_META_IIFNAME, nft.NFT_META_OIFNAME):
        expressions = if_interface(key, prefix) + counter + nft.verdict(nft.NF_ACCEPT)
        yield Message(
            NFNL_SUBSYS_NFTABLES << 8 | objects.NFT_MSG_NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            body(
                family,
                text(_RULE_TABLE, TABLE),
                text(_RULE_CHAIN, CHAIN),
                attribute(_RULE_EXPRESSIONS, expressions),
                attribute(_RULE_USERDATA, _USERDATA),
            ),
            f"accept {prefix}* in chain {CHAIN} of table {TABLE}",
        )


def _delete(family: int, handle: bytes) -> Message:
    return Message(
        NFNL_SUBSYS_NFTABLES << 8 | objects.NFT_MSG_DELRULE,
        0,
        body(family, text(_RULE_TABLE, TABLE), text(_RULE_CHAIN, CHAIN), attribute(_RULE_HANDLE, handle)),
        f"delete our rule from chain {CHAIN} of table {TABLE}",
    )


def _legacy(name: str, prefix: str, *, add: bool) -> list[str]:
    """The same with the old backend, which only its own program can change."""
    names = Path("/proc/thread-self") / LEGACY_TABLES[name]
    if not names.exists() or TABLE not in names.read_text().split():
        return []
    program = shutil.which(f"{name}-legacy")
    if program is None:
        sentence = f"{name}: the node has legacy tables and this image no {name}-legacy"
        return [f"{sentence}: if its FORWARD chain drops by default, accept {prefix}+ there"] if add else []
    listed = _run(program, "-S", CHAIN).splitlines()
    matches = [("-i", f"{prefix}+"), ("-o", f"{prefix}+")]
    ours = [line for line in listed if COMMENT in line]
    comment = ("-m", "comment", "--comment", COMMENT, "-j", "ACCEPT")
    if add and f"-P {CHAIN} DROP" in listed and not ours:
        for match in matches:
            _run(program, "-A", CHAIN, *match, *comment)
        return [f"{name}-legacy: chain FORWARD drops by default, added rules that accept {prefix}*"]
    if not add and ours:
        for match in matches:
            _run(program, "-D", CHAIN, *match, *comment)
        return [f"{name}-legacy: removed the rules that accept {prefix}* from chain FORWARD"]
    return []


def _run(*command: str) -> str:
    try:
        done = subprocess.run((*command, "-w"), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataplaneError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise DataplaneError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
