"""Links between a test's namespaces, ready for packets."""

import json
import time
from collections.abc import Callable


def wait_for_carrier(ip: Callable[..., str], *devices: str) -> None:
    """Until the kernel has noticed that devices have a carrier, some time after the other end went up: before
    that, what they should send is lost without a word. `ip` calls ip(8) where they are."""
    for device in devices:
        for _try in range(1000):
            (shown,) = json.loads(ip("-j", "link", "show", "dev", device))
            if shown["operstate"] == "UP":
                break
            time.sleep(0.02)
        else:
            raise AssertionError(f"{device} has no carrier: {shown}")
