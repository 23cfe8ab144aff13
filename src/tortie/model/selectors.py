"""Label selectors of Calico's policy language: parsing, canonical text, matching.

    expression = conjunction { "||" conjunction }
    conjunction = operation { "&&" operation }
    operation = { "!" } ( "(" expression ")" | "all()" | "global()" | "has(" label ")" | comparison )
    comparison = label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
               | label ( "in" | "not in" ) "{" [ string { "," string } ] "}"

A label is 1 to 512 characters of A-Z a-z 0-9 _ . / -, a string stands in ' or " without escapes. An empty
selector is `all()`. `!=` and `not in` also match where the label is absent.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Final

MAX_LABEL: Final = 512  # characters of a label's name in a selector; Calico's limit
# Operators and parentheses inside each other. Without a limit, a long row of "(" would exhaust the stack.
MAX_DEPTH: Final = 64
_CACHED_SELECTORS: Final = 16384  # a policy of every one of 5,000 pods has three of them

_SPACE: Final = re.compile(r"[ \t]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_./-]+")
_STRING: Final = re.compile(r""""([^"]*)"|'([^']*)'""")
_CALL: Final = re.compile(r"(all|global)\([ \t]*\)|has\([ \t]*([A-Za-z0-9_./-]*)[ \t]*(\)?)")
_OPERATOR: Final = re.compile(
    r"==|!=|contains|starts[ \t]*with|ends[ \t]*with|in|not[ \t]*in",
)

Labels = Mapping[str, str]


class SelectorError(ValueError):
    """A selector that cannot be read. `position` counts characters from 0."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(f"Selector {text!r}, character {position + 1}: {reason}.")
        self.text = text
        self.position = position
        self.reason = reason


Needs = Mapping[str, frozenset[str] | None]


@dataclass(frozen=True, slots=True)
class Everything:
    """`all()` or `global()`, which differ only inside a namespaceSelector."""

    name: str

    def matches(self, labels: Labels) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return f"{self.name}()"


@dataclass(frozen=True, slots=True)
class Has:
    """`has(label)`."""

    label: str

    def matches(self, labels: Labels) -> bool:
        """Whether the label is there, whatever its value."""
        return self.label in labels

    def __str__(self) -> str:
        return f"has({self.label})"


@dataclass(frozen=True, slots=True)
class Equal:
    """`label == value`, or `!=` when negated."""

    label: str
    value: str
    negated: bool = False

    def matches(self, labels: Labels) -> bool:
        """Negated also matches where the label is absent."""
        return (labels.get(self.label) == self.value) is not self.negated

    def __str__(self) -> str:
        return f"{self.label} {'!=' if self.negated else '=='} {_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class In:
    """`label in {...}`, or `not in` when negated."""

    label: str
    values: frozenset[str]
    negated: bool = False

    def matches(self, labels: Labels) -> bool:
        """Negated also matches where the label is absent."""
        return (labels.get(self.label) in self.values) is not self.negated

    def __str__(self) -> str:
        values = ", ".join(_quoted(value) for value in sorted(self.values))
        return f"{self.label} {'not in' if self.negated else 'in'} {{{values}}}"


_PARTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": lambda value, part: part in value,
    "starts with": str.startswith,
    "ends with": str.endswith,
}


@dataclass(frozen=True, slots=True)
class Part:
    """`label contains value`, `starts with`, `ends with`; never matches where the label is absent."""

    label: str
    operator: str
    value: str

    def matches(self, labels: Labels) -> bool:
        """Whether the label is there and its value has the part."""
        value = labels.get(self.label)
        return value is not None and _PARTS[self.operator](value, self.value)

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: "Node"

    def matches(self, labels: Labels) -> bool:
        """The opposite."""
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!{self.operand}"


@dataclass(frozen=True, slots=True)
class And:
    """All operands."""

    operands: "tuple[Node, ...]"

    def matches(self, labels: Labels) -> bool:
        """Stops at the first that does not match."""
        for operand in self.operands:  # a generator inside all() would cost twice the time
            if not operand.matches(labels):
                break
        else:
            return True
        return False

    def __str__(self) -> str:
        return f"({' && '.join(map(str, self.operands))})"


@dataclass(frozen=True, slots=True)
class Or:
    """Any operand."""

    operands: "tuple[Node, ...]"

    def matches(self, labels: Labels) -> bool:
        """Stops at the first that matches."""
        return any(operand.matches(labels) for operand in self.operands)

    def __str__(self) -> str:
        return f"({' || '.join(map(str, self.operands))})"


Node = Everything | Has | Equal | In | Part | Not | And | Or


@dataclass(frozen=True)
class Selector:
    """A parsed selector. Two are equal when their canonical texts are."""

    root: Node = field(compare=False)
    text: str  # canonical: parsing it gives the same text again

    def matches(self, labels: Labels) -> bool:
        """Whether something with these labels is selected."""
        return self.root.matches(labels)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def unique_id(self) -> str:
        """`s:` and SHA-224 of the canonical text in base64url, as Calico names a selector."""
        return unique_id("s", self.text)

    @cached_property
    def needs(self) -> "Needs":
        """The labels without which the selector matches nothing, and the values they may have (None: any)."""
        return _needs(self.root)

    @cached_property
    def labels(self) -> frozenset[str]:
        """Every label that the selector asks for: when none of them changes, nor does the answer."""
        found: set[str] = set()
        _collect_labels(self.root, found)
        return frozenset(found)


def unique_id(prefix: str, text: str) -> str:
    """`<prefix>:` and the SHA-224 of prefix and text in base64url, without padding."""
    digest = hashlib.sha224(f"{prefix}:{text}".encode()).digest()
    return f"{prefix}:{base64.urlsafe_b64encode(digest).decode('ascii').rstrip('=')}"


@lru_cache(maxsize=_CACHED_SELECTORS)
def parse(text: str) -> Selector:
    """Read a selector. Raise SelectorError."""
    return of_node(_Parser(text).selector())


def of_node(root: Node) -> Selector:
    """The selector of a syntax tree."""
    return Selector(root=root, text=str(root))


ALL: Final = of_node(Everything("all"))


def all_of(*selectors: Selector) -> Selector:
    """What every one of `selectors` matches; `all()` among them adds nothing."""
    operands: list[Node] = []
    for selector in selectors:
        root = selector.root
        if isinstance(root, And):
            operands += root.operands
        elif not isinstance(root, Everything):
            operands.append(root)
    if not operands:
        return ALL
    return of_node(operands[0] if len(operands) == 1 else And(tuple(operands)))


def equals(label: str, value: str) -> Selector:
    """`label == value`."""
    return of_node(Equal(label, value))


def prefixed(selector: Selector, prefix: str) -> Selector:
    """The same selector over labels that have `prefix` before their names."""
    return of_node(_rewritten(selector.root, lambda node: _with_prefix(node, prefix)))


def rewritten(selector: Selector, change: Callable[[Node], Node]) -> Selector:
    """The selector with every leaf (no operator among them) replaced by what `change` returns for it."""
    return of_node(_rewritten(selector.root, change))


def _with_prefix(node: Node, prefix: str) -> Node:
    if isinstance(node, Has | Equal | In | Part):
        return replace(node, label=prefix + node.label)
    return node


def _rewritten(node: Node, change: Callable[[Node], Node]) -> Node:
    if isinstance(node, Not):
        return Not(_rewritten(node.operand, change))
    if isinstance(node, And | Or):
        return replace(node, operands=tuple(_rewritten(operand, change) for operand in node.operands))
    return change(node)


def _collect_labels(node: Node, found: set[str]) -> None:
    if isinstance(node, Not):
        _collect_labels(node.operand, found)
    elif isinstance(node, And | Or):
        for operand in node.operands:
            _collect_labels(operand, found)
    elif not isinstance(node, Everything):
        found.add(node.label)


def _needs(node: Node) -> Needs:
    match node:
        case Has(label) | Part(label):
            return {label: None}
        case Equal(label, value, negated=False):
            return {label: frozenset({value})}
        case In(label, values, negated=False):
            return {label: values}
        case And(operands):
            return _needs_of_all(operands)
        case Or(operands):
            return _needs_of_any(operands)
        case _:
            return {}


def _needs_of_all(operands: tuple[Node, ...]) -> Needs:
    combined: dict[str, frozenset[str] | None] = {}
    for operand in operands:
        for label, values in _needs(operand).items():
            before = combined.get(label)
            combined[label] = values if before is None else before if values is None else before & values
    return combined


def _needs_of_any(operands: tuple[Node, ...]) -> Needs:
    combined = dict(_needs(operands[0]))
    for operand in operands[1:]:
        needs = _needs(operand)
        for label in tuple(combined):
            if label not in needs:
                del combined[label]
                continue
            values, more = combined[label], needs[label]
            combined[label] = None if values is None or more is None else values | more
    return combined


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._skip_space()

    def selector(self) -> Node:
        if self._at == len(self._text):
            return Everything("all")
        node = self._expression()
        if self._at < len(self._text):
            raise self._error("expected && or || or the end")
        return node

    def _error(self, reason: str, position: int | None = None) -> SelectorError:
        return SelectorError(self._text, self._at if position is None else position, reason)

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None  # the pattern matches nothing, too
        self._at = found.end()

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        self._skip_space()
        return True

    def _expression(self) -> Node:
        operands = [self._conjunction()]
        while self._take("||"):
            operands.append(self._conjunction())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def _conjunction(self) -> Node:
        operands = [self._operation()]
        while self._take("&&"):
            operands.append(self._operation())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _operation(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} operators and parentheses inside each other")
        if self._take("!"):
            node: Node = Not(self._operation())
        elif self._take("("):
            node = self._expression()
            if not self._take(")"):
                raise self._error("expected )")
        else:
            node = self._call() or self._comparison()
        self._depth -= 1
        return node

    def _call(self) -> Node | None:
        found = _CALL.match(self._text, self._at)
        if found is None:
            return None
        if found[1] is None:
            if not found[2]:
                raise self._error("has( needs a label's name", found.start(2))
            if not found[3]:
                raise self._error("expected ) after the label of has(", found.end())
            self._check_length(found[2], found.start(2))
        self._at = found.end()
        self._skip_space()
        return Has(found[2]) if found[1] is None else Everything(found[1])

    def _check_length(self, label: str, position: int) -> None:
        if len(label) > MAX_LABEL:
            raise self._error(
                f"a label's name has at most {MAX_LABEL} characters, not {len(label)}", position
            )

    def _comparison(self) -> Node:
        found = _LABEL.match(self._text, self._at)
        if found is None:
            raise self._error("expected a label, all(), global(), has(), ! or (")
        label = found[0]
        self._check_length(label, self._at)
        self._at = found.end()
        self._skip_space()
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            raise self._error(
                f"expected an operator after label {label!r}: "
                "==, !=, in, not in, contains, starts with or ends with"
            )
        self._at = operator.end()
        self._skip_space()
        word = operator[0].replace(" ", "").replace("\t", "")
        match word:
            case "==" | "!=":
                return Equal(label, self._string(), negated=word == "!=")
            case "in" | "notin":
                return In(label, self._set(), negated=word == "notin")
            case "contains":
                return Part(label, "contains", self._string())
            case _:
                return Part(label, f"{word.removesuffix('with')} with", self._string())

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            quote = self._text[self._at : self._at + 1]
            reason = "the string has no end" if quote and quote in "'\"" else "expected a string in quotes"
            raise self._error(reason)
        self._at = found.end()
        self._skip_space()
        return found[1] if found[1] is not None else found[2]

    def _set(self) -> frozenset[str]:
        if not self._take("{"):
            raise self._error("expected { and a list of strings")
        values: list[str] = []
        while not self._take("}"):
            values.append(self._string())
            if not self._take(",") and not self._text.startswith("}", self._at):
                raise self._error("expected , or }")
        return frozenset(values)
