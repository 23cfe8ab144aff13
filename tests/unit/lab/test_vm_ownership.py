"""A lab's name belongs to one folder, for as long as that folder is there and its lab alive."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_network, lab_plan
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab, PlanError

from tests.unit.lab.test_lab_plan import parameters


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(lab_plan, "RUN_ROOT", tmp_path / "run")
    return replace(lab_plan.lab_from_params(parameters()), directory=tmp_path / "mine")


def test_name_of_a_lab_in_another_folder_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.directory.mkdir()
    lab_network.claim(lab)
    other = replace(lab, directory=tmp_path / "other")
    assert lab_network.owned_by_other(other)
    with pytest.raises(PlanError, match=f"in use by the lab in {lab.directory}"):
        lab_network.claim(other)


def test_name_of_a_lab_whose_folder_is_gone_is_free(lab: Lab, tmp_path: Path) -> None:
    lab_network.claim(lab)
    other = replace(lab, directory=tmp_path / "other")
    lab_network.claim(other)
    assert not lab_network.owned_by_other(other)


def test_name_of_a_lab_without_processes_is_free_after_a_while_and_its_marks_go(
    lab: Lab, tmp_path: Path
) -> None:
    lab.directory.mkdir()
    lab_network.claim(lab)
    (lab.run_dir / "node-former").touch()
    other = replace(lab, directory=tmp_path / "other")
    assert lab_network.owned_by_other(other)
    os.utime(lab.run_dir / "directory", (0, 0))
    lab_network.claim(other)
    assert "former" not in lab_network.known_nodes(other)
    other.directory.mkdir()
    assert lab_network.owned_by_other(lab)
