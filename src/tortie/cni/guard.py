"""What the CNI server asks of policy, so that no pod is open before its policy is in force."""

from typing import Protocol

from tortie.model.endpoints import WorkloadEndpoint


class EndpointPolicy(Protocol):
    """Programs a pod's policy on request. Implemented by the agent."""

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """Return when the endpoint's policy is in force in the kernel. Called during ADD, before the answer.

        Raise DataplaneError when it cannot be programmed; the ADD then fails and is taken back."""

    async def endpoint_gone(self, interface: str) -> None:
        """The interface was removed by DEL: its rules can go. Never waits for the kernel."""
