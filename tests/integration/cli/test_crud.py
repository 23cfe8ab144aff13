"""Every kind through its life: created, seen, patched, labelled, replaced, deleted."""

import json

import pytest
import yaml

from tests.components.etcd import Etcd
from tests.integration.cli.samples import SAMPLES, Document, Sample
from tests.integration.cli.tool import Tool
from tortie.cli.kinds import KINDS, kind_titled


def test_there_is_a_sample_of_every_kind_that_can_be_written() -> None:
    writable = {kind.title for kind in KINDS if not kind.refused and not kind.sources}
    assert {sample.kind for sample in SAMPLES} == writable


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.kind))
def test_kind_lives_from_create_to_delete(either: Tool, sample: Sample) -> None:
    tool = either
    document, kind, name = sample.document(), sample.alias, sample.name
    assert tool.write("create", document) == f"Successfully created 1 '{sample.kind}' resource(s)\n"

    seen = tool.get(kind, name)
    assert (seen["apiVersion"], seen["kind"]) == ("projectcalico.org/v3", sample.kind)
    assert seen["metadata"]["labels"] == {"made-by": "test"}
    assert sample.spec.items() <= seen["spec"].items()
    assert tool.get(kind)["items"] == [seen]
    lines = tool.ok("get", kind, "-o", "wide").splitlines()
    assert lines[0].split() == list(kind_titled(sample.kind).wide)
    assert sample.column in lines[1]

    patch = json.dumps({"spec": sample.patch})
    assert tool.ok("patch", kind, name, "-p", patch) == f"Successfully patched 1 '{sample.kind}' resource\n"
    patched = tool.get(kind, name)
    assert patched["spec"] == {**seen["spec"], **sample.patch}
    assert patched["metadata"]["uid"] == seen["metadata"]["uid"]

    assert (
        tool.ok("label", kind, name, "team=net") == f"Successfully set label team on {sample.kind} {name}\n"
    )
    assert tool.get(kind, name)["metadata"]["labels"] == {"made-by": "test", "team": "net"}
    tool.ok("label", kind, name, "team", "--remove")

    assert tool.write("replace", document) == f"Successfully replaced 1 '{sample.kind}' resource(s)\n"
    replaced = tool.get(kind, name)
    assert replaced["spec"] == seen["spec"]
    assert replaced["metadata"]["labels"] == {"made-by": "test"}

    assert tool.ok("delete", kind, name) == f"Successfully deleted 1 '{sample.kind}' resource(s)\n"
    assert tool.get(kind)["items"] == []
    assert f"{sample.kind} {name} does not exist" in tool.fails("delete", kind, name)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.kind))
def test_what_get_exports_can_be_applied(either: Tool, sample: Sample) -> None:
    tool = either
    tool.write("apply", sample.document())
    text = tool.ok("get", sample.alias, sample.name, "-o", "yaml", "--export")
    tool.ok("delete", sample.alias, sample.name)
    tool.ok("apply", "-f", "-", stdin=text)
    assert tool.ok("get", sample.alias, sample.name, "-o", "yaml", "--export") == text


def test_all_samples_at_once_pass_through_list_files_and_directories(tool: Tool) -> None:
    deeper = tool.scratch / "all" / "deeper"
    deeper.mkdir(parents=True)
    half = len(SAMPLES) // 2
    first = {"apiVersion": "v1", "kind": "List", "items": [item.document() for item in SAMPLES[:half]]}
    (tool.scratch / "all" / "a.json").write_text(json.dumps(first))
    (deeper / "b.yaml").write_text(yaml.safe_dump_all([item.document() for item in SAMPLES[half:]]))
    directory = str(tool.scratch / "all")
    assert (
        tool.ok("validate", "-f", directory, "-R") == f"Successfully validated {len(SAMPLES)} resource(s)\n"
    )
    assert tool.ok("apply", "-f", directory, "-R") == f"Successfully applied {len(SAMPLES)} resource(s)\n"
    assert tool.ok("delete", "-f", directory) == f"Successfully deleted {half} resource(s)\n"
    assert f"{half} of {len(SAMPLES)} resource(s) failed" in tool.fails("delete", "-f", directory, "-R")
    assert (
        tool.ok("delete", "-f", directory, "-R", "-s") == f"Successfully deleted {len(SAMPLES)} resource(s)\n"
    )


@pytest.mark.parametrize("kind", ["Node", "Profile", "WorkloadEndpoint"])
def test_etcd_holds_what_kubernetes_derives(etcd_tool: Tool, etcd: Etcd, kind: str) -> None:
    specs: dict[str, Document] = {
        "Node": {"bgp": {"ipv4Address": "10.30.200.1/24", "asNumber": 64600}},
        "Profile": {"ingress": [{"action": "Allow"}], "labelsToApply": {"a": "b"}},
        "WorkloadEndpoint": {"node": "n1", "pod": "p", "endpoint": "eth0", "interfaceName": "cali1"},
    }
    sample = Sample(kind, kind, specs[kind], {}, "", namespaced=kind == "WorkloadEndpoint")
    etcd_tool.write("create", sample.document())
    seen = etcd_tool.get(kind, "sample")
    assert (seen["kind"], seen["metadata"]["labels"]) == (kind, {"made-by": "test"})
    assert specs[kind].items() <= seen["spec"].items()
    etcd_tool.ok("label", kind, "sample", "x=1")
    assert etcd_tool.get(kind)["items"][0]["metadata"]["labels"] == {"made-by": "test", "x": "1"}
    etcd_tool.ok("delete", kind, "sample")
    assert etcd_tool.get(kind)["items"] == []
