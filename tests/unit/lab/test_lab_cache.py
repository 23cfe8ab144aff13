"""Names of cache entries follow the content of their inputs, and nothing else."""

import os
from pathlib import Path

import pytest
from lab import LabError, cache


def tree(base: Path) -> Path:
    folder = base / "src"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.py").write_text("a = 1\n")
    (folder / "b.sh").write_text("true\n")
    return folder


def digest(base: Path) -> str:
    return cache.tree_digest([base / "src"], base)


def test_digest_ignores_times_place_and_byte_code(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    tree(first)
    folder = tree(second)
    os.utime(folder / "b.sh", (0, 0))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest(first) == digest(second)


def test_digest_changes_with_content(tmp_path: Path) -> None:
    before = digest(tree(tmp_path).parent)
    (tmp_path / "src" / "inner" / "a.py").write_text("a = 2\n")
    assert digest(tmp_path) != before


def test_digest_changes_with_a_name(tmp_path: Path) -> None:
    before = digest(tree(tmp_path).parent)
    (tmp_path / "src" / "b.sh").rename(tmp_path / "src" / "c.sh")
    assert digest(tmp_path) != before


def test_digest_changes_with_the_executable_bit(tmp_path: Path) -> None:
    before = digest(tree(tmp_path).parent)
    (tmp_path / "src" / "b.sh").chmod(0o755)
    assert digest(tmp_path) != before


def test_digest_changes_with_a_links_target(tmp_path: Path) -> None:
    link = tree(tmp_path) / "link"
    link.symlink_to("b.sh")
    before = digest(tmp_path)
    link.unlink()
    link.symlink_to("inner/a.py")
    assert digest(tmp_path) != before


def test_borders_between_parts_count() -> None:
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"])


def test_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORTIE_CACHE", str(tmp_path / "elsewhere"))
    assert cache.directory("images") == tmp_path / "elsewhere" / "images"
    assert (tmp_path / "elsewhere" / "images").is_dir()


def test_no_space_is_a_sentence_with_the_remedy(tmp_path: Path) -> None:
    cache.check_space(tmp_path, 0, "Making an image")
    with pytest.raises(LabError, match=r"Making an image takes .* set TORTIE_CACHE to a folder on a larger"):
        cache.check_space(tmp_path, 1 << 40, "Making an image")
