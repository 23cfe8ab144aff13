"""`tortie-controllers`: garbage collection of addresses for the whole cluster.

What its Deployment `calico-kube-controllers` (one replica, strategy Recreate; two at once do no harm) needs:

Environment
    KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT or KUBECONFIG   where the API server is
    ENABLED_CONTROLLERS   `node` is the one that exists; others are named in the log and left out
    LOG_LEVEL             debug, info (default), warning, error
    LEAK_GRACE_PERIOD     how long an address must have no owner; Go duration, default 15m; 0s: never
    HEALTH_PORT           default 9440: GET /liveness and /readiness (probes: httpGet); 0: none
    METRICS_PORT          default 9094: GET /metrics; 0: none
    HEALTH_HOST, METRICS_HOST   the addresses to listen on; default: every address. With hostNetwork give
                          127.0.0.1, and the probes host: 127.0.0.1
  The KubeControllersConfiguration named default says the same (logSeverityScreen, controllers.node
  .leakGracePeriod, prometheusMetricsPort, healthChecks); a variable that is set wins. It is read at start.

Rights (ClusterRole)
    nodes, pods                                                     get, list, watch
    crd.projectcalico.org: ippools, ipreservations, ipamconfigs,
      kubecontrollersconfigurations                                 get, list, watch
    crd.projectcalico.org: ipamblocks, blockaffinities, ipamhandles get, list, watch, create, update, delete
    crd.projectcalico.org: kubecontrollersconfigurations            patch (reports its settings in the status)

It needs no host network, no host path and no privilege. It tolerates what nodes without a network have
(node.kubernetes.io/not-ready, node-role.kubernetes.io/control-plane), and 256 MB suffice for 10,000 pods.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

from tortie.agent.logfmt import set_up_logging
from tortie.controllers.collector import Collector, Sources
from tortie.controllers.counting import Metrics
from tortie.controllers.health import Health
from tortie.controllers.settings import Settings, SettingsError, read_settings
from tortie.datastore.interface import Datastore, DatastoreError, NotFoundError
from tortie.datastore.kubernetes import connect
from tortie.model.resources import KubeControllersConfiguration
from tortie.serving import health_application, metrics_application, serving

log = logging.getLogger("tortie.controllers.main")

_FIRST_RETRY: Final = 1.0  # seconds before the configuration is asked for again; doubled up to _LONGEST_RETRY
_LONGEST_RETRY: Final = 30.0


async def run(environ: Mapping[str, str], datastore: Datastore) -> None:
    """Run until cancelled. Raise SettingsError."""
    settings = await _configured(environ, datastore)
    set_up_logging(settings.log_level)
    for name in settings.unknown:
        log.warning("Controller %s is not needed or does not exist here; it is left out", name)
    health, metrics = Health(), Metrics()
    async with AsyncExitStack() as stack:
        for application, port, host in (
            (
                health_application(health.not_alive, health.not_ready),
                settings.health_port,
                settings.health_host,
            ),
            (metrics_application(metrics.registry), settings.metrics_port, settings.metrics_host),
        ):
            await stack.enter_async_context(serving(application, host, port))
        sources = Sources.of(datastore)
        async with asyncio.TaskGroup() as tasks:
            for source in sources.runs():
                tasks.create_task(source)
            tasks.create_task(_report_synced(sources, health))
            collector = Collector(datastore, sources, settings.grace, metrics, beat=health.beat)
            tasks.create_task(collector.show_metrics())
            tasks.create_task(_report_settings(datastore, settings))
            if settings.collecting:
                log.info("Addresses without an owner are released after %.0f s", settings.grace)
                tasks.create_task(collector.run())
            else:
                log.warning("Garbage collection is off (ENABLED_CONTROLLERS, or a leak grace period of 0)")
                tasks.create_task(_beat(health))


async def _configured(environ: Mapping[str, str], datastore: Datastore) -> Settings:
    """The settings, as soon as the datastore answers."""
    wait = _FIRST_RETRY
    while True:
        try:
            stored = await datastore.get(KubeControllersConfiguration, "default")
        except NotFoundError:
            return read_settings(environ)
        except DatastoreError as error:
            log.warning("KubeControllersConfiguration default cannot be read yet: %s", error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_RETRY)
        else:
            return read_settings(environ, stored.spec)


async def _report_synced(sources: Sources, health: Health) -> None:
    await sources.synced()
    health.ready = True
    log.info("The cluster has been listed")


async def _report_settings(datastore: Datastore, settings: Settings) -> None:
    """Write what is in force into the status of the configuration, where there is one. Best effort."""
    running = {
        "logSeverityScreen": settings.log_level.capitalize(),
        "prometheusMetricsPort": settings.metrics_port,
        "healthChecks": "Enabled" if settings.health_port else "Disabled",
        "controllers": {"node": {"leakGracePeriod": f"{settings.grace:g}s"}},
    }
    status = {"runningConfig": running, "environmentVars": dict(settings.environment)}
    try:
        await datastore.patch(KubeControllersConfiguration, "default", {"status": status})
    except NotFoundError:
        return
    except DatastoreError as error:
        log.warning("The status of KubeControllersConfiguration default is not written: %s", error)


async def _beat(health: Health) -> None:
    while True:
        health.beat()
        await asyncio.sleep(_LONGEST_RETRY)


async def _run_until_stopped() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    read_settings(os.environ)  # what the environment says must be right in any case, and is said first
    datastore = await connect()
    try:
        work = asyncio.create_task(run(os.environ, datastore))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        waiting.cancel()
        result, _ = await asyncio.gather(work, waiting, return_exceptions=True)
        if isinstance(result, Exception):
            raise result
    finally:
        await datastore.close()


def main() -> None:
    """Entry point of `tortie-controllers`."""
    set_up_logging("INFO")
    try:
        asyncio.run(_run_until_stopped())
    except (SettingsError, DatastoreError) as error:
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        log.exception("The controllers end because of an error that they do not know")
        sys.exit(1)


if __name__ == "__main__":
    main()
