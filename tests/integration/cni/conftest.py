"""A node, and containers' namespaces; files with other needs have fixtures of their own under these names."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.cni.node import TestNode, running
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import installer


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    """One node with the shim that most hosts get."""
    async with running(tmp_path) as made:
        yield made


@pytest.fixture(params=[installer.FAST_SHIM, installer.PORTABLE_SHIM], ids=["perl", "python"])
async def any_node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[TestNode]:
    """A node with either of the shims."""
    async with running(tmp_path, shim=request.param) as made:
        yield made


@pytest.fixture
def sandboxes() -> Iterator[list[Namespace]]:
    """Two containers' network namespaces."""
    with namespaces(2) as made:
        yield made
