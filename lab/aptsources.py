"""The machine's own apt sources, as one deb822 text to hand to mmdebstrap.

Both formats of sources.list(5) are read: one-line (`*.list`) and deb822 (`*.sources`). Only entries of the
distribution itself are kept (suite `<codename>` or `<codename>-...`): a third party's repository has no place
in a node's root file system.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab import LabError

_ONE_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)$"
)

# Option names of the one-line format and their deb822 fields (sources.list(5), "OPTIONS").
_OPTION_FIELDS = {
    "arch": "Architectures",
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "check-valid-until": "Check-Valid-Until",
}


class AptSourcesError(LabError):
    """The machine's sources name no archive of its own distribution."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One binary archive: URIs, suites and components, and further deb822 fields verbatim."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """The entry as a deb822 stanza, without the empty line that ends it."""
        lines = [
            "Types: deb",
            "URIs: " + " ".join(self.uris),
            "Suites: " + " ".join(self.suites),
            *(["Components: " + " ".join(self.components)] if self.components else []),
            *(f"{name}: {value}" for name, value in sorted(self.fields.items())),
        ]
        return "\n".join(lines)


def parse_one_line(text: str) -> Iterator[Entry]:
    """Entries of a `*.list` file; `deb-src` lines and comments give none."""
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None:
            continue
        fields = {}
        for option in shlex.split(match["options"] or ""):
            name, _, value = option.partition("=")
            if name in _OPTION_FIELDS:
                fields[_OPTION_FIELDS[name]] = value.replace(",", " ")
        yield Entry((match["uri"],), (match["suite"],), tuple(match["components"].split()), fields)


def parse_deb822(text: str) -> Iterator[Entry]:
    """Entries of a `*.sources` file; disabled stanzas and those without `deb` give none."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t" and last:
                fields[last] += "\n" + line
                continue
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        kept = {name: fields[name.lower()] for name in _OPTION_FIELDS.values() if name.lower() in fields}
        yield Entry(
            tuple(fields.get("uris", "").split()),
            tuple(fields.get("suites", "").split()),
            tuple(fields.get("components", "").split()),
            kept,
        )


def of_distribution(entries: Iterable[Entry], codename: str) -> list[Entry]:
    """The entries of the distribution `codename`, each narrowed to the suites that belong to it."""
    kept = []
    for entry in entries:
        suites = tuple(
            s for s in entry.suites if s == codename or s.startswith((codename + "-", codename + "/"))
        )
        if suites and entry.uris:
            kept.append(Entry(entry.uris, suites, entry.components, entry.fields))
    return kept


def read(codename: str, etc: Path = Path("/etc/apt")) -> str:
    """The machine's sources for `codename` as deb822 text.

    Raises AptSourcesError when there is none, with the folder that was read.
    """
    entries: list[Entry] = []
    one_line = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    for path in one_line:
        if path.is_file():
            entries += parse_one_line(path.read_text())
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        entries += parse_deb822(path.read_text())
    own = of_distribution(entries, codename)
    if not own:
        raise AptSourcesError(
            f"{etc} names no archive with suite {codename!r}; the root file systems of the lab are made "
            f"from the machine's own apt sources, so add one for {codename!r} to {etc / 'sources.list'}."
        )
    return "\n\n".join(entry.render() for entry in own) + "\n"
