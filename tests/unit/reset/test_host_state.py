"""Two moments of a machine compared: everything counts but what is listed as changing by itself."""

from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import host_state


def test_same_state_has_no_differences() -> None:
    state = {"routes": ["a", "b"], "links": []}
    assert host_state.compare(state, {**state}) == []


def test_gone_and_new_lines_are_named_with_their_section() -> None:
    found = host_state.compare({"routes": ["a", "b"]}, {"routes": ["b", "c"], "sets": ["KUBE-X"]})
    assert found == ["routes: - a", "routes: + c", "sets: + KUBE-X"]


@pytest.mark.parametrize("change", ["content", "mode", "new", "gone", "link"])
def test_every_change_of_a_file_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(host_state, "FOLDERS", (str(tmp_path),))
    place = tmp_path / "file"
    place.write_text("text")
    (tmp_path / "link").symlink_to("file")
    before = {"files": host_state.files(False)}
    if change == "content":
        place.write_text("test")
    elif change == "mode":
        place.chmod(0o600)
    elif change == "new":
        (tmp_path / "empty folder").mkdir()
    elif change == "gone":
        place.unlink()
    else:
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("other")
    assert host_state.compare(before, {"files": host_state.files(False)})


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("net.netfilter.nf_conntrack_count", True),
        ("net.netfilter.nf_conntrack_max", False),
        ("kernel.random.uuid", True),
        ("kernel.panic", False),
        ("fs.file-nr", True),
        ("fs.file-max", False),
        ("net.ipv4.ip_forward", False),
        ("net.ipv4.conf.eth0.rp_filter", False),
        ("net.ipv6.conf.eth0.stable_secret", True),
    ],
)
def test_kernel_settings_that_are_left_out(name: str, left_out: bool) -> None:
    assert host_state.matches(name, host_state.VOLATILE_SYSCTLS) is left_out


@pytest.mark.parametrize(
    ("unit", "left_out"),
    [("kubelet.service", False), ("containerd.service", False), ("kubepods.slice", False), ("a.timer", True)],
)
def test_units_that_are_left_out(unit: str, left_out: bool) -> None:
    assert bool(host_state.VOLATILE_UNITS.fullmatch(unit)) is left_out


def test_every_exclusion_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs/reset.md").read_text()
    names = [Path(path).name for path in {**host_state.VOLATILE_PATHS, **host_state.PACKAGE_PATHS}]
    assert [name for name in names if name not in text] == []
