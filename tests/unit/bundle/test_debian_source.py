"""apt's source packages without touching the machine's configuration."""

from pathlib import Path

import pytest
from lab import LabError
from lab.bundle import debian, debian_source


def test_binary_sources_become_source_packages() -> None:
    text = "Types: deb\nURIs: http://archive.example/\nSuites: bookworm\nSigned-By: /k.gpg\n"
    assert debian_source.source_list(text) == text.replace("Types: deb", "Types: deb-src")


def test_every_stanza_is_turned() -> None:
    text = "Types: deb\nURIs: a\n\nTypes: deb\nURIs: b\n"
    assert debian_source.source_list(text).count("Types: deb-src\n") == 2


def test_versions_are_listed_once() -> None:
    text = "Package: kubernetes\nVersion: 2-1\n\nPackage: kubernetes\nVersion: 1-1\n\nVersion: 2-1\n"
    assert debian_source.parse_versions(text) == ["2-1", "1-1"]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (["1.20.5+really1.20.2-1.1+deb12u1"], "1.20.5+really1.20.2-1.1+deb12u1"),
        (["1.32.3-1", "1.20.2-1"], "1.20.2-1"),
        (["1:1.20.2+dfsg-3"], "1:1.20.2+dfsg-3"),
        (["1.20.2"], "1.20.2"),
        (["1.20.20-1"], None),
        (["11.20.2-1"], None),
        (["1.20.2+really1.19.4-1"], None),
        ([], None),
    ],
)
def test_version_is_recognised_behind_really(versions: list[str], expected: str | None) -> None:
    assert debian_source.choose_version(versions, "1.20.2") == expected


def test_code_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian"\n')
    assert debian_source.codename(tmp_path / "os-release") == "bookworm"


def test_distribution_without_code_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=arch\n")
    with pytest.raises(LabError, match="has no VERSION_CODENAME"):
        debian_source.codename(tmp_path / "os-release")


def test_recipe_changes_with_its_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pause.c").write_text("int main(void) { return 0; }")
    monkeypatch.setattr(debian, "_ASSETS", tmp_path)
    before = debian.recipe()
    assert debian.recipe() == before
    (tmp_path / "pause.c").write_text("int main(void) { return 1; }")
    assert debian.recipe() != before


def test_openapi_packages_are_those_with_the_tag(tmp_path: Path) -> None:
    tagged = "// +k8s:openapi-gen=true\n\npackage v1\n"
    files = {
        "pkg/apis/abac/v0/doc.go": "\n" + tagged,
        "pkg/apis/abac/v0/types.go": "package v0\n",
        "pkg/other/doc.go": "package other\n",
        "pkg/tests/doc_test.go": "\n" + tagged,
        "staging/api/core/v1/doc.go": "\n" + tagged,
        "staging/code-generator/doc.go": "\n" + tagged,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "vendor/k8s.io").mkdir(parents=True)
    for name in ("api", "code-generator"):
        (tmp_path / "vendor/k8s.io" / name).symlink_to(tmp_path / "staging" / name)
    assert debian.openapi_packages(tmp_path) == ["pkg/apis/abac/v0", "vendor/k8s.io/api/core/v1"]
