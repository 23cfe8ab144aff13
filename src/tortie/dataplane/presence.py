"""Whether a device is there, asked often: one ioctl, no dump."""

import socket


def device_index(name: str) -> int:
    """The kernel's index of a device here, 0 when there is none (netdevice(7), SIOCGIFINDEX)."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
