"""YAML and JSON text to plain values that remember the line each of them stands on.

YAML is read with PyYAML's composer, which keeps positions, and resolved here. Two readings differ from
PyYAML's, because Calico's documents are read by Go programs: `22:33` is text (a port range; YAML 1.1 calls it
a number to base 60) and a time stamp stays text.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path = tuple[str | int, ...]  # keys and indices from the document's root

# Values in one document. Aliases make a short text a huge document; no real one comes near this.
_MAX_VALUES: Final = 200_000
_NULL: Final = "tag:yaml.org,2002:null"
_INT: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = "tag:yaml.org,2002:float"
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_MERGE: Final = "tag:yaml.org,2002:merge"
_PLAIN_TAGS: Final = ("null", "bool", "int", "float", "str", "timestamp", "merge", "value")


class ParseError(ValueError):
    """The text is no YAML or JSON that we accept. `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Parsed:
    """One document: its value and the line of each value in it. `number` counts documents from 1."""

    value: Any
    number: int
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of `path` or, where nothing stands there, of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def render_path(path: Path) -> str:
    """`spec.ingress[0].action`; a key that has dots or spaces is quoted: `metadata.labels["a.b/c"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part or not part.replace("_", "").replace("-", "").replace("$", "").isalnum():
            text += f"[{json.dumps(part)}]"
        else:
            text += f".{part}" if text else part
    return text or "(document)"


def parse_path(text: str) -> Path:
    """The inverse of `render_path`, lenient: what cannot be read ends the path."""
    parts: list[str | int] = []
    rest = text
    while rest:
        if rest.startswith('["'):
            try:
                key, end = json.JSONDecoder().raw_decode(rest, 1)
            except ValueError:
                break
            parts.append(str(key))
            rest = rest[end + 1 :]
        elif rest.startswith("["):
            number, _bracket, rest = rest[1:].partition("]")
            parts.append(int(number) if number.isdecimal() else number)
        else:
            rest = rest.removeprefix(".")
            length = next((index for index, char in enumerate(rest) if char in ".["), len(rest))
            if not length:
                break
            parts.append(rest[:length])
            rest = rest[length:]
    return tuple(parts)


def parse(text: str) -> Iterator[Parsed]:
    """Every document of `text` that is not empty. Raise ParseError."""
    if text.lstrip()[:1] in ("{", "["):
        text = _without_tabs(text)
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise ParseError(f"is no YAML: {reason}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ParseError(f"has the character #x{error.character:04x}, which YAML forbids", line) from error
    except RecursionError as error:
        raise ParseError("is nested too deeply", 1) from error
    for number, node in enumerate(nodes, start=1):
        document = _Construction(number).document(node)
        if document.value is not None:
            yield document


def _without_tabs(text: str) -> str:
    """JSON allows tabs between its tokens and nowhere else; YAML does not. Length and lines stay."""
    if "\t" not in text:
        return text
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")


class _Construction:
    """Values out of one document's nodes."""

    def __init__(self, number: int) -> None:
        self._parsed = Parsed(None, number)
        self._values = 0
        self._scalars = yaml.SafeLoader("")
        self._open: set[int] = set()

    def document(self, node: Node) -> Parsed:
        try:
            self._parsed.value = self._value(node, ())
        except RecursionError as error:
            raise ParseError("is nested too deeply", _line(node)) from error
        return self._parsed

    def _value(self, node: Node, path: Path) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise ParseError(f"has more than {_MAX_VALUES} values", _line(node))
        self._parsed.lines.setdefault(path, _line(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise ParseError("contains itself (an alias inside its own anchor)", _line(node))
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own = [key.value for key, _value in node.value if isinstance(key, ScalarNode) and key.tag != _MERGE]
        if any(key.tag == _MERGE for key, _value in node.value):
            # Puts the merged entries first, so that the mapping's own override them.
            self._scalars.flatten_mapping(node)
        elif len(set(own)) != len(own):
            key_node = next(key for index, (key, _value) in enumerate(node.value) if key.value in own[:index])
            raise ParseError(f"has the key {key_node.value!r} twice in one mapping", _line(key_node))
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                raise ParseError("has a key that is no text", _line(key))
            place = (*path, key.value)
            # A value may begin on the next line; a person looks for its key.
            self._parsed.lines[place] = _line(key)
            result[key.value] = self._value(item, place)
        return result

    def _scalar(self, node: ScalarNode) -> Any:
        tag = node.tag
        if tag == _TIMESTAMP or (tag in (_INT, _FLOAT) and ":" in node.value):
            return node.value
        if tag.rpartition(":")[2] not in _PLAIN_TAGS:
            raise ParseError(f"has the tag {tag!r}; only plain values are accepted", _line(node))
        value = self._scalars.construct_object(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise ParseError(f"has {node.value}, which is no number in JSON", _line(node))
        return value


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
