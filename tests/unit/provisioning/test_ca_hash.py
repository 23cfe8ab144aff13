"""The hash of a certificate authority's public key, against a library that parses certificates in full."""

import datetime
import hashlib

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.ca_hash import CertificateError, spki_hash
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def certificate(key: PrivateKey, serial: int = 0) -> str:
    """A self-signed certificate in PEM, as kubeadm makes one (serial 0)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def expected(key: PrivateKey) -> str:
    """The same by the library."""
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        rsa.generate_private_key(65537, 4096),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa2048", "rsa4096", "p256", "p384", "ed25519"],
)
def test_hash_is_that_of_the_public_key_of_every_kind(key: PrivateKey) -> None:
    assert spki_hash(certificate(key)) == expected(key)


def test_first_certificate_of_a_chain_counts() -> None:
    first, second = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    assert spki_hash("text before\n" + certificate(first) + certificate(second)) == expected(first)


def test_another_certificate_of_the_same_key_has_the_same_hash() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert spki_hash(certificate(key, 1)) == spki_hash(certificate(key, 2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----",
    ],
)
def test_text_that_is_no_certificate_is_an_error(text: str) -> None:
    with pytest.raises(CertificateError):
        spki_hash(text)


def test_certificate_that_is_cut_off_is_an_error_at_every_length() -> None:
    lines = certificate(ec.generate_private_key(ec.SECP256R1())).splitlines()
    body = "".join(lines[1:-1])
    for length in range(0, len(body) // 2, 4):
        with pytest.raises(CertificateError):
            spki_hash("\n".join([lines[0], body[:length], lines[-1]]))
