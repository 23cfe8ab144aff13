"""Which provider makes which version."""

from pathlib import Path

import pytest
from lab import LabError
from lab.bundle import choice, official
from lab.bundle.choice import Choice, choose

from tests.unit.bundle.samples import write_bundle, write_manifest


@pytest.mark.parametrize(
    ("version", "provider", "site_answers", "expected"),
    [
        (None, "auto", True, Choice("official", "1.20.2")),
        (None, "auto", False, Choice("debian", "1.20.2")),
        ("1.20.2", "auto", True, Choice("official", "1.20.2")),
        ("v1.20.2", "auto", False, Choice("debian", "1.20.2")),
        ("1.33.8", "auto", True, Choice("official", "1.33.8")),
        ("1.33.8", "auto", False, Choice("official", "1.33.8")),
        ("1.20.2", "debian", True, Choice("debian", "1.20.2")),
        (None, "debian", True, Choice("debian", "1.20.2")),
        ("1.20.2", "official", False, Choice("official", "1.20.2")),
        ("1.27.0", "official", False, Choice("official", "1.27.0")),
    ],
)
def test_provider_follows_request_and_internet(
    version: str | None, provider: str, site_answers: bool, expected: Choice
) -> None:
    assert choose(version, provider, site_answers) == expected


def test_debian_cannot_make_another_version() -> None:
    with pytest.raises(
        LabError, match=r"can only make Kubernetes 1\.20\.2, and kubernetes_version is 1\.33\.8"
    ):
        choose("1.33.8", "debian", site_answers=True)


def test_unknown_version_names_it_the_known_and_the_pinned() -> None:
    with pytest.raises(LabError, match=r"1\.50\.2.* 1\.20 to 1\.37.* 1\.33\.8, 1\.34\.4, 1\.35\.1"):
        choose("1.50.2", "auto", site_answers=True)


def test_unknown_provider_is_refused() -> None:
    with pytest.raises(LabError, match="'ubuntu' is unknown"):
        choose(None, "ubuntu", site_answers=True)


def test_unknown_version_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORTIE_CACHE", str(tmp_path))
    unreachable = official.Sources(kubernetes="http://127.0.0.1:1")
    with pytest.raises(LabError, match=r"kubernetes_version is 1\.19\.0"):
        choice.obtain(choice.Request(version="1.19.0", sources=unreachable))
    assert not list(tmp_path.rglob("kubernetes-*"))


def test_cached_bundle_of_any_provider_serves_auto(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    assert choice.current(tmp_path, "auto") is not None
    assert choice.current(tmp_path, "debian") is None


def test_bundle_of_an_older_debian_recipe_is_made_again(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    write_manifest(tmp_path, {**manifest, "provider": "debian", "recipe": "older"})
    assert choice.current(tmp_path, "auto") is None


def test_bundle_made_elsewhere_is_used_when_it_is_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    assert choice.use(tmp_path, "1.20.2", "amd64") == tmp_path


def test_bundle_made_elsewhere_is_refused_with_every_problem(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").unlink()
    (tmp_path / "bin/kubeadm").write_bytes(b"#!kubeadn")
    with pytest.raises(LabError) as caught:
        choice.use(tmp_path, None, "amd64")
    assert "bin/kubelet is missing" in str(caught.value)
    assert "bin/kubeadm has SHA-256" in str(caught.value)
