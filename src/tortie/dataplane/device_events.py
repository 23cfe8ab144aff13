"""Events of the kernel about devices: learn at once that somebody deleted a tunnel or took it down."""

import errno
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

# linux/rtnetlink.h: groups to bind to, bits of sockaddr_nl.nl_groups.
_RTMGRP_LINK: Final = 0x1
_RTMGRP_IPV4_IFADDR: Final = 0x10
_NETLINK_ROUTE: Final = 0  # linux/netlink.h
_LARGEST: Final = 1 << 16  # bytes of one datagram; messages about one device have one to two thousand


class DeviceEvents:
    """Listens in the calling thread's namespace for changes of the devices called `names` and of their IPv4
    addresses. `read` never blocks; wait for `fileno` to be readable."""

    def __init__(self, names: Sequence[str]) -> None:
        # Names are attributes that end with a zero byte: IFLA_IFNAME and IFA_LABEL.
        self._marks = tuple(name.encode() + b"\0" for name in names)
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        try:
            self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def read(self) -> bool:
        """Take all events that are there; return whether one is about the devices, or some were lost.

        Every pod that comes or goes is an event: they are searched for the names, not decoded.
        """
        found = False
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
            else:
                found = found or any(mark in data for mark in self._marks)
