"""Entering a network namespace for a moment.

`setns(2)` moves only the calling thread, and a socket stays bound to the namespace it was created in. So a
namespace is entered, sockets are created, and the thread returns; no await may stand in between.
"""

import ctypes
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000  # linux/sched.h
# /proc/self is the process's first thread, which is not the caller when an executor runs us.
OWN = "/proc/thread-self/ns/net"
_OWN_PATH = Path(OWN)
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
EX_OSERR = 71  # sysexits.h

# It keeps the interpreter to itself: to get it back would take longer than setns.
_libc = ctypes.PyDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace behind `fd`. Raise OSError."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(CLONE_NEWNET)) != 0:
        error = ctypes.get_errno()
        raise OSError(
            error, f"setns: descriptor {fd} is not a network namespace to enter: {os.strerror(error)}"
        )


def is_foreign_namespace(fd: int) -> bool:
    """Whether `fd` is a network namespace, and another one than the caller's."""
    try:
        if fcntl.ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET:
            return False
    except OSError:
        return False
    return not os.path.samestat(os.fstat(fd), _OWN_PATH.stat())


@contextmanager
def entered(fd: int | None) -> Iterator[None]:
    """Run the body in namespace `fd` (None: stay). What the body opens belongs to that namespace."""
    if fd is None:
        yield
        return
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd)
        try:
            yield
        finally:
            _return_to(home)
    finally:
        os.close(home)


def _return_to(home: int) -> None:
    """Go back, or end the process: a thread left in a pod would program the pod as if it were the node."""
    try:
        setns(home)
    except OSError as error:
        sys.stderr.write(f"cannot return to the node's network namespace, giving up: {error}\n")
        sys.stderr.flush()
        os._exit(EX_OSERR)
