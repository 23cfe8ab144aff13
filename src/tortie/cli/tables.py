"""Text tables as calicoctl prints them: cells in, text out."""

from collections.abc import Sequence
from typing import Final

_GAP: Final = 3  # spaces between columns


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns without lines; every line ends with a newline."""
    widths = _widths(headings, rows)
    lines = [
        (" " * _GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]
    return "\n".join(lines) + "\n"


def boxed(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table framed by + - |, its headings centred; columns whose index is in `right` are right-aligned."""
    widths = _widths(headings, rows)
    frame = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    title = _framed([f"{text:^{width}}" for text, width in zip(headings, widths, strict=True)])
    body = [
        _framed(
            [
                cell.rjust(width) if index in right else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
        )
        for row in rows
    ]
    return "\n".join([frame, title, frame, *body, *([frame] if body else [])]) + "\n"


def _framed(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[index]) for row in (headings, *rows)) for index in range(len(headings))]
