"""The generated reference."""

from pathlib import Path

from tortie.cli.kinds import KINDS
from tortie.cli.main import main
from tortie.cli.reference import render

TARGET = Path(__file__).parents[3] / "docs" / "tortiectl-reference.md"


def test_reference_is_up_to_date() -> None:
    assert TARGET.read_text() == render(), (
        f"run python -m tortie.cli.reference > docs/{TARGET.name}: commands or kinds have changed"
    )


def test_reference_names_every_command_and_kind() -> None:
    text = render()
    for name in main.commands:
        assert f"## tortiectl {name}\n" in text
    for kind in KINDS:
        assert f"| {kind.title}" in text
