"""Fixtures for every test."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.components import apiserver as components
from tests.components.apiserver import ApiServer
from tortie.datastore.kubernetes import KubernetesDatastore, connect

# How fast a machine is busy with other things says nothing about the program.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One real API server for the whole run; `reset()` it, or use `datastore`, which does."""
    with components.running(Path(tmp_path_factory.mktemp("apiserver"))) as server:
        yield server


@pytest.fixture
async def datastore(apiserver: ApiServer) -> AsyncIterator[KubernetesDatastore]:
    """A client of the real API server, which has no object of our kinds left from other tests."""
    await asyncio.to_thread(apiserver.reset)
    async with await connect(apiserver.kubeconfig) as client:
        yield client


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without root, what needs it fails with a sentence: a skip would look like success."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("This test makes network namespaces or containers: run it as root (make test).", False)
