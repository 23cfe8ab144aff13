"""Which datastore the agent and the controllers accept."""

import pytest

from tortie.datastore.choice import reasons_against

ENDPOINTS = "http://root:secret@10.0.0.1:2379"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"DATASTORE_TYPE": "kubernetes", "FELIX_DATASTORETYPE": "kubernetes"},
        {"DATASTORE_TYPE": " Kubernetes ", "FELIX_DATASTORETYPE": "", "ETCD_ENDPOINTS": " "},
        {"DATASTORE_TYPE": "kubernetes", "ETCD_ENDPOINTS": ENDPOINTS},
    ],
)
def test_kubernetes_datastore_is_accepted(environment: dict[str, str]) -> None:
    assert reasons_against(environment) == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DATASTORE_TYPE": "etcdv3"}, ["DATASTORE_TYPE is 'etcdv3'; it must be kubernetes or unset"]),
        ({"FELIX_DATASTORETYPE": "etcdv3"}, ["FELIX_DATASTORETYPE is 'etcdv3'; it must be"]),
        (
            {"DATASTORE_TYPE": "etcdv3", "FELIX_DATASTORETYPE": "x", "ETCD_ENDPOINTS": ENDPOINTS},
            ["DATASTORE_TYPE is 'etcdv3'", "FELIX_DATASTORETYPE is 'x'"],
        ),
        ({"ETCD_ENDPOINTS": ENDPOINTS}, ["ETCD_ENDPOINTS is set; unset it, or set DATASTORE_TYPE"]),
    ],
)
def test_each_variable_that_asks_for_etcd_is_named(environment: dict[str, str], said: list[str]) -> None:
    sentences = reasons_against(environment)
    assert len(sentences) == len(said)
    for sentence, start in zip(sentences, said, strict=True):
        assert sentence.startswith(start)


def test_password_in_an_endpoint_is_not_shown() -> None:
    assert "secret" not in "".join(reasons_against({"ETCD_ENDPOINTS": ENDPOINTS}))
