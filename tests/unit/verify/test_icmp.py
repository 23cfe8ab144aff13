"""Echo packets and the search for the largest that passes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.verify.icmp import ECHO_REPLY, checksum, echo_request, is_reply, largest_passing


class Path:
    """A path that passes packets up to `limit` bytes and remembers what was tried."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tried: list[int] = []

    async def passes(self, size: int) -> bool:
        self.tried.append(size)
        return size <= self.limit


@given(st.data())
async def test_search_finds_the_limit_to_the_byte_without_trying_a_size_twice(data: st.DataObject) -> None:
    low = data.draw(st.integers(28, 9000))
    high = data.draw(st.integers(low, 9001))
    path = Path(data.draw(st.integers(0, 10000)))
    found = await largest_passing(low, high, path.passes)
    assert found == (min(path.limit, high) if path.limit >= low else None)
    assert len(path.tried) == len(set(path.tried)) <= 2 + (high - low + 1).bit_length() + 1
    if found is not None and found < high:
        assert found + 1 in path.tried


async def test_sound_path_takes_two_attempts() -> None:
    path = Path(1450)
    assert await largest_passing(28, 1451, path.passes) == 1450
    assert path.tried == [1451, 1450]


async def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="low is 2 and high is 1"):
        await largest_passing(2, 1, Path(3).passes)


@given(st.integers(28, 9000), st.integers(0, 65535), st.integers(0, 65535))
def test_request_has_the_size_asked_for_and_a_checksum_that_verifies(
    size: int, identifier: int, sequence: int
) -> None:
    request = echo_request(identifier, sequence, size)
    assert len(request) + 20 == size
    assert checksum(request) == 0  # RFC 1071: summed with its checksum, a sound message gives zero


@pytest.mark.parametrize("size", [27, 65536])
def test_size_that_no_echo_can_have_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}"):
        echo_request(1, 1, size)


def reply(kind: int = ECHO_REPLY, identifier: int = 7, sequence: int = 9, options: int = 0) -> bytes:
    header = bytes([0x45 + options]) + bytes(19 + 4 * options)
    return header + struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)


def test_reply_is_known_by_kind_identifier_and_sequence() -> None:
    assert is_reply(reply(), 7, 9)
    assert is_reply(reply(options=2), 7, 9)
    assert not is_reply(reply(kind=8), 7, 9)
    assert not is_reply(reply(identifier=8), 7, 9)
    assert not is_reply(reply(sequence=8), 7, 9)
    assert not is_reply(b"\x45", 7, 9)
    assert not is_reply(reply(options=2)[:28], 7, 9)
