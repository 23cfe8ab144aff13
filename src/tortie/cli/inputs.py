"""What `-f` names: files, directories and standard input, as single documents that know where they stand."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from tortie.cli.parsing import Parsed, ParseError, Path, parse

STDIN: Final = "-"
_SUFFIXES: Final = (".yaml", ".yml", ".json")  # what counts as a document in a directory


class InputError(Exception):
    """A file cannot be read or is no YAML; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Source:
    """One object as the user wrote it. `root` is where it stands inside its YAML document: empty, or
    `items`, n inside a list."""

    value: dict[str, Any]
    file: str
    parsed: Parsed
    root: Path = ()

    def line(self, path: Path) -> int:
        """The line of a field of this object, from 1."""
        return self.parsed.line((*self.root, *path))

    def place(self, path: Path = ()) -> str:
        """`pools.yaml:12 (document 2)`."""
        return f"{self.file}:{self.line(path)} (document {self.parsed.number})"


def load(name: str, recursive: bool = False) -> list[Source]:
    """Every object that `name` holds, lists taken apart. `name` is a file, `-` for standard input, or a
    directory (its files by name; with `recursive` those below it, too). Raise InputError."""
    return [document for file in _files(name, recursive) for document in _read(file)]


def _files(name: str, recursive: bool) -> Sequence[str]:
    path = FilePath(name)
    if name == STDIN or not path.is_dir():
        return [name]
    found = path.rglob("*") if recursive else path.glob("*")
    return [str(item) for item in sorted(found) if item.suffix in _SUFFIXES and item.is_file()]


def _read(name: str) -> Iterator[Source]:
    shown = "standard input" if name == STDIN else name
    try:
        data = sys.stdin.buffer.read() if name == STDIN else FilePath(name).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{shown}:{line} is not UTF-8 text.") from error
    try:
        for parsed in parse(text):
            yield from _objects(shown, parsed, parsed.value, ())
    except ParseError as error:
        raise InputError(f"{shown}:{error.line} {error}.") from error


def _objects(file: str, parsed: Parsed, value: Any, root: Path) -> Iterator[Source]:
    """The object at `root`, or those of the list there: `kind: IPPoolList`, `kind: List`, or `[...]`."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _objects(file, parsed, item, (*root, index))
        return
    if not isinstance(value, dict):
        raise InputError(f"{file}:{parsed.line(root)} has {value!r} where an object is expected.")
    kind = value.get("kind")
    items = value.get("items")
    if isinstance(kind, str) and kind.endswith("List") and (isinstance(items, list) or "spec" not in value):
        # Items of a typed list may leave out what the list says for all.
        common = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
        for index, item in enumerate(items or []):
            whole = {**common, **item} if isinstance(item, dict) and kind != "List" else item
            yield from _objects(file, parsed, whole, (*root, "items", index))
        return
    yield Source(value, file, parsed, root)
