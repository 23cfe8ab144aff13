"""Somebody sets the node's clock a day forward or back while the agent runs."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.components import ipam_audit
from tests.integration.cni.node import CONFIG
from tests.integration.cni.test_abuse_kill import Runtime, cluster, wait_for
from tests.integration.dataplane.namespaces import namespaces
from tortie.datastore.kubernetes import connect
from tortie.model.resources import IPAMBlock, IPAMHandle

pytestmark = pytest.mark.root

DAY = 86400
CONFIG_TEXT = json.dumps(CONFIG).encode()


def request(container: str) -> bytes:
    """A DEL as the shim keeps it, of pod-0."""
    items = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": "eth0",
        "CNI_TYPE": "calico",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-0",
    }
    return "\0".join(f"{key}={value}" for key, value in items.items()).encode() + b"\0\0" + CONFIG_TEXT


async def clock_error(kubeconfig: Path, container: str) -> float:
    """By how many seconds the agent's clock was off when the container got its address."""
    async with await connect(kubeconfig) as datastore:
        for block in (await datastore.list(IPAMBlock)).items:
            for attribute in block.spec.attributes:
                if attribute.handle_id == f"{CONFIG['name']}.{container}":
                    text = (attribute.secondary or {})["timestamp"].removesuffix(" UTC")
                    return (
                        datetime.fromisoformat(text) - datetime.now(UTC).replace(tzinfo=None)
                    ).total_seconds()
    raise AssertionError(f"container {container} has no address")


async def test_add_del_and_the_journal_work_on_and_a_fresh_draft_stays_when_the_clock_is_set(
    tmp_path: Path,
) -> None:
    with namespaces(2) as sandboxes:
        async with cluster(tmp_path, sandboxes) as (api, victims, host):
            clock, ready, journal = tmp_path / "clock", tmp_path / "ready", tmp_path / "journal"
            await wait_for(lambda: api.is_ready() and ready.exists())
            victims.kill("agent")
            ready.unlink()
            victims.commands["agent"].append(str(clock))
            victims.start("agent")
            await wait_for(ready.exists)
            runtime = Runtime(tmp_path, sandboxes)
            journal.mkdir(exist_ok=True)
            for step in (DAY, -DAY):
                waiting, running, after = (f"{word}{step}" for word in ("waiting", "running", "after"))
                clock.write_text("0")
                assert (await runtime.call("ADD", waiting, 0))[0] == 0
                # A shim in the middle of keeping a DEL: the rest, and the name, come below.
                draft = journal / f".{waiting}.eth0.calico.99"
                draft.write_bytes(request(waiting)[:20])
                clock.write_text(str(step))
                assert (await runtime.call("ADD", running, 1))[0] == 0
                off = await clock_error(api.kubeconfig, running)
                assert abs(off - step) < DAY / 4, "the agent's clock was not set"
                assert await runtime.call("DEL", running, 1) == (0, {})
                # A replay looks at drafts first, then drops what it cannot read.
                broken = journal / "broken.del"
                broken.write_bytes(b"broken")
                await wait_for(lambda: not (journal / "broken.del").exists())
                assert draft.exists()
                draft.write_bytes(request(waiting))
                draft.rename(journal / f"{waiting}.eth0.calico.del")
                await wait_for(lambda: not list(journal.iterdir()))
                assert (await runtime.call("ADD", after, 0))[0] == 0
                clock.write_text("0")
                assert await runtime.call("DEL", after, 0) == (0, {})
                await wait_for(lambda: not list(journal.iterdir()))
            async with await connect(api.kubeconfig) as datastore:
                await ipam_audit.check(datastore)
                assert await ipam_audit.holders(datastore) == {}
                assert (await datastore.list(IPAMHandle)).items == []
            await wait_for(lambda: not [name for name in host.devices() if name.startswith("cali")])
