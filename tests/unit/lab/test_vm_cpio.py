"""Archives that a kernel would unpack: read back with an independent reader of the format."""

import stat

from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_cpio import File, archive
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text("abcdefgh", min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def read(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of every entry up to the trailer, by the offsets of the kernel's description."""
    entries: list[tuple[str, int, bytes]] = []
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = position + 110
        name = data[start : start + name_size - 1].decode()
        assert data[start + name_size - 1] == 0
        body = (start + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not data[body:].strip(b"\0")
            return entries
        entries.append((name, mode, data[body : body + size]))
        position = (body + size + 3) // 4 * 4


@given(st.dictionaries(PATHS, st.binary(max_size=40), max_size=6))
def test_every_file_comes_back_after_the_directories_above_it(contents: dict[str, bytes]) -> None:
    # A path cannot be a file and a directory.
    files = {
        path: File(content)
        for path, content in contents.items()
        if not any(other.startswith(f"{path}/") for other in contents)
    }
    entries = read(archive(files))
    seen: set[str] = {""}
    for name, mode, content in entries:
        assert name.rpartition("/")[0] in seen
        if stat.S_ISDIR(mode):
            seen.add(name)
        else:
            assert files[name].content == content
    assert {name for name, mode, _ in entries if stat.S_ISREG(mode)} == set(files)


def test_modes_are_kept_and_empty_folders_made() -> None:
    entries = {name: mode for name, mode, _ in read(archive({"init": File(b"#!", 0o755)}, ("proc",)))}
    assert entries == {"init": stat.S_IFREG | 0o755, "proc": stat.S_IFDIR | 0o755}


def test_archives_can_follow_one_another() -> None:
    assert len(archive({"a": File(b"x")})) % 4 == 0
