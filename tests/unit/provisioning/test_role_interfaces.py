"""Each public variable has one owner, one default and one description, and they agree."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = ["preflight", "node", "containerd", "kubernetes", "control_plane", "worker", "reset"]
# No default is safe for these; kubernetes_api_endpoint's is an expression that the description puts in words.
WITHOUT_DEFAULT = {"kubernetes_version", "kubernetes_node_ip"}
DEFAULT_IN_WORDS = {"kubernetes_api_endpoint"}


def defaults(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text()))


def options(role: str) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    return dict(document["argument_specs"]["main"]["options"])


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_their_role(role: str) -> None:
    assert all(name.startswith(f"{role}_") for name in [*defaults(role), *options(role)])


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_a_default_and_a_description(role: str) -> None:
    assert set(options(role)) - WITHOUT_DEFAULT == set(defaults(role))
    assert all(option.get("description") for option in options(role).values())


@pytest.mark.parametrize("role", ROLES)
def test_documented_defaults_are_the_real_ones(role: str) -> None:
    real = defaults(role)
    documented = {name: option.get("default") for name, option in options(role).items()}
    for name in set(real) - DEFAULT_IN_WORDS:
        assert documented[name] == real[name], name


@pytest.mark.parametrize("role", ROLES)
def test_readme_names_every_variable(role: str) -> None:
    text = (ROOT / "roles" / role / "README.md").read_text()
    assert [name for name in options(role) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("role", ROLES)
def test_reason_stands_beside_every_default(role: str) -> None:
    lines = (ROOT / "roles" / role / "defaults/main.yml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{role}_"):
            above = lines[number - 1]
            assert above.startswith(("#", f"{role}_")), line
