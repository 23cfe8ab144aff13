"""tortiectl with a real datastore that has no objects of the network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import etcd as components
from tests.components.apiserver import ApiServer
from tests.components.etcd import Etcd
from tests.integration.cli.tool import Tool


@pytest.fixture
def tool(apiserver: ApiServer, tmp_path: Path) -> Tool:
    """Against an API server."""
    apiserver.reset()
    return Tool(apiserver, tmp_path)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One real etcd for a module."""
    with components.running(Path(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture
def etcd_tool(apiserver: ApiServer, etcd: Etcd, tmp_path: Path) -> Tool:
    """Against an etcd."""
    etcd.reset()
    return Tool(apiserver, tmp_path, etcd.url)


@pytest.fixture(params=["kubernetes", "etcd"])
def either(request: pytest.FixtureRequest) -> Tool:
    """Against each of the two."""
    found = request.getfixturevalue("tool" if request.param == "kubernetes" else "etcd_tool")
    assert isinstance(found, Tool)
    return found
