"""CNI error codes (CNI SPEC 1.1.0, section 5; from 100 on our own) and the error that carries one."""

from typing import Final

import msgspec

INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
BAD_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
DECODE_FAILURE: Final = 6
BAD_CONFIG: Final = 7
# All that passes by itself, also an exhausted pool: addresses come free, and pools are added.
TRY_LATER: Final = 11
UNAVAILABLE: Final = 50  # STATUS: ADD would fail
LIMITED: Final = 51  # STATUS: ADD would fail, and containers that run may have limited connectivity
INTERNAL: Final = 100
POD_NOT_FOUND: Final = 101
DATASTORE_REFUSED: Final = 102
KERNEL_REFUSED: Final = 103
INTERFACE_EXISTS: Final = 104
CHECK_FAILED: Final = 105
DELEGATE_FAILED: Final = 106


class CNIError(Exception):
    """What the plugin answers: a code and a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def answer(error: CNIError, version: str) -> bytes:
    """The error as JSON for standard output."""
    body = {"cniVersion": version, "code": error.code, "msg": str(error)}
    return msgspec.json.encode(body) + b"\n"
