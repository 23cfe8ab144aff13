"""The box made of the lab's own disk image: its metadata, and what the first boot lays over the disk."""

import stat

import pytest
from lab.vagrant import box

KEY = "ssh-rsa AAAA vagrant\n"


def unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by path, read like the kernel reads the format "newc"."""
    entries: dict[str, tuple[int, bytes]] = {}
    position = 0
    while True:
        header = archive[position : position + 110]
        assert header[:6] == b"070701"
        fields = [int(header[start : start + 8], 16) for start in range(6, 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[position + 110 : position + 110 + name_size - 1].decode()
        content_at = (position + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, archive[content_at : content_at + size])
        position = (content_at + size + 3) // 4 * 4


def test_seed_holds_the_user_that_vagrant_logs_in_as() -> None:
    entries = unpacked(box.seed(KEY))
    assert entries["seed/etc/sysusers.d/vagrant.conf"][1].startswith(b"u vagrant ")
    assert b"NOPASSWD" in entries["seed/etc/sudoers.d/vagrant"][1]
    assert b"/home/vagrant/.ssh/authorized_keys" in entries["seed/etc/tmpfiles.d/vagrant.conf"][1]


@pytest.mark.parametrize("key", ["ssh-rsa AAAA vagrant\n", "ssh-rsa AAAA vagrant"])
def test_key_is_a_whole_line_so_that_vagrant_can_append_another(key: str) -> None:
    assert unpacked(box.seed(key))["seed/etc/vagrant-key"][1] == b"ssh-rsa AAAA vagrant\n"


def test_no_seeded_file_can_be_written_by_others() -> None:
    files = {name: mode for name, (mode, _) in unpacked(box.seed(KEY)).items() if stat.S_ISREG(mode)}
    assert files
    assert [name for name, mode in files.items() if mode & 0o022] == []


@pytest.mark.parametrize(("size", "expected"), [(8 * box.GIB, 8), (8 * box.GIB + 1, 9), (1, 1)])
def test_disk_size_is_rounded_up_to_what_the_box_format_can_say(size: int, expected: int) -> None:
    assert box.metadata(size) == {"provider": "libvirt", "format": "qcow2", "virtual_size": expected}
