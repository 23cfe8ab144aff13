"""The agent of one node (`tortie-agent`): wires watches, reconcile loop, BIRD, CNI server and health."""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from tortie.agent.attachment import Attachment
from tortie.agent.bird import Bird, sessions_problem
from tortie.agent.floating import FloatingAgent
from tortie.agent.health import Health, Layer, serve_health, serve_metrics
from tortie.agent.logfmt import set_up_logging
from tortie.agent.metrics import Metrics
from tortie.agent.policy import PolicyAgent, PolicySources
from tortie.agent.policy_work import PolicyWorker, own_interfaces
from tortie.agent.reconcile import NodeMovedError, Reconciler, Watches
from tortie.agent.settings import Settings, SettingsError, read_settings
from tortie.agent.startup import Identity, StartupError, node_name, report_network_available, start_up
from tortie.agent.supervisor import find_bird
from tortie.agent.tunnels import TunnelAddresses
from tortie.bgp.control import BirdError
from tortie.cni import installer
from tortie.cni.installer import InstallError
from tortie.dataplane.apply import Dataplane
from tortie.dataplane.floating import FloatingDataplane
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.presence import device_index
from tortie.datastore.interface import Datastore, DatastoreError, InvalidError
from tortie.datastore.kubernetes import KubernetesDatastore, connect
from tortie.ipam.allocator import Allocator
from tortie.model.constants import IPIP_DEVICE

log = logging.getLogger("tortie.agent.main")

# Seconds. A younger agent is ready only when every BGP session is up (Calico's --threshold-time).
FRESH: Final = 30.0
_BIRD_POLL: Final = 1.0  # seconds between looks at BIRD's sessions
# Seconds that a thread may keep the interpreter from another. Python's 5 ms would be a good part of the time
# that a change of policy may take.
_SWITCH: Final = 0.0005
_FIRST_RETRY: Final = 1.0  # seconds before start-up is tried again; doubled up to _LONGEST_RETRY
_LONGEST_RETRY: Final = 30.0


async def run_agent(settings: Settings) -> None:
    """Run until cancelled. What cannot be retried inside is raised; the supervisor starts the agent again."""
    layers: list[Layer] = ["start-up", "datastore", "tunnels", "mtu", "dataplane", "policy", "cni"]
    if settings.backend == "bird":
        layers.append("bgp")
    health, metrics = Health(layers), Metrics()
    metrics.ready.set_function(lambda: float(health.ready.is_set()))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve_health(health, settings.health_port))
        if settings.metrics_enabled:
            await stack.enter_async_context(
                serve_metrics(metrics.registry, settings.metrics_host, settings.metrics_port)
            )
        datastore = await stack.enter_async_context(await connect())
        await _run_node(settings, datastore, health, metrics)


async def _run_node(
    settings: Settings, datastore: KubernetesDatastore, health: Health, metrics: Metrics
) -> None:
    name = node_name(settings)
    dataplane = Dataplane()
    allocator = Allocator(datastore, name)
    sources = PolicySources(datastore)
    policy = PolicyAgent(
        sources=sources,
        worker=PolicyWorker(name, PolicyDataplane()),
        interfaces=lambda: own_interfaces(dataplane.host_links()),
        health=health,
        metrics=metrics,
    )
    await policy.guard()  # before anything forwards
    identity = await _start_until_done(settings, name, datastore, dataplane, allocator, health)
    floating = FloatingAgent(node=name, pods=sources.pods, dataplane=FloatingDataplane())
    watches = Watches.of(datastore)
    bird = (
        Bird(
            find_bird(settings),
            settings.paths.bird_config,
            settings.paths.bird_socket,
            partial(device_index, IPIP_DEVICE),
        )
        if settings.backend == "bird"
        else None
    )
    reconciler = Reconciler(
        settings=settings,
        identity=identity,
        datastore=datastore,
        dataplane=dataplane,
        watches=watches,
        tunnels=TunnelAddresses(datastore, allocator, identity),
        bird=bird,
        configure_policy=policy.configure,
        floating=floating,
        health=health,
        metrics=metrics,
    )
    attachment = Attachment(
        settings=settings,
        node=name,
        datastore=datastore,
        allocator=allocator,
        sources=sources,
        reconciler=reconciler,
        policy=policy,
        floating=floating,
        health=health,
    )
    await attachment.prepare()
    async with asyncio.TaskGroup() as tasks:
        for watch in watches.all():
            tasks.create_task(watch.run())
        tasks.create_task(reconciler.run())
        tasks.create_task(reconciler.follow_borrowed())
        tasks.create_task(reconciler.follow_devices())
        if bird is not None:
            tasks.create_task(watch_bird(bird, health, metrics))
        for source in sources.all:
            tasks.create_task(source.run())
        tasks.create_task(policy.run())
        tasks.create_task(floating.run())
        tasks.create_task(attachment.run())
        tasks.create_task(installer.renew_loop(installer.settings(os.environ), datastore))
        tasks.create_task(_report_when_ready(datastore, name, health))


async def _start_until_done(
    settings: Settings,
    name: str,
    datastore: Datastore,
    dataplane: Dataplane,
    allocator: Allocator,
    health: Health,
) -> Identity:
    wait = _FIRST_RETRY
    while True:
        try:
            identity = await start_up(settings, name, datastore, dataplane, allocator)
        except (StartupError, DatastoreError) as error:
            health.fail("start-up", str(error))
            health.beat()
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_RETRY)
        else:
            health.pass_("start-up")
            return identity


async def watch_bird(bird: Bird, health: Health, metrics: Metrics) -> None:
    """Follow BIRD's sessions: readiness, metrics, one log line for each change of a session."""
    fresh_until = time.monotonic() + FRESH
    known: dict[str, str] = {}
    while True:
        try:
            state, told = await bird.poll()
        except BirdError as error:
            health.fail("bgp", str(error))
            metrics.peers.clear()
        else:
            if told:
                metrics.bird_reloads.inc()
            current = {peer.name: peer.state for peer in state.peers}
            for peer in state.peers:
                if known.get(peer.name) != peer.state:
                    log.info("BGP peer %s is %s since %s", peer.address or peer.name, peer.state, peer.since)
            known = current
            metrics.peers.clear()
            for name in set(current.values()):
                metrics.peers.labels(name).set(sum(value == name for value in current.values()))
            problem = sessions_problem(state, fresh=time.monotonic() < fresh_until)
            if problem:
                health.fail("bgp", problem)
            else:
                health.pass_("bgp")
        await asyncio.sleep(_BIRD_POLL)


async def _report_when_ready(datastore: Datastore, name: str, health: Health) -> None:
    """Once every layer works, tell the cluster that the node has a network."""
    while True:
        await health.ready.wait()
        try:
            await report_network_available(datastore, name)
        except DatastoreError as error:
            log.warning("Node %s: condition NetworkUnavailable cannot be written: %s", name, error)
            await asyncio.sleep(_LONGEST_RETRY)
        else:
            return


async def _run_until_stopped(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    work = asyncio.create_task(run_agent(settings))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        log.info("Stopping; routes and pods' links stay")
        work.cancel()
    waiting.cancel()
    results = await asyncio.gather(work, waiting, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


def _sentences(error: BaseException) -> list[str]:
    """Messages of an error, or of all errors of a group, for those that speak for themselves."""
    if isinstance(error, BaseExceptionGroup):
        return [sentence for inner in error.exceptions for sentence in _sentences(inner)]
    if isinstance(error, (NodeMovedError, InvalidError, SettingsError, InstallError, OSError)):
        return str(error).splitlines()
    return []


def main() -> None:
    """Entry point of `tortie-agent`."""
    set_up_logging("INFO")
    try:
        settings = read_settings(os.environ)
        sys.setswitchinterval(_SWITCH)
        set_up_logging(settings.log_level)
        asyncio.run(_run_until_stopped(settings))
    except Exception as error:
        sentences = _sentences(error)
        for sentence in sentences:
            log.error("%s", sentence)
        if not sentences:
            log.exception("The agent ends because of an error that it does not know")
        sys.exit(1)


if __name__ == "__main__":
    main()
