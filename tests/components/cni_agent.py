"""The agent's CNI server in a process of its own: `python -m tests.components.cni_agent`, and four arguments:
kubeconfig, name of the node, directory, MTU. A fifth names a file that holds seconds: by as many the wall
clock of the process is off, from the moment they are written (see tests/components/stepped_clock.py).

It follows what the agent follows and nothing else, so it can be killed and started at will. The socket is
DIRECTORY/cni.sock, the journal DIRECTORY/journal; DIRECTORY/ready appears when it listens.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from tests.components import stepped_clock
from tortie.cni.cluster import Watched
from tortie.cni.server import CNIServer
from tortie.datastore.informer import Informer
from tortie.datastore.kubernetes import connect
from tortie.ipam.allocator import Allocator
from tortie.ipam.surroundings import WatchedSurroundings
from tortie.model.policy_natives import Namespace
from tortie.model.resources import ClusterInformation, IPAMConfig, IPPool, IPReservation, Node, Pod

log = logging.getLogger(__name__)


async def serve(kubeconfig: Path, node: str, directory: Path, mtu: int) -> None:
    """Run until killed."""
    async with await connect(kubeconfig) as datastore:
        pods = Informer(datastore, Pod, field_selector=f"spec.nodeName={node}")
        namespaces, information = Informer(datastore, Namespace), Informer(datastore, ClusterInformation)
        pools, reservations = Informer(datastore, IPPool), Informer(datastore, IPReservation)
        configs, nodes = Informer(datastore, IPAMConfig), Informer(datastore, Node)
        surroundings = WatchedSurroundings(
            datastore, node, pools=pools, reservations=reservations, configs=configs, nodes=nodes
        )
        allocator = Allocator(datastore, node, borrowing=False, surroundings=surroundings)
        server = CNIServer(
            socket_path=directory / "cni.sock",
            journal_dir=directory / "journal",
            node=node,
            datastore=datastore,
            allocator=allocator,
            default_mtu=lambda: mtu,
            watched=Watched(
                pod=lambda namespace, name: pods.items.get((namespace, name)),
                namespace=lambda name: namespaces.items.get(("", name)),
                information=lambda: information.items.get(("", "default")),
            ),
            host_root=Path("/"),
        )
        async with asyncio.TaskGroup() as group:
            for informer in (pods, namespaces, information, pools, reservations, configs, nodes):
                group.create_task(informer.run())
            group.create_task(server.serve())
            await server.listening.wait()
            (directory / "ready").write_text(str(os.getpid()))


def main() -> None:
    """Run with the arguments of the command line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    kubeconfig, node, directory, mtu, *clock = sys.argv[1:]
    if clock:
        stepped_clock.install(Path(clock[0]))
    asyncio.run(serve(Path(kubeconfig), node, Path(directory), int(mtu)))


if __name__ == "__main__":
    main()
