"""What an allocator goes by besides blocks: pools, reservations, configuration, labels of its node."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from tortie.datastore.informer import Informer
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.ipam.block import Network
from tortie.ipam.pools import needs_labels, reserved_networks
from tortie.model.resources import IPAMConfig, IPAMConfigSpec, IPPool, IPReservation, Node

MAX_AGE: Final = 1.0  # seconds: no more out of date than a watch may be


@dataclass(frozen=True, slots=True)
class Setting:
    """One picture of it. `labels` are the node's."""

    pools: Sequence[IPPool]
    reserved: tuple[Network, ...]
    config: IPAMConfigSpec
    labels: Mapping[str, str]

    @property
    def cooldown(self) -> timedelta:
        """How long a released address is given to nobody."""
        return timedelta(seconds=self.config.ip_cooldown_seconds or 0)


class Surroundings(Protocol):
    """Where an allocator gets its setting from."""

    async def current(self, fresh: bool = False) -> Setting:
        """The setting; `fresh`: as it is now, whatever that costs. Raise a DatastoreError."""


class ReadSurroundings:
    """Asks the datastore, and believes the answer for `max_age` seconds. No node, no labels."""

    def __init__(
        self,
        datastore: Datastore,
        node: str = "",
        max_age: float = MAX_AGE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._max_age = max_age
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._setting: Setting | None = None
        self._asked_at = 0.0

    async def current(self, fresh: bool = False) -> Setting:
        """See `Surroundings.current`. Callers that come while it is being read share the answer."""
        called_at = self._monotonic()
        oldest = called_at if fresh else called_at - self._max_age
        if self._setting is None or self._asked_at < oldest:
            async with self._lock:
                if self._setting is None or self._asked_at < oldest:
                    asked_at = self._monotonic()
                    self._setting = await self._read()
                    self._asked_at = asked_at
        return self._setting

    async def _read(self) -> Setting:
        pools, reservations, config = await asyncio.gather(
            self._datastore.list(IPPool), self._datastore.list(IPReservation), self._config()
        )
        labels: Mapping[str, str] = {}
        if self._node and needs_labels(pools.items):
            with suppress(NotFoundError):  # without its Node, it has none
                labels = (await self._datastore.get(Node, self._node)).metadata.labels
        return Setting(pools.items, reserved_networks(reservations.items), config, labels)

    async def _config(self) -> IPAMConfigSpec:
        try:
            return (await self._datastore.get(IPAMConfig, "default")).spec
        except NotFoundError:
            return IPAMConfigSpec()


class WatchedSurroundings:
    """Reads nothing itself: somebody runs these informers. A fresh setting is asked of the datastore."""

    def __init__(
        self,
        datastore: Datastore,
        node: str,
        *,
        pools: Informer[IPPool],
        reservations: Informer[IPReservation],
        configs: Informer[IPAMConfig],
        nodes: Informer[Node],
    ) -> None:
        self._node = node
        self._pools, self._reservations, self._configs, self._nodes = pools, reservations, configs, nodes
        self._direct = ReadSurroundings(datastore, node, max_age=0.0)

    async def current(self, fresh: bool = False) -> Setting:
        """See `Surroundings.current`."""
        informers = (self._pools, self._reservations, self._configs, self._nodes)
        if fresh or not all(informer.synced.is_set() for informer in informers):
            return await self._direct.current(fresh=True)
        config = self._configs.items.get(("", "default"))
        node = self._nodes.items.get(("", self._node))
        return Setting(
            list(self._pools.items.values()),
            reserved_networks(self._reservations.items.values()),
            config.spec if config else IPAMConfigSpec(),
            node.metadata.labels if node else {},
        )
