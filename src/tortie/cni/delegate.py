"""Addresses from another IPAM plugin (CNI SPEC, section 4): host-local, static, ...

The plugin is executed, not imitated: its store, its locks and its options stay those that every other
network on the host uses with it. It runs on the host's file system: the root directory of the shim that waits
for our answer (/proc/<pid>/root), or for a DEL out of the journal that of the host's first process.
"""

import asyncio
import contextlib
import copy
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import msgspec

from tortie.cni import errors
from tortie.cni.config import Request
from tortie.cni.errors import CNIError
from tortie.cni.netconf import interface_of
from tortie.cni.result import Assignment, in_order
from tortie.dataplane.workload_link import DEFAULT_ROUTES, Network
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.model.base import Resource, ResourceType

SECONDS: Final = 30.0
HOST_ROOT: Final = Path("/proc/1/root")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_POD_CIDRS: Final = {"usePodCidr": 4, "usePodCidrIPv6": 6}
# What the plugin says about code and reason counts only in the SPEC's own range (section 5).
_FOREIGN_CODES: Final = range(1, 100)


class NodeRangesSpec(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 Node spec, the ranges that kube-controller-manager gave to the node."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] = msgspec.field(name="podCIDRs", default_factory=list)


class NodeRanges(Resource, kw_only=True):
    """core/v1 Node, read for its ranges."""

    resource_type = ResourceType("v1", "Node", "nodes")
    spec: NodeRangesSpec = msgspec.field(default_factory=NodeRangesSpec)


class _Route(msgspec.Struct, kw_only=True):
    dst: str


class _IP(msgspec.Struct, kw_only=True):
    address: str


class _Result(msgspec.Struct, kw_only=True):
    ips: list[_IP] = []
    routes: list[_Route] = []
    dns: dict[str, Any] = {}


class Delegate:
    """Calls IPAM plugins for one node."""

    def __init__(self, datastore: Datastore, node: str, host_root: Path) -> None:
        self._datastore = datastore
        self._node = node
        self._host_root = host_root

    async def assign(self, request: Request, process: int) -> Assignment:
        """The addresses of a container. `process` is the shim's. Raise CNIError or DatastoreError."""
        output = await self._run(request, "ADD", process)
        try:
            result = msgspec.json.decode(output, type=_Result)
        except msgspec.DecodeError as error:
            raise _failure(request, f"its answer is not a result: {error}") from error
        where = f"the answer of {request.config.ipam.type}"
        addresses = in_order([interface_of(item.address, where).ip for item in result.ips])
        if not addresses:
            raise _failure(request, "it gave no address; one is needed")
        return Assignment(addresses, destinations(request, [item.dst for item in result.routes]), result.dns)

    async def release(self, request: Request, process: int | None) -> None:
        """Give the addresses back; `process` is None when the shim is gone.

        Raise CNIError or DatastoreError."""
        await self._run(request, "DEL", process)

    async def ask(self, request: Request, process: int) -> None:
        """Pass CHECK, STATUS or GC on. Raise CNIError or DatastoreError."""
        await self._run(request, request.command, process)

    async def _run(self, request: Request, command: str, process: int | None) -> bytes:
        kind = request.config.ipam.type
        if not _NAME.fullmatch(kind):
            raise CNIError(errors.BAD_CONFIG, f"ipam.type is {kind!a}; it must be the name of a plugin")
        root = Path(f"/proc/{process}/root") if process else self._host_root
        program = _find(request, root)
        config = msgspec.json.encode(await self._with_ranges(request.raw))
        environment = {key: text for key, text in request.environment.items() if key.startswith("CNI_")}
        environment |= {"CNI_COMMAND": command, "PATH": os.environ.get("PATH", os.defpath)}
        running = await asyncio.create_subprocess_exec(
            "chroot",
            root,
            program,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(SECONDS):
                output, _ = await running.communicate(config)
        except TimeoutError as error:
            raise CNIError(
                errors.TRY_LATER, f"the IPAM plugin {kind} took more than {SECONDS:.0f} s"
            ) from error
        finally:
            if running.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    running.kill()
                await running.wait()
        if running.returncode:
            raise _refusal(request, output, running.returncode)
        return output

    async def _with_ranges(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with `usePodCidr` replaced by the node's own range."""
        config = copy.deepcopy(dict(raw))
        ipam = config.get("ipam")
        places = [ipam, *_ranges(ipam)]
        places = [place for place in places if isinstance(place, dict) and place.get("subnet") in _POD_CIDRS]
        if not places:
            return config
        try:
            spec = (await self._datastore.get(NodeRanges, self._node)).spec
        except NotFoundError:
            spec = NodeRangesSpec()
        ranges = reversed([*spec.pod_cidrs, spec.pod_cidr])
        known: dict[int, str] = {ip_network(text).version: text for text in ranges if text}
        for place in places:
            wanted = place["subnet"]
            if _POD_CIDRS[wanted] not in known:
                raise CNIError(
                    errors.TRY_LATER,
                    f"ipam.subnet is {wanted}, and node {self._node} has no such range (spec.podCIDRs); "
                    "let kube-controller-manager allocate node ranges, or write the range out",
                )
            place["subnet"] = known[_POD_CIDRS[wanted]]
        return config


def destinations(request: Request, routes: list[str]) -> tuple[Network, ...]:
    """Where the container may send through us: what the IPAM plugin says, else everywhere."""
    found: list[Network] = []
    for text in routes:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError as error:
            raise _failure(request, f"its route to {text!a} is none: {error}") from error
    if not found:
        return DEFAULT_ROUTES
    if request.config.include_default_routes:
        found += [route for route in DEFAULT_ROUTES if route not in found]
    return tuple(dict.fromkeys(found))


def configured_routes(request: Request) -> list[str]:
    """The destinations in the `ipam` section, where host-local and static keep them."""
    routes = (request.raw.get("ipam") or {}).get("routes") or []
    return [route["dst"] for route in routes if isinstance(route, dict) and isinstance(route.get("dst"), str)]


def _ranges(ipam: Any) -> list[Any]:
    """host-local's `ranges`: a list of lists of ranges."""
    sets = ipam.get("ranges") if isinstance(ipam, dict) else None
    return [place for group in sets or [] if isinstance(group, list) for place in group]


def _find(request: Request, root: Path) -> str:
    directories = [
        part for part in request.environment.get("CNI_PATH", "").split(":") if part.startswith("/")
    ]
    for directory in directories:
        path = f"{directory}/{request.config.ipam.type}"
        if os.access(f"{root}{path}", os.X_OK):
            return path
    raise CNIError(
        errors.BAD_CONFIG,
        f"ipam.type is {request.config.ipam.type}: there is no such plugin in CNI_PATH "
        f"({':'.join(directories) or 'empty'}); install it, or use calico-ipam",
    )


def _failure(request: Request, reason: str) -> CNIError:
    return CNIError(errors.DELEGATE_FAILED, f"the IPAM plugin {request.config.ipam.type} failed: {reason}")


def _refusal(request: Request, output: bytes, status: int) -> CNIError:
    try:
        error = msgspec.json.decode(output)
        code, message = int(error["code"]), f"{error['msg']}"
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return _failure(request, f"it ended with status {status}")
    failure = _failure(request, message)
    return CNIError(code, str(failure)) if code in _FOREIGN_CODES else failure
