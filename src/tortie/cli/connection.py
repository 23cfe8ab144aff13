"""Which datastore to talk to, and how: options, environment, calicoctl's configuration file, in that order.

The file and the variables are calicoctl's. Without any of them: Kubernetes, a pod's own cluster, or
~/.kube/config.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import yaml

from tortie.cli.constraints import RefusedError
from tortie.cli.kinds import Backend
from tortie.cli.objects import Objects
from tortie.cli.patching import PatchError
from tortie.datastore import kubernetes
from tortie.datastore.etcd import EtcdDatastore
from tortie.datastore.etcd_client import etcd_config
from tortie.datastore.interface import Datastore, DatastoreError

T = TypeVar("T")

DEFAULT_FILE: Final = Path("/etc/calico/calicoctl.cfg")
USER_KUBECONFIG: Final = Path("~/.kube/config")
_BACKENDS: Final[dict[str, Backend]] = {"kubernetes": "kubernetes", "etcdv3": "etcdv3"}

# Fields of the file's spec, and the variables that stand for them.
_VARIABLES: Final = {
    "datastoreType": "DATASTORE_TYPE",
    "kubeconfig": "KUBECONFIG",
    "etcdEndpoints": "ETCD_ENDPOINTS",
    "etcdUsername": "ETCD_USERNAME",
    "etcdPassword": "ETCD_PASSWORD",
    "etcdCACertFile": "ETCD_CA_CERT_FILE",
    "etcdCertFile": "ETCD_CERT_FILE",
    "etcdKeyFile": "ETCD_KEY_FILE",
}
# Fields of the file that we do not have. Ignoring them would talk to another cluster than the file says.
_UNSUPPORTED: Final = {
    "etcdDiscoverySrv": "name the servers in etcdEndpoints",
    "k8sAPIEndpoint": "put the server into a kubeconfig file and name it in kubeconfig",
    "k8sKeyFile": "put it into a kubeconfig file and name that in kubeconfig",
    "k8sCertFile": "put it into a kubeconfig file and name that in kubeconfig",
    "k8sCAFile": "put it into a kubeconfig file and name that in kubeconfig",
    "k8sAPIToken": "put it into a kubeconfig file and name that in kubeconfig",
    "k8sInsecureSkipTLSVerify": "use a certificate authority",
}


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names file or variable, value and remedy."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the datastore is. `kubeconfig` None: a pod's own cluster. `etcd`: Calico's ETCD_ variables."""

    backend: Backend = "kubernetes"
    kubeconfig: Path | None = None
    etcd: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """Global options as given. `config` None: the default file, if there is one."""

    kubeconfig: Path | None = None
    config: Path | None = None

    def connection(self) -> Connection:
        """What to connect to. Raise ConfigurationError."""
        return choose(self.kubeconfig, read_file(self.config), os.environ)


def read_file(path: Path | None) -> dict[str, str]:
    """The spec of calicoctl's configuration file; empty when there is no file at the default place.

    Raise ConfigurationError.
    """
    where = path or DEFAULT_FILE
    try:
        text = where.read_text()
    except FileNotFoundError as error:
        if path is None:
            return {}
        raise ConfigurationError(f"The configuration file {where} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The configuration file {where} cannot be read: {error}.") from error
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"The configuration file {where} is no YAML: {error}.") from error
    spec: Any = body.get("spec", {}) if isinstance(body, dict) else None
    if not isinstance(body, dict) or body.get("kind") != "CalicoAPIConfig" or not isinstance(spec, dict):
        raise ConfigurationError(
            f"The configuration file {where} must have kind: CalicoAPIConfig and a mapping spec."
        )
    for name, value in spec.items():
        if name in _UNSUPPORTED and value:
            raise ConfigurationError(
                f"The configuration file {where}: spec.{name} is not supported; {_UNSUPPORTED[name]}."
            )
        if name not in _VARIABLES and name not in _UNSUPPORTED:
            known = ", ".join(_VARIABLES)
            raise ConfigurationError(
                f"The configuration file {where}: spec.{name} is unknown; known are: {known}."
            )
    return {name: str(value) for name, value in spec.items() if value}


def choose(kubeconfig: Path | None, file: Mapping[str, str], environment: Mapping[str, str]) -> Connection:
    """The connection that options, environment and file describe. Raise ConfigurationError."""

    def value(item: str) -> str:
        return environment.get(_VARIABLES[item], "") or file.get(item, "")

    name = value("datastoreType") or ("etcdv3" if value("etcdEndpoints") and not kubeconfig else "kubernetes")
    if kubeconfig is not None:
        name = "kubernetes"
    if name not in _BACKENDS:
        raise ConfigurationError(
            f"DATASTORE_TYPE is {name!r}; it must be kubernetes or etcdv3 (in the file: spec.datastoreType)."
        )
    backend = _BACKENDS[name]
    if backend == "kubernetes":
        return Connection(kubeconfig=kubeconfig or _kubeconfig(value("kubeconfig"), environment))
    variables = {name: value(item) for item, name in _VARIABLES.items() if item.startswith("etcd")}
    return Connection(backend, etcd={name: text for name, text in variables.items() if text})


def _kubeconfig(named: str, environment: Mapping[str, str]) -> Path | None:
    if named:
        return Path(named).expanduser()
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return None
    default = USER_KUBECONFIG.expanduser()
    return default if default.exists() else None


async def connect(connection: Connection) -> Datastore:
    """A client of the datastore. Raise a DatastoreError."""
    if connection.backend == "etcdv3":
        return EtcdDatastore(etcd_config(connection.etcd))
    return await kubernetes.connect(connection.kubeconfig)


def ask(settings: Settings, question: Callable[[Datastore], Awaitable[T]]) -> T:
    """Put a question to the datastore. Its errors become a message and exit status 1."""
    return _run(settings, lambda store, _backend: question(store))


def ask_objects(settings: Settings, question: Callable[[Objects], Awaitable[T]]) -> T:
    """The same, with the datastore's objects as documents."""
    return _run(settings, lambda store, backend: question(Objects(store, backend, _warn)))


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


def _run(settings: Settings, question: Callable[[Datastore, Backend], Awaitable[T]]) -> T:
    async def session() -> T:
        connection = settings.connection()
        store = await connect(connection)
        try:
            return await question(store, connection.backend)
        finally:
            await store.close()

    try:
        return asyncio.run(session())
    except (DatastoreError, ConfigurationError, RefusedError, PatchError) as error:
        raise click.ClickException(str(error)) from error
