# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The hash by which a joining node knows the cluster's certificate authority: SHA-256 over the DER of the
certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4), which kubeadm writes as `sha256:<hex>`.

Only the outer structure of the certificate is read, so that every kind of key is handled alike.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)

# X.690: identifier octets of a SEQUENCE and of the explicit tag [0] that stands before a certificate's
# version.
_SEQUENCE = 0x30
_VERSION = 0xA0


class CertificateError(ValueError):
    """The text is not a certificate."""


@dataclass(frozen=True)
class _Element:
    """One DER element: its tag, where its content begins, where it ends."""

    tag: int
    start: int
    content: int
    end: int


def spki_hash(pem: str) -> str:
    """`sha256:<64 hexadecimal digits>` of the first certificate in the text. Raises CertificateError."""
    match = _PEM.search(pem)
    if match is None:
        raise CertificateError("there is no PEM certificate in the text")
    try:
        der = base64.b64decode("".join(match.group(1).split()), validate=True)
    except binascii.Error as error:
        raise CertificateError(f"the certificate is not base64: {error}") from error
    return "sha256:" + hashlib.sha256(subject_public_key_info(der)).hexdigest()


def subject_public_key_info(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo element of a certificate (RFC 5280 section 4.1). Raises CertificateError."""
    certificate = _element(der, 0)
    signed = _element(der, certificate.content)
    if certificate.tag != _SEQUENCE or signed.tag != _SEQUENCE:
        raise CertificateError("the certificate does not begin with two sequences")
    position = signed.content
    if _element(der, position).tag == _VERSION:
        position = _element(der, position).end
    # serialNumber, signature, issuer, validity, subject stand before the key.
    for _field in range(5):
        position = _element(der, position).end
    key = _element(der, position)
    if key.tag != _SEQUENCE or key.end > signed.end:
        raise CertificateError("the certificate has no public key where one is expected")
    return der[key.start : key.end]


def _element(der: bytes, start: int) -> _Element:
    """The element at the offset (X.690 section 8.1: short and long form of the length)."""
    if start + 2 > len(der):
        raise CertificateError("the certificate ends too early")
    first, content = der[start + 1], start + 2
    length = first
    if first & 0x80:
        size = first & 0x7F
        if not 1 <= size <= 4 or content + size > len(der):
            raise CertificateError("the certificate has an element of unusable length")
        length = int.from_bytes(der[content : content + size], "big")
        content += size
    if content + length > len(der):
        raise CertificateError("the certificate ends too early")
    return _Element(der[start], start, content, content + length)
