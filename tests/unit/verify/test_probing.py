"""Asking the probe pods: patience with what settles, honesty about what does not."""

from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.verify_probing import ProbeError, probe

from tests.unit.verify.healthy import SOURCE, TARGET, case

NODE = "worker-01"
INTERFACE = {"name": "eth0", "mtu": 1450, "mac": "m", "address": "a/32", "routes": [], "neighbours": []}


class Probe:
    """Answers like a probe pod. `deaf`: addresses without answer; `late`: how many questions fail first."""

    def __init__(self, *, deaf: tuple[str, ...] = (), late: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self._deaf = deaf
        self._late = late

    def __call__(self, address: str, _port: int, path: str, _seconds: float) -> dict[str, Any]:
        self.asked.append((address, path))
        if address in self._deaf:
            raise ProbeError(f"the probe at {address} does not answer")
        if path == "/interface":
            return dict(INTERFACE)
        if self._late > 0:
            self._late -= 1
            return {"connected": False, "detail": "no answer", "outcome": "timeout", "addresses": []}
        return {
            "connected": True,
            "detail": "",
            "answer": {"client": SOURCE[NODE]},
            "outcome": "reply",
            "largest": 1450,
            "above": "emsgsize",
            "addresses": ["10.96.0.1"],
        }


def test_source_pod_tries_every_target_and_service_and_searches_up_to_one_byte_more_than_its_mtu() -> None:
    asker = Probe()
    facts = probe(case().cluster, NODE, "kubernetes", 0, asker)
    assert set(facts["peers"]) == {"master-01", "worker-01"}
    assert set(facts["services"]) == {"tortie-verify", "kubernetes"}
    searches = [path for _address, path in asker.asked if path.startswith("/pmtu")]
    assert all("high=1451" in path for path in searches)
    assert {address for address, path in asker.asked if path != "/interface"} == {SOURCE[NODE]}
    assert facts["peers"]["master-01"]["seen_as"] == SOURCE[NODE]


def test_what_works_only_at_the_third_attempt_counts_as_working() -> None:
    late = case().cluster
    late.update({"targets": late["targets"][:1], "kubernetes_service": None, "probe_service": None})
    facts = probe(late, NODE, "kubernetes", 5, Probe(late=2))
    assert facts["peers"]["master-01"]["tcp"] is True


def test_path_mtu_is_not_searched_where_nothing_is_answered() -> None:
    asker = Probe(late=1000)
    facts = probe(case().cluster, NODE, "kubernetes", 0, asker)
    assert facts["peers"]["master-01"]["icmp"] is False
    assert facts["peers"]["master-01"]["largest"] == 0
    assert not any(path.startswith("/pmtu") for _address, path in asker.asked)


def test_deaf_source_is_told_and_nothing_is_claimed_for_it() -> None:
    facts = probe(case().cluster, NODE, "kubernetes", 0, Probe(deaf=(SOURCE[NODE],)))
    assert facts["peers"] == {}
    assert facts["services"] == {}
    assert facts["errors"] == [f"the probe at {SOURCE[NODE]} does not answer"]


def test_deaf_target_pod_of_the_own_node_is_told_and_the_rest_is_asked() -> None:
    facts = probe(case().cluster, NODE, "kubernetes", 0, Probe(deaf=(TARGET[NODE],)))
    assert list(facts["interfaces"]) == ["source"]
    assert set(facts["peers"]) == {"master-01", "worker-01"}
    assert len(facts["errors"]) == 1


def test_name_is_resolved_only_where_a_dns_service_runs() -> None:
    asker = Probe()
    probe(case().cluster, NODE, "kubernetes", 0, asker)
    assert not any(path.startswith("/resolve") for _address, path in asker.asked)
    with_dns = case().cluster
    with_dns["dns_service"] = {"address": "10.96.0.10", "port": 53, "ready": True}
    assert probe(with_dns, NODE, "kubernetes", 0, Probe())["dns_addresses"] == ["10.96.0.1"]
