"""The journal of DELs."""

import os
import stat
import time
from pathlib import Path

import pytest

from tests.unit.cni.requests import CONFIG, ENVIRONMENT, payload
from tortie.cni import config
from tortie.cni.journal import DRAFT_SECONDS, Journal

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


@pytest.mark.parametrize("step", [-86400.0, 0.0, 86400.0])
def test_a_draft_goes_a_minute_after_it_was_first_seen_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    seconds, real = 1000.0, time.time
    journal = Journal(tmp_path, monotonic=lambda: seconds)
    draft = tmp_path / ".d.eth0.calico.77"
    draft.write_bytes(b"cut sho")
    journal.sweep()
    monkeypatch.setattr(time, "time", lambda: real() + step)
    journal.sweep()
    seconds += DRAFT_SECONDS
    journal.sweep()
    assert draft.exists()
    seconds += 1
    journal.sweep()
    assert not draft.exists()


def test_a_draft_that_is_written_to_starts_over_and_entries_are_never_swept(tmp_path: Path) -> None:
    seconds = 0.0
    journal = Journal(tmp_path, monotonic=lambda: seconds)
    entry, draft = journal.write(ADD), tmp_path / ".d.eth0.calico.77"
    for moment in (0.0, DRAFT_SECONDS * 2, DRAFT_SECONDS * 4):
        seconds = moment
        draft.write_bytes(b"more")
        os.utime(draft, (moment, moment))
        journal.sweep()
    assert draft.exists()
    assert entry.exists()


def test_sweeping_a_journal_that_does_not_exist_does_nothing(tmp_path: Path) -> None:
    Journal(tmp_path / "none").sweep()
    assert list(tmp_path.iterdir()) == []
