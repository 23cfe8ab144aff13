"""How BIRD is started: held back until configured, recovering only when it ran before."""

from pathlib import Path

from tortie.agent.settings import Paths, Settings
from tortie.agent.supervisor import bird_child, describe, find_bird


def settings(directory: Path) -> Settings:
    return Settings(bird_program="/opt/bird", paths=Paths(run=directory, etc=directory))


def test_bird_waits_for_its_configuration(tmp_path: Path) -> None:
    bird = bird_child(settings(tmp_path))
    assert not bird.may_start()
    (tmp_path / "bird.cfg").touch()
    assert bird.may_start()


def test_bird_recovers_from_its_second_start_on(tmp_path: Path) -> None:
    bird = bird_child(settings(tmp_path))
    assert "-R" not in bird.before_start(list(bird.arguments))
    assert bird.before_start(list(bird.arguments))[-1] == "-R"
    later = bird_child(settings(tmp_path))  # another container on the same boot
    assert later.before_start(list(later.arguments))[-1] == "-R"


def test_bird_is_told_where_socket_and_configuration_are(tmp_path: Path) -> None:
    arguments = list(bird_child(settings(tmp_path)).arguments)
    assert arguments[1:] == ["-f", "-s", str(tmp_path / "bird.ctl"), "-c", str(tmp_path / "bird.cfg")]


def test_program_that_cannot_be_found_keeps_its_name() -> None:
    assert find_bird(Settings(bird_program="no-such-bird")) == "no-such-bird"
    assert find_bird(Settings(bird_program="sh")).endswith("/sh")


def test_wait_status_in_words() -> None:
    assert describe(3 << 8) == "exit status 3"
    assert describe(9) == "killed by SIGKILL"
