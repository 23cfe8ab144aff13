"""`tortie-install-cni`: the init container that puts the CNI plugin and its configuration on the host.

Environment (Calico's names; the defaults are the mount points in the DaemonSet):

CNI_BIN_DIR (/host/opt/cni/bin), CNI_NET_DIR_MOUNT (/host/etc/cni/net.d), CNI_NET_DIR (/etc/cni/net.d: the
same directory as the host calls it), CNI_CONF_NAME (10-calico.conflist), CNI_NETWORK_CONFIG and
CNI_NETWORK_CONFIG_FILE (a configuration of one's own, with __PLACEHOLDERS__; the file wins), CNI_MTU (0:
automatic), LOG_LEVEL (info), KUBERNETES_NODE_NAME or NODENAME, UPDATE_CNI_BINARIES (true), SKIP_CNI_BINARIES
(names, comma separated), CALICO_CNI_SERVICE_ACCOUNT (calico-cni-plugin), CALICO_MANAGE_CNI (true).
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from tortie.cni import shim
from tortie.datastore.interface import DatastoreError
from tortie.datastore.kubernetes import connect

log = logging.getLogger(__name__)

PLUGINS_DIR: Final = Path("/usr/lib/cni")  # Debian's containernetworking-plugins, in the image
PLUGINS: Final = ("portmap", "bandwidth", "loopback", "host-local")
SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SHIM_NAMES: Final = ("calico", "calico-ipam")
PORTABLE_SHIM: Final = Path(shim.__file__)
FAST_SHIM: Final = PORTABLE_SHIM.with_suffix(".pl")
KUBECONFIG_NAME: Final = "calico-kubeconfig"
TOKEN_SECONDS: Final = 24 * 3600
MIN_RENEWAL_SECONDS: Final = 5.0
TOKEN_WAIT_SECONDS: Final = 15.0
# How often this pod's own token is looked at. kubelet replaces it before it expires, and at once when the API
# server's signing key or authority changes: then the token in our kubeconfig may be void, too.
ACCOUNT_POLL_SECONDS: Final = 10.0
_FALSE: Final = frozenset({"false", "0", "no", "n", "f"})

DEFAULT_CONFIG: Final[dict[str, Any]] = {
    "name": "k8s-pod-network",
    "cniVersion": "1.0.0",
    "plugins": [
        {
            "type": "calico",
            "log_level": "__LOG_LEVEL__",
            "datastore_type": "kubernetes",
            "nodename": "__KUBERNETES_NODE_NAME__",
            "mtu": "__CNI_MTU__",
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"},
        },
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    ],
}


class InstallError(Exception):
    """The plugin cannot be installed: a sentence with path or variable and remedy."""


class TokenSource(Protocol):
    """Issues service account tokens. Implemented by tortie.datastore.kubernetes."""

    async def create_token(self, namespace: str, service_account: str, seconds: int) -> tuple[str, datetime]:
        """A token and when it expires. Raise DatastoreError."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to install what. Directories are as this container sees them, `host_net_dir` as the host does."""

    bin_dir: Path = Path("/host/opt/cni/bin")
    net_dir: Path = Path("/host/etc/cni/net.d")
    host_net_dir: str = "/etc/cni/net.d"
    config_name: str = "10-calico.conflist"
    config_template: str = ""
    mtu: int = 0
    log_level: str = "info"
    node: str = ""
    update_binaries: bool = True
    skip_binaries: frozenset[str] = frozenset()
    service_account: str = "calico-cni-plugin"
    manage: bool = True
    api_server: str = ""
    account_dir: Path = SERVICE_ACCOUNT_DIR
    plugins_dir: Path = PLUGINS_DIR
    host_root: Path = Path("/proc/1/root")  # with hostPID the host's, else this container's
    shim: Path | None = None  # None: the best that the host can execute

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig as this container sees it."""
        return self.net_dir / KUBECONFIG_NAME


def settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raise InstallError."""
    get, default = environment.get, Settings()
    mtu = get("CNI_MTU", "") or "0"
    if not mtu.isdigit():
        raise InstallError(f"CNI_MTU is {mtu!r}; it must be a number of bytes, 0 for automatic")
    name = get("CNI_CONF_NAME", "") or default.config_name
    if "/" in name or not name.endswith((".conflist", ".conf")):
        raise InstallError(
            f"CNI_CONF_NAME is {name!r}; it must be a file name that ends in .conflist or .conf"
        )
    host, port = get("KUBERNETES_SERVICE_HOST", ""), get("KUBERNETES_SERVICE_PORT", "443")
    return Settings(
        bin_dir=Path(get("CNI_BIN_DIR", "") or default.bin_dir),
        net_dir=Path(get("CNI_NET_DIR_MOUNT", "") or default.net_dir),
        host_net_dir=get("CNI_NET_DIR", "") or default.host_net_dir,
        config_name=name,
        config_template=_template(get("CNI_NETWORK_CONFIG_FILE", ""), get("CNI_NETWORK_CONFIG", "")),
        mtu=int(mtu),
        log_level=get("LOG_LEVEL", "") or default.log_level,
        node=get("KUBERNETES_NODE_NAME", "") or get("NODENAME", ""),
        update_binaries=get("UPDATE_CNI_BINARIES", "true").lower() not in _FALSE,
        skip_binaries=frozenset(filter(None, map(str.strip, get("SKIP_CNI_BINARIES", "").split(",")))),
        service_account=get("CALICO_CNI_SERVICE_ACCOUNT", "") or default.service_account,
        manage=get("CALICO_MANAGE_CNI", "true").lower() not in _FALSE,
        api_server=f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else "",
    )


def _template(file: str, text: str) -> str:
    if not file:
        return text
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InstallError(
            f"CNI_NETWORK_CONFIG_FILE is {file}, which cannot be read: {error.strerror}"
        ) from error


def write_atomically(path: Path, content: bytes, mode: int) -> bool:
    """Write a file as a whole or not at all, and verify it. Return False when it was so already."""
    with contextlib.suppress(OSError):  # absent or unreadable: it is written
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode and not path.is_symlink():
            return False
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.chmod(mode)
        draft.replace(path)
        if path.read_bytes() != content:
            raise InstallError(f"{path} does not hold what was written to it; see the host's file system")
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise InstallError(
            f"cannot write {path}: {error.strerror}; see that the directory is mounted"
        ) from error
    return True


def best_shim(host_root: Path) -> Path:
    """The faster shim where the host has Perl, else the one in Python. Raise InstallError without either.

    Without hostPID nothing is known about the host, and the agent could not serve the faster one.
    """
    try:
        is_host = not host_root.samefile("/")
    except OSError:  # not permitted to look
        is_host = False
    if not is_host:
        return PORTABLE_SHIM
    for interpreter, file in (("perl", FAST_SHIM), ("python3", PORTABLE_SHIM)):
        if os.path.lexists(
            host_root / "usr/bin" / interpreter
        ):  # a link may be absolute: lead elsewhere here
            return file
    raise InstallError("the node has neither /usr/bin/perl nor /usr/bin/python3; install one of them")


def binaries(chosen: Settings) -> dict[str, Path]:
    """Which file of this image goes to the host under which name. Raise InstallError."""
    sources = dict.fromkeys(SHIM_NAMES, chosen.shim or best_shim(chosen.host_root))
    sources |= {name: chosen.plugins_dir / name for name in PLUGINS}
    return {name: path for name, path in sources.items() if name not in chosen.skip_binaries}


def install_binaries(chosen: Settings) -> list[str]:
    """Put the plugins on the host; return the names of those that changed. Raise InstallError."""
    changed: list[str] = []
    for name, source in binaries(chosen).items():
        target = chosen.bin_dir / name
        if target.exists() and not chosen.update_binaries:
            continue
        try:
            content = source.read_bytes()
        except OSError as error:
            raise InstallError(
                f"the image lacks {source} ({error.strerror}); add it, or name it in SKIP_CNI_BINARIES"
            ) from error
        if write_atomically(target, content, 0o755):
            changed.append(name)
    return changed


def render_config(chosen: Settings) -> bytes:
    """The network configuration. Raise InstallError when the template does not give JSON."""
    # The MTU is a number: its placeholder stands without quotes.
    template = chosen.config_template or json.dumps(DEFAULT_CONFIG, indent=2).replace(
        '"__CNI_MTU__"', "__CNI_MTU__"
    )
    values = {
        "__CNI_MTU__": str(chosen.mtu),
        "__KUBERNETES_NODE_NAME__": chosen.node,
        "__KUBECONFIG_FILEPATH__": f"{chosen.host_net_dir}/{KUBECONFIG_NAME}",
        "__LOG_LEVEL__": chosen.log_level,
    }
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    try:
        json.loads(template)
    except json.JSONDecodeError as error:
        raise InstallError(
            f"CNI_NETWORK_CONFIG is not JSON once its placeholders are filled in: {error}"
        ) from error
    return template.rstrip().encode() + b"\n"


def render_kubeconfig(chosen: Settings, token: str) -> bytes:
    """A kubeconfig for the API server of this cluster. Raise InstallError."""
    if not chosen.api_server:
        raise InstallError("KUBERNETES_SERVICE_HOST is not set; run this in a pod of the cluster")
    authority = chosen.account_dir / "ca.crt"
    try:
        bundle = base64.b64encode(authority.read_bytes()).decode()
    except OSError as error:
        raise InstallError(f"cannot read {authority}: {error.strerror}; mount the service account") from error
    cluster = {"server": chosen.api_server, "certificate-authority-data": bundle}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "calico", "user": {"token": token}}],
        "contexts": [{"name": "calico-context", "context": {"cluster": "local", "user": "calico"}}],
        "current-context": "calico-context",
    }
    return json.dumps(body, indent=2).encode() + b"\n"  # JSON is YAML


async def issue_token(chosen: Settings, source: TokenSource) -> tuple[str, datetime | None]:
    """A token for the CNI's service account, or else this pod's own, of which kubelet keeps the file fresh.

    The second value says when it expires; None means that this is not known. Raise InstallError.
    """
    try:
        namespace = (chosen.account_dir / "namespace").read_text(encoding="ascii").strip()
        async with asyncio.timeout(TOKEN_WAIT_SECONDS):
            return await source.create_token(namespace, chosen.service_account, TOKEN_SECONDS)
    except (DatastoreError, OSError) as error:  # TimeoutError is an OSError
        log.warning(
            "no token for service account %s, using this pod's own: %s", chosen.service_account, error
        )
    path = chosen.account_dir / "token"
    try:
        return path.read_text(encoding="ascii").strip(), None
    except OSError as error:
        raise InstallError(f"cannot read {path}: {error.strerror}; mount the service account") from error


def renewal_delay(now: datetime, expires: datetime | None, chance: float) -> float:
    """Seconds until the next renewal: a quarter of what remains, plus up to as much by `chance` (0 to 1).

    On a node whose clock is behind more seems to remain than was asked for: it is not believed.
    """
    remaining = (expires - now).total_seconds() if expires else MIN_RENEWAL_SECONDS * 240
    return max(MIN_RENEWAL_SECONDS, min(remaining, TOKEN_SECONDS) / 4 * (1 + chance))


async def renew_once(chosen: Settings, source: TokenSource) -> datetime | None:
    """Write a kubeconfig with a fresh token; return when it expires. Raise InstallError."""
    token, expires = await issue_token(chosen, source)
    write_atomically(chosen.kubeconfig, render_kubeconfig(chosen, token), 0o600)
    return expires


async def renew_loop(
    chosen: Settings, source: TokenSource, *, poll_seconds: float = ACCOUNT_POLL_SECONDS
) -> None:
    """Keep the kubeconfig's token fresh. The agent runs it. With CALICO_MANAGE_CNI=false it ends at once."""
    while chosen.manage:
        seen = account_state(chosen.account_dir)
        try:
            expires = await renew_once(chosen, source)
        except InstallError as error:
            log.error("the CNI kubeconfig cannot be renewed, trying again: %s", error)
            await asyncio.sleep(MIN_RENEWAL_SECONDS)
            continue
        chance = secrets.randbelow(1000) / 1000  # spreads the nodes over time
        deadline = time.monotonic() + renewal_delay(datetime.now(UTC), expires, chance)
        while account_state(chosen.account_dir) == seen:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            await asyncio.sleep(min(poll_seconds, remaining))


def account_state(directory: Path) -> tuple[object, ...]:
    """What changes when kubelet renews this pod's own token or the authority's certificate."""
    states: list[object] = []
    for name in ("token", "ca.crt"):
        try:
            status = (directory / name).stat()
            states.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            states.append(None)
    return tuple(states)


async def install(chosen: Settings) -> None:
    """Plugins, kubeconfig, and last the configuration, which makes the runtime call the plugin."""
    changed = await asyncio.to_thread(install_binaries, chosen)
    log.info("plugins in %s: %s", chosen.bin_dir, ", ".join(changed) or "in place")
    source = await connect()
    try:
        await renew_once(chosen, source)
    finally:
        await source.close()
    write_atomically(chosen.net_dir / chosen.config_name, render_config(chosen), 0o600)
    log.info("configuration in %s", chosen.net_dir / chosen.config_name)


def main() -> int:
    """Install; the exit status is 0 on success."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        chosen = settings(os.environ)
        if not chosen.manage:
            log.info("CALICO_MANAGE_CNI is false: nothing to do")
            return 0
        asyncio.run(install(chosen))
    except (InstallError, DatastoreError) as error:
        log.error("the CNI plugin is not installed: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
