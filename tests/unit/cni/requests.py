"""Requests for tests, made of environment and configuration as the shim sends them."""

import json
from collections.abc import Callable
from typing import Any

from tortie.cni import config
from tortie.cni.errors import CNIError

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0123456789abcdef",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_TYPE": "calico",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico"}


def payload(environment: dict[str, str], text: bytes) -> bytes:
    """What the shim sends."""
    return b"\0".join(f"{key}={value}".encode() for key, value in environment.items()) + b"\0\0" + text


def parse(environment: dict[str, str] | None = None, **fields: Any) -> config.Request:
    """A request with changed variables and fields; a field of `...` is left out."""
    text = json.dumps({key: value for key, value in (CONFIG | fields).items() if value is not ...}).encode()
    return config.parse(payload(ENVIRONMENT | (environment or {}), text))


def refusal(call: Callable[[], object]) -> int:
    """The code that a call is refused with, 0 when it is not. Any other error is passed on."""
    try:
        call()
    except CNIError as error:
        return error.code
    return 0
