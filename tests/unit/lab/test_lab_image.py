"""What the image build reads out of the Containerfile and pyproject.toml."""

from pathlib import Path

import pytest
from lab import image, podman

CONTAINERFILE = image.CONTAINERFILE.read_text()
PYPROJECT = image.PYPROJECT.read_text()


def test_containerfile_names_base_and_packages() -> None:
    assert image.default_base(CONTAINERFILE) == "debian:bookworm-slim"
    assert {"python3", "python3-venv", "bird2", "nftables", "containernetworking-plugins"} <= set(
        image.containerfile_packages(CONTAINERFILE)
    )


def test_containerfile_without_package_list_is_refused() -> None:
    with pytest.raises(image.ImageError, match="ARG PACKAGES"):
        image.containerfile_packages("FROM x\n")


def test_project_changes_only_layers_after_the_dependencies() -> None:
    lines = CONTAINERFILE.splitlines()
    copies = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert copies == ["wheels/dependencies", "wheels/project"]


def test_requirements_come_from_pyproject() -> None:
    requirements = image.project_dependencies(PYPROJECT)
    assert any(item.startswith("aiohttp") for item in requirements)
    assert not any(item.startswith("pytest") for item in requirements)
    assert any(item.startswith("setuptools") for item in image.build_requirements(PYPROJECT))


def test_content_digest_depends_on_the_base() -> None:
    assert image.content_digest("sha256:1") == image.content_digest("sha256:1")
    assert image.content_digest("sha256:1") != image.content_digest("sha256:2")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("000001ffffffffff", True), ("000001fffeffffff", False), ("0000000000000000", False)],
)
def test_missing_cap_sys_resource_is_recognised(capabilities: str, expected: bool) -> None:
    status = f"Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{capabilities}\n"
    assert podman.can_raise_limits(status) is expected


def test_limits_are_set_only_where_they_are_needed() -> None:
    assert "default_ulimits" not in podman.containers_conf(Path("/run/x"), [])
    assert 'default_ulimits = ["nofile=20:20"]' in podman.containers_conf(Path("/run/x"), ["nofile=20:20"])
