"""Names of packages, and what apt says when it has none."""

import pytest
from lab import LabError, debs


@pytest.mark.parametrize("name", ["../etc", "Etcd", "-o", "a", "etcd server", ""])
def test_text_that_is_no_package_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="is not a Debian package name"):
        debs.extract(name)


def test_unknown_package_points_to_apt_get_update() -> None:
    with pytest.raises(LabError, match=r"no candidate for package tortie-nosuch.*run 'apt-get update'"):
        debs.extract("tortie-nosuch")


def test_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert debs.main(["tortie-nosuch"]) == 1
    assert capsys.readouterr().err.startswith("error: apt finds no candidate")
    assert debs.main([]) == 2
