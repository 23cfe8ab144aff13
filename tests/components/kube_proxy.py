"""The bundle's kube-proxy in iptables mode, inside a node's network namespace."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab import bundle, cache, once
from lab.bundle import images

from tests.components.apiserver import ApiServer
from tests.components.processes import daemon, wait_until

_POLL_SECONDS = 0.1
_READY_TRIES = 600
_TOOLS = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


def kube_proxy() -> Path:
    """The program, out of its image."""
    archives = sorted((bundle.find() / "images").glob("kube-proxy*.tar"))
    if len(archives) != 1:
        raise RuntimeError(f"The bundle has {len(archives)} kube-proxy images, expected one: {archives}")
    image_id = images.read(archives[0])[0].image_id.removeprefix("sha256:")

    def fill(target: Path) -> None:
        images.extract_file(archives[0], "usr/local/bin/kube-proxy", target / "kube-proxy")

    return once.make(cache.root() / "binaries" / f"kube-proxy-{image_id[:12]}", fill) / "kube-proxy"


@contextlib.contextmanager
def running(
    program: Path,
    server: ApiServer,
    directory: Path,
    *,
    backend: str,
    node: str,
    prefix: Sequence[str],
    ready: Callable[[], bool],
) -> Iterator[None]:
    """Run it with `backend` (nft or legacy) as iptables; `prefix` are the words that enter the namespace, and
    `ready` says when it has written what is waited for.

    It leaves connection tracking's limits alone, which belong to the whole machine.
    """
    tools = directory / f"iptables-{backend}"
    tools.mkdir()
    for tool in _TOOLS:
        family, _, action = tool.partition("-")
        found = shutil.which(f"{family}-{backend}{f'-{action}' if action else ''}")
        if found is None:
            raise RuntimeError(f"{tool} for {backend} is not installed; install the package iptables")
        (tools / tool).symlink_to(found)
    command = (
        *prefix,
        *("env", f"PATH={tools}:/usr/sbin:/usr/bin:/sbin:/bin"),
        str(program),
        *(f"--kubeconfig={server.kubeconfig}", "--proxy-mode=iptables", f"--hostname-override={node}"),
        *("--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0s"),
        *("--conntrack-tcp-timeout-close-wait=0s", "--iptables-min-sync-period=0s"),
        *("--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"),
    )
    log = directory / f"kube-proxy-{backend}.log"
    with daemon(command, log) as process:
        wait_until(ready, process, log, lambda: time.sleep(_POLL_SECONDS), _READY_TRIES)
        yield
