"""A netfilter socket that is kept.

Closing one takes nf_tables' commit mutex and waits there until the kernel has cleared up after the last
transaction (nft_rcv_nl_event in net/netfilter/nf_tables_api.c): some 20 ms, in which nobody's transaction in
this network namespace goes on. So whoever works beside the transactions keeps its socket open.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tortie.dataplane import netns
from tortie.dataplane.nfnetlink import Netfilter, TransactionError

_OWN = Path(netns.OWN)


class KeptSocket:
    """A socket in the calling thread's network namespace, for one thread at a time: others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kernel: tuple[tuple[int, int], Netfilter] | None = None  # a namespace, and a socket in it

    @contextmanager
    def use(self) -> Iterator[Netfilter]:
        """The socket; another one when the thread is in another namespace than the last. One on which
        something else than a refused transaction went wrong may be out of step, so it is not used again."""
        with self._lock:
            status = _OWN.stat()
            namespace = status.st_dev, status.st_ino
            if self._kernel is None or self._kernel[0] != namespace:
                self._close()
                self._kernel = namespace, Netfilter()
            try:
                yield self._kernel[1]
            except TransactionError:
                raise
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Give the socket back; the next use opens another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._kernel is not None:
            self._kernel[1].close()
            self._kernel = None
