"""Which datastore a process may work on: the agent and the controllers need Kubernetes'."""

from collections.abc import Mapping
from typing import Final

_KUBERNETES: Final = "kubernetes"
# Of calico-node and of kube-controllers, and Felix' own name for the same.
_TYPES: Final = ("DATASTORE_TYPE", "FELIX_DATASTORETYPE")
_WHY: Final = "the pods and nodes of Kubernetes, without which nothing can be done here, are not in etcd."


def reasons_against(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that asks for another datastore than Kubernetes.

    To ignore them would look like working. An empty value counts as unset. Endpoints of etcd alone mean etcd,
    as in Calico's manifests for it, which name no type; beside the type `kubernetes` they mean nothing.
    """
    types = {name: environment.get(name, "").strip() for name in _TYPES}
    sentences = [
        f"{name} is {value!r}; it must be kubernetes or unset: {_WHY}"
        for name, value in types.items()
        if value.lower() not in ("", _KUBERNETES)
    ]
    if environment.get("ETCD_ENDPOINTS", "").strip() and not types["DATASTORE_TYPE"]:
        # The value may hold a password (http://user:password@host), so it is not shown.
        sentences.append(
            f"ETCD_ENDPOINTS is set; unset it, or set DATASTORE_TYPE to kubernetes: {_WHY}",
        )
    return sentences
