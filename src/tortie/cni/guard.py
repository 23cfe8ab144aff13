"""What the CNI server asks of the agent: a pod's policy in force before it runs, its floating addresses."""

from typing import Protocol

from tortie.model.endpoints import WorkloadEndpoint


class EndpointPolicy(Protocol):
    """Programs a pod's policy on request. Implemented by the agent."""

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """Return when the endpoint's policy is in force in the kernel. Called during ADD, before the answer.

        Raise DataplaneError when it cannot be programmed; the ADD then fails and is taken back."""

    async def endpoint_gone(self, interface: str) -> None:
        """The interface was removed by DEL: its rules can go. Never waits for the kernel."""


class FloatingAddresses(Protocol):
    """Has addresses lead to pods that do not have them. Implemented by the agent."""

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """Return when the endpoint's floating addresses lead to it. Called during ADD for every pod, when its
        interface stands: an address that floats to somebody else is the pod's own from now on.

        Raise FloatingError when it cannot have one of them, DataplaneError when the kernel refuses."""

    async def endpoint_gone(self, interface: str) -> None:
        """The interface was removed by DEL. Return when nothing is translated to its addresses any more.

        Raise DataplaneError."""

    async def differences(self, interface: str) -> list[str]:
        """For CHECK: what is not in the kernel as it should be, one sentence each. Raise DataplaneError."""
