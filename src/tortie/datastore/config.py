"""Where the API server is and how to prove who we are: a pod's service account, or a kubeconfig file."""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml
from msgspec import Struct, field

from tortie.datastore.interface import InvalidError

V = TypeVar("V")

# Where kubelet mounts a pod's service account (Kubernetes, "Accessing the API from a Pod").
SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Token:
    """A bearer token that is either fixed or stands in a file, which kubelet replaces before it expires."""

    def __init__(self, value: str = "", path: Path | None = None) -> None:
        self._value = value
        self._path = path
        self._seen: tuple[int, int, int] | None = None  # inode, size, mtime in ns of what was read

    def header(self) -> dict[str, str]:
        """The Authorization header, or nothing. The file is read again when it changed.

        Raise InvalidError when it cannot be read and never could; later the last known token is kept.
        """
        if self._path is not None:
            self._refresh(self._path)
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def _refresh(self, path: Path) -> None:
        try:
            state = path.stat()
            seen = (state.st_ino, state.st_size, state.st_mtime_ns)
            if seen != self._seen:
                self._value = path.read_text().strip()
                self._seen = seen
        except OSError as error:
            if not self._value:
                raise InvalidError(
                    f"The token file {path} cannot be read ({error.strerror}); it must hold a service "
                    "account's token: check the pod's service account, or use a kubeconfig."
                ) from error


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`server` is the API's base URL without a trailing slash; `tls` is None for http."""

    server: str
    token: Token
    tls: ssl.SSLContext | None


def in_cluster(
    environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT_DIR
) -> ClusterConfig:
    """Configuration of a pod. KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT may be set to reach the API
    server elsewhere than at its service address. Raise InvalidError."""
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise InvalidError(
            "KUBERNETES_SERVICE_HOST is not set, so this is no pod and the API server is unknown; "
            "set it, or name a kubeconfig file (environment variable KUBECONFIG)."
        )
    authority = f"[{host}]" if ":" in host else host
    return ClusterConfig(
        server=f"https://{authority}:{port}",
        token=Token(path=directory / "token"),
        tls=tls_context(ca_file=directory / "ca.crt"),
    )


class _Cluster(Struct, rename="kebab"):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""


class _User(Struct, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = field(default="", name="tokenFile")
    exec: dict[str, Any] | None = None
    auth_provider: dict[str, Any] | None = None
    username: str = ""


class _Context(Struct):
    cluster: str
    user: str


class _NamedCluster(Struct):
    name: str
    cluster: _Cluster


class _NamedUser(Struct):
    name: str
    user: _User = field(default_factory=_User)


class _NamedContext(Struct):
    name: str
    context: _Context


class _Kubeconfig(Struct, rename="kebab"):
    clusters: list[_NamedCluster]
    contexts: list[_NamedContext]
    users: list[_NamedUser]
    current_context: str


def from_kubeconfig(path: Path) -> ClusterConfig:
    """The current context of a kubeconfig file. File names in it are relative to it. Raise InvalidError."""
    try:
        config = msgspec.convert(yaml.safe_load(path.read_text()), _Kubeconfig)
    except OSError as error:
        raise InvalidError(f"The kubeconfig {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise InvalidError(f"{path} is no kubeconfig: {error}.") from error
    contexts = {item.name: item.context for item in config.contexts}
    context = _named(contexts, config.current_context, f"{path}: current-context")
    cluster = _named(
        {item.name: item.cluster for item in config.clusters}, context.cluster, f"{path}: cluster"
    )
    user = _named({item.name: item.user for item in config.users}, context.user, f"{path}: user")
    if user.exec or user.auth_provider or user.username:
        raise InvalidError(
            f"{path}: user {context.user} authenticates by exec, auth-provider or password; "
            "only a token or a client certificate is supported: make a kubeconfig with one of them."
        )
    return ClusterConfig(
        server=cluster.server.rstrip("/"),
        token=_user_token(user, path.parent),
        tls=_kubeconfig_tls(cluster, user, path) if cluster.server.startswith("https:") else None,
    )


def _user_token(user: _User, base: Path) -> Token:
    if user.token_file:
        return Token(path=base / user.token_file)
    return Token(user.token)


def _kubeconfig_tls(cluster: _Cluster, user: _User, path: Path) -> ssl.SSLContext:
    base = path.parent
    with tempfile.TemporaryDirectory(
        prefix="tortie-tls-"
    ) as directory:  # 0700; ssl reads keys from files only
        scratch = Path(directory)

        def material(file: str, data: str, name: str) -> Path | None:
            if data:
                return _write_private(scratch / name, data, f"{path}: {name}-data")
            return base / file if file else None

        return tls_context(
            ca_file=material(cluster.certificate_authority, cluster.certificate_authority_data, "ca"),
            certificate=material(user.client_certificate, user.client_certificate_data, "client-certificate"),
            key=material(user.client_key, user.client_key_data, "client-key"),
        )


def _write_private(path: Path, data: str, what: str) -> Path:
    try:
        path.write_bytes(base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise InvalidError(f"{what} is not base64: {error}.") from error
    return path


def _named(entries: dict[str, V], name: str, what: str) -> V:
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise InvalidError(f"{what} is {name!r}, which the file does not define; it defines: {known}.")
    return entries[name]


def tls_context(
    ca_file: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Without `ca_file` the system's authorities are trusted. Raise InvalidError."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        names = ", ".join(str(path) for path in (ca_file, certificate, key) if path is not None)
        raise InvalidError(f"Certificates cannot be loaded ({names}): {error}.") from error
    return context
