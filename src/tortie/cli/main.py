"""tortiectl, also installed as calicoctl: what the network looks like, for people and scripts.

Output goes to stdout, errors go to stderr. Exit status 1: something failed or was not found; 2: the command
line was wrong.
"""

import logging
from pathlib import Path

import click

from tortie import __version__
from tortie.bgp.control import BirdControl, BirdError
from tortie.cli import peers
from tortie.cli.changing import label, patch
from tortie.cli.connection import Settings, ask
from tortie.cli.explain import policy
from tortie.cli.ipam import ipam
from tortie.cli.migrate import datastore
from tortie.cli.options import AnywhereGroup
from tortie.cli.reading import get
from tortie.cli.writing import apply, create, delete, replace_command, validate
from tortie.datastore.interface import Datastore
from tortie.model.constants import BIRD_SOCKET
from tortie.model.resources import ClusterInformation

LOG_LEVELS = ("debug", "info", "warning", "error", "fatal", "panic")


@click.group(cls=AnywhereGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Credentials of the cluster."
)
@click.option(
    "-l",
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="panic",
    show_default=True,
    help="Least severity of what is logged to stderr.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="calicoctl's configuration file.  [default: /etc/calico/calicoctl.cfg, if it exists]",
)
@click.option("--allow-version-mismatch", is_flag=True, hidden=True, help="Taken for calicoctl's sake.")
@click.pass_context
def main(
    context: click.Context,
    kubeconfig: Path | None,
    log_level: str,
    config: Path | None,
    allow_version_mismatch: bool,
) -> None:
    """Look at the network and change it: nodes, pools, policies, endpoints, BGP."""
    level = (
        logging.CRITICAL
        if log_level in ("fatal", "panic")
        else logging.getLevelNamesMapping()[log_level.upper()]
    )
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    context.obj = Settings(kubeconfig, config)


for command in (get, create, apply, replace_command, delete, patch, label, validate, policy, datastore, ipam):
    main.add_command(command)


@main.group()
def node() -> None:
    """This node."""


@node.command("status")
@click.option(
    "--bird-socket",
    type=click.Path(path_type=Path),
    default=BIRD_SOCKET,
    show_default=True,
    help="BIRD's control socket.",
)
def node_status(bird_socket: Path) -> None:
    """BGP sessions of this node. Run it on the node as root, or in its calico-node pod."""
    try:
        sessions = BirdControl(bird_socket).peers()
    except BirdError as error:
        raise click.ClickException(
            f"Calico process is not running. {error}. Look at the node's calico-node pod; run this as root."
        ) from error
    click.echo(peers.status_report(sessions), nl=False)


@main.command()
@click.option("--client", is_flag=True, help="Do not ask the cluster.")
@click.pass_obj
def version(settings: Settings, client: bool) -> None:
    """Version of this program and of the cluster's network."""
    click.echo(f"Client Version:    {__version__}")
    if client:
        return

    async def question(store: Datastore) -> ClusterInformation:
        return await store.get(ClusterInformation, "default")

    spec = ask(settings, question).spec
    click.echo(f"Cluster Version:   {spec.calico_version or 'unknown'}")
    click.echo(f"Cluster Type:      {spec.cluster_type or 'unknown'}")


if __name__ == "__main__":
    main()
