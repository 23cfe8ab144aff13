"""Rules in CEL (common expression language) that an API server from 1.25 on enforces on our CRDs' specs.

They repeat the gravest findings of tortie.model.validation, which also names the value and works everywhere.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """`self` in the expression is the spec, `oldSelf` what it replaces; the message is for people."""

    expression: str
    message: str


SPEC_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "IPPool": (
        Rule("self.cidr == oldSelf.cidr", "cidr cannot be changed: make a new pool"),
        Rule(
            "!has(oldSelf.blockSize) || (has(self.blockSize) && self.blockSize == oldSelf.blockSize)",
            "blockSize cannot be changed: make a new pool",
        ),
        Rule(
            "!has(self.ipipMode) || !has(self.vxlanMode)"
            " || self.ipipMode == 'Never' || self.vxlanMode == 'Never'",
            "ipipMode and vxlanMode exclude each other",
        ),
    ),
    "IPAMConfig": (
        Rule(
            "self.strictAffinity || self.autoAllocateBlocks",
            "strictAffinity and autoAllocateBlocks must not both be false",
        ),
        Rule(
            "!has(self.maxBlocksPerHost) || self.maxBlocksPerHost == 0 || self.strictAffinity",
            "maxBlocksPerHost needs strictAffinity",
        ),
    ),
    "BGPPeer": (
        Rule(
            "!has(self.node) || !has(self.nodeSelector) || self.node == '' || self.nodeSelector == ''",
            "node and nodeSelector exclude each other",
        ),
        Rule(
            "!has(self.peerIP) || !has(self.peerSelector) || self.peerIP == '' || self.peerSelector == ''",
            "peerIP and peerSelector exclude each other",
        ),
    ),
    "GlobalNetworkPolicy": (
        Rule(
            "!has(self.doNotTrack) || !has(self.preDNAT) || !self.doNotTrack || !self.preDNAT",
            "doNotTrack and preDNAT exclude each other",
        ),
    ),
}
