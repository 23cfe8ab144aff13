"""The backends under test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.components import etcd as components
from tests.components.etcd import Etcd
from tortie.datastore.etcd import EtcdDatastore
from tortie.datastore.etcd_client import EtcdConfig
from tortie.datastore.interface import Datastore
from tortie.datastore.kubernetes import connect
from tortie.datastore.memory import MemoryDatastore


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One real etcd for the whole run; `reset()` it."""
    with components.running(Path(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture
async def etcd_store(etcd: Etcd) -> AsyncIterator[EtcdDatastore]:
    """A client of the real etcd, which is empty."""
    await asyncio.to_thread(etcd.reset)
    async with EtcdDatastore(EtcdConfig((etcd.url,))) as client:
        yield client


@pytest.fixture(params=["memory", "kubernetes", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Datastore]:
    """Each backend in turn, empty."""
    if request.param == "memory":
        yield MemoryDatastore()
    elif request.param == "etcd":
        server = request.getfixturevalue("etcd")
        await asyncio.to_thread(server.reset)
        async with EtcdDatastore(EtcdConfig((server.url,))) as client:
            yield client
    else:
        server = request.getfixturevalue("apiserver")
        await asyncio.to_thread(server.reset)
        async with await connect(server.kubeconfig) as kubernetes:
            yield kubernetes
