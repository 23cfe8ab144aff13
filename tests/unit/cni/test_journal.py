"""The journal of DELs."""

import os
import stat
from pathlib import Path

import pytest

from tests.unit.cni.requests import CONFIG, ENVIRONMENT, payload
from tortie.cni import config
from tortie.cni.journal import Journal

ADD = payload(ENVIRONMENT, str(CONFIG).replace("'", '"').encode())


def test_an_entry_holds_the_request_and_is_for_root_alone(tmp_path: Path) -> None:
    path = Journal(tmp_path / "journal").write(ADD)
    assert path.read_bytes() == ADD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["0123456789abcdef.eth0.calico.del"]


def test_a_repeated_del_is_one_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.write(ADD) == journal.write(ADD)
    assert len(journal.entries()) == 1


def test_entries_come_oldest_first_and_drafts_do_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number, age in (("b", 20), ("a", 10), ("c", 30)):
        path = journal.write(payload(ENVIRONMENT | {"CNI_CONTAINERID": number}, b"{}"))
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / ".d.eth0.calico.77").write_bytes(b"cut sho")
    assert [path.name[0] for path in journal.entries()] == ["c", "b", "a"]


def test_a_journal_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").entries() == []


def test_an_add_is_kept_as_the_del_that_takes_it_back(tmp_path: Path) -> None:
    request = config.parse(Journal(tmp_path).as_del(ADD))
    before = config.parse(ADD)
    assert request.command == "DEL"
    assert (request.container_id, request.pod, request.config) == (
        before.container_id,
        before.pod,
        before.config,
    )


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file" / "journal").write(ADD)
