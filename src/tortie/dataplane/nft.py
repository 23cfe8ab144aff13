"""nftables through libnftables (libnftables(3)), in this process: one call is one atomic transaction."""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tortie.dataplane.netlink import DataplaneError

LIBRARY = "libnftables.so.1"
NFT_CTX_DEFAULT = 0
NFT_CTX_OUTPUT_JSON = 1 << 4  # nftables/libnftables.h


class NftError(DataplaneError):
    """nftables refused a transaction; the text holds its reasons."""


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NftError(f"cannot load {LIBRARY} ({error}); install the package nftables") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


@contextmanager
def _context() -> Iterator[int]:
    """A libnftables context; its socket belongs to the namespace that the calling thread is in."""
    library = _library()
    context = library.nft_ctx_new(NFT_CTX_DEFAULT)
    if not context:
        raise NftError("libnftables gave no context: out of memory, or no permission for a netfilter socket")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)


def run(script: str, *, json: bool = False) -> str:
    """Run commands in one transaction and return what they print. Raise NftError with nftables' own words."""
    library = _library()
    with _context() as context:
        if json:
            library.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON)
        status = library.nft_run_cmd_from_buffer(context, script.encode())
        if status != 0:
            reason = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
            raise NftError(f"nftables refused a transaction: {reason or 'no reason given'}")
        return (library.nft_ctx_get_output_buffer(context) or b"").decode()


def tables(family: str) -> set[str]:
    """Names of the tables of a family (`ip`, `inet`, ...)."""
    return {
        item["table"]["name"] for item in _objects(run(f"list tables {family}", json=True)) if "table" in item
    }


def list_table(family: str, name: str) -> list[dict[str, Any]] | None:
    """All objects of a table as `nft -j` shows them (libnftables-json(5)), or None without such a table."""
    if name not in tables(family):
        return None
    return _objects(run(f"list table {family} {name}", json=True))


def _objects(output: str) -> list[dict[str, Any]]:
    if not output:
        return []
    return msgspec.convert(msgspec.json.decode(output)["nftables"], list[dict[str, Any]])
