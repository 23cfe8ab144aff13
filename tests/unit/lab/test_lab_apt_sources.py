"""The machine's apt sources, in both formats of sources.list(5)."""

from pathlib import Path

import pytest
from lab import aptsources

ONE_LINE = """\
# deb http://old.example bookworm main
deb [signed-by=/k.gpg arch=amd64,arm64] http://a.example/debian bookworm main contrib # note
deb-src http://a.example/debian bookworm main
deb http://third.example/apt stable main
"""

DEB822 = """\
Types: deb deb-src
# a comment between fields
URIs: http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


def machine(tmp_path: Path, one_line: str = "", deb822: str = "") -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(one_line)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(deb822)
    return tmp_path


def test_one_line_entries_become_stanzas(tmp_path: Path) -> None:
    text = aptsources.read("bookworm", machine(tmp_path, one_line=ONE_LINE))
    assert text == (
        "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm\nComponents: main contrib\n"
        "Architectures: amd64 arm64\nSigned-By: /k.gpg\n"
    )


def test_deb822_entries_keep_their_key_and_lose_what_is_disabled(tmp_path: Path) -> None:
    text = aptsources.read("bookworm", machine(tmp_path, deb822=DEB822))
    assert text.startswith("Types: deb\nURIs: http://b.example/debian\nSuites: bookworm bookworm-updates\n")
    assert "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n" in text
    assert "off.example" not in text
    assert "source.example" not in text


def test_both_formats_are_read_together(tmp_path: Path) -> None:
    text = aptsources.read("bookworm", machine(tmp_path, ONE_LINE, DEB822))
    assert [e.uris for e in aptsources.parse_deb822(text)] == [
        ("http://a.example/debian",),
        ("http://b.example/debian",),
    ]


def test_what_is_rendered_is_read_back_the_same() -> None:
    entries = [*aptsources.parse_one_line(ONE_LINE), *aptsources.parse_deb822(DEB822)]
    assert entries
    text = "\n\n".join(entry.render() for entry in entries)
    assert list(aptsources.parse_deb822(text)) == entries


def test_third_parties_suites_are_left_out() -> None:
    entry = aptsources.Entry(("http://x",), ("bookworm", "cloud-bookworm", "bookworm-security"), ("main",))
    assert [e.suites for e in aptsources.of_distribution([entry], "bookworm")] == [
        ("bookworm", "bookworm-security")
    ]


def test_machine_without_the_suite_is_told_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(aptsources.AptSourcesError, match="no archive with suite 'trixie'"):
        aptsources.read("trixie", machine(tmp_path, ONE_LINE, DEB822))
