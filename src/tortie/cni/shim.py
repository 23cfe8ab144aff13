#!/usr/bin/python3 -IS
# The CNI plugin that the container runtime executes, as `calico` and as `calico-ipam`. It hands the request
# to the agent on this node and prints what the agent answers; the protocol is in docs/architecture.md.
#
# It runs with the host's own Python, 3.6 or later, for every pod: so it is one file and imports built-in
# modules only (about 8 ms from start to end).
"""CNI plugin: passes a request to the node's agent."""

import _socket
import posix
import sys
import time

SOCKET = "/var/run/calico/cni.sock"
JOURNAL = "/var/lib/calico/cni-journal"
CONNECT_SECONDS = 5.0  # ADD while the agent restarts
DEL_CONNECT_SECONDS = 1.0  # DEL does not need the agent
ANSWER_SECONDS = 60.0  # kubelet gives up on a sandbox after 2 to 4 minutes
RETRY_SECONDS = 0.05
MAX_REQUEST = 1 << 20  # bytes; the agent's limit too
ENOENT, EEXIST, EROFS = 2, 17, 30  # asm-generic/errno-base.h

# CNI SPEC 1.1.0: the versions that we speak, the variables that each command needs, and error codes.
VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "STATUS": (),
    "GC": (),
    "VERSION": (),
}
PASSED = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
BAD_ENVIRONMENT = 4
IO_FAILURE = 5
BAD_CONFIG = 7
TRY_LATER = 11
UNAVAILABLE = 50


class RefusalError(Exception):
    """An error for the runtime: CNI code and sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        Exception.__init__(self, sentence)
        self.code = code


def quoted(text: str) -> str:
    """A JSON string; what is not printable ASCII is escaped."""
    out = ""
    for character in text:
        number = ord(character)
        if character in '"\\':
            out += "\\" + character
        elif 32 <= number < 127:
            out += character
        elif number < 0x10000:
            out += f"\\u{number:04x}"
        else:
            number -= 0x10000
            out += f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
    return '"' + out + '"'


def version_of(config: bytes) -> str:
    """The configuration's cniVersion when we speak it, else the newest that we do: no parser for an error."""
    parts = config.decode("utf-8", "replace").split('"cniVersion"', 1)
    if len(parts) == 2:
        value = parts[1].split('"')
        if len(value) > 2 and value[0].strip() == ":" and value[1] in VERSIONS:
            return value[1]
    return VERSIONS[-1]


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    while data:
        data = data[posix.write(fd, data) :]


def read_config() -> bytes:
    """Standard input, bounded."""
    parts: list[bytes] = []
    size = 0
    while size <= MAX_REQUEST:
        part = posix.read(0, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    raise RefusalError(BAD_CONFIG, f"the network configuration on standard input exceeds {MAX_REQUEST} bytes")


def read_environment(kind: str) -> "tuple[str, dict[str, bytes]]":
    """The command, and the CNI variables, checked. `kind` is the plugin's name."""
    variables = {}
    for name in PASSED:
        value = posix.environ.get(name.encode())
        if value is not None:
            variables[name] = value
    variables["CNI_TYPE"] = kind.encode("utf-8", "surrogateescape")
    command = variables.get("CNI_COMMAND", b"").decode("utf-8", "replace")
    if command not in REQUIRED:
        allowed = ", ".join(REQUIRED)
        raise RefusalError(
            BAD_ENVIRONMENT, f"CNI_COMMAND is {command or 'not set'}; it must be one of {allowed}"
        )
    missing = [name for name in REQUIRED[command] if not variables.get(name)]
    if missing:
        names = " and ".join(missing)
        raise RefusalError(BAD_ENVIRONMENT, f"{command} needs {names}: not set in the environment")
    return command, variables


def open_namespace(command: str, variables: "dict[str, bytes]") -> int:
    """A descriptor of the container's network namespace, or -1 for DEL when it is gone."""
    path = variables.get("CNI_NETNS", b"")
    if not path:
        return -1
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if command == "DEL":
            return -1
        name = path.decode("utf-8", "replace")
        raise RefusalError(
            BAD_ENVIRONMENT,
            f"CNI_NETNS is {name}, which cannot be opened ({error.strerror}): is the sandbox gone?",
        ) from error


def payload_of(variables: "dict[str, bytes]", config: bytes) -> bytes:
    """Environment items and configuration as the agent wants them."""
    items = [name.encode() + b"=" + value for name, value in sorted(variables.items())]
    return b"\0".join(items) + b"\0\0" + config


def connect(path: str, seconds: float) -> _socket.socket:
    """A connection to the agent; OSError when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.settimeout(seconds)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def converse(connection: _socket.socket, payload: bytes, namespace: int) -> "tuple[int, bytes]":
    """Send the request; return exit status and standard output. OSError when the agent does not answer."""
    deadline = time.monotonic() + ANSWER_SECONDS
    data = len(payload).to_bytes(4, "big") + payload
    connection.settimeout(ANSWER_SECONDS)
    if namespace >= 0:
        native = namespace.to_bytes(4, sys.byteorder)  # an int, as SCM_RIGHTS wants it
        sent = connection.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, native)])
        data = data[sent:]
    if data:  # sending nothing to an agent that has answered already would be an error
        connection.sendall(data)
    parts = []
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(1 << 16)
        if not part:
            break
        parts.append(part)
    answer = b"".join(parts)
    if not answer:
        raise OSError("the agent closed the connection without an answer")
    return answer[0], answer[1:]


def journal(directory: str, variables: "dict[str, bytes]", payload: bytes) -> None:
    """Keep a DEL for the agent, which reads it when it starts. Complete or not there at all."""
    parts = (variables["CNI_CONTAINERID"], variables["CNI_IFNAME"], variables["CNI_TYPE"])
    name = b".".join(parts).replace(b"/", b"_").decode("utf-8", "surrogateescape")[:200]
    draft = f"{directory}/.{name}.{posix.getpid()}"
    try:
        posix.mkdir(directory, 0o700)
    except OSError as error:
        if error.errno != EEXIST:
            raise
    try:
        fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            write_all(fd, payload)
            posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(draft, f"{directory}/{name}.del")
    except OSError:
        try:
            posix.unlink(draft)
        except OSError as error:
            if error.errno not in (ENOENT, EROFS):
                raise
        raise


def setting(name: bytes, default: str) -> str:
    """A path that an administrator moved by an environment variable of the runtime."""
    return posix.environ.get(name, default.encode()).decode("utf-8", "surrogateescape")


def run(kind: str, config: bytes) -> "tuple[int, bytes]":
    """Serve one request: exit status and standard output."""
    command, variables = read_environment(kind)
    if command == "VERSION":
        names = ", ".join([quoted(version) for version in VERSIONS])
        spoken = quoted(version_of(config))
        return 0, f'{{"cniVersion": {spoken}, "supportedVersions": [{names}]}}\n'.encode()
    namespace = open_namespace(command, variables)
    payload = payload_of(variables, config)
    path = setting(b"TORTIE_CNI_SOCKET", SOCKET)
    try:
        connection = connect(path, DEL_CONNECT_SECONDS if command == "DEL" else CONNECT_SECONDS)
        return converse(connection, payload, namespace)
    except OSError as error:
        reason = error.strerror or str(error)
    absent = f"the network agent of this node does not answer on {path} ({reason})"
    if command != "DEL":
        code = UNAVAILABLE if command == "STATUS" else TRY_LATER
        raise RefusalError(code, f"{absent}; try again, and see that the calico-node pod runs")
    directory = setting(b"TORTIE_CNI_JOURNAL", JOURNAL)
    try:
        journal(directory, variables, payload)
    except OSError as error:
        sentence = f"{absent}, and the DEL cannot be kept in {directory} ({error.strerror})"
        raise RefusalError(TRY_LATER, sentence) from error
    return 0, b""


def main() -> int:
    """Exit status for the runtime."""
    config = b""
    try:
        config = read_config()
        status, output = run(sys.argv[0].rsplit("/", 1)[-1], config)
        write_all(1, output)
        return status
    except RefusalError as refusal:
        code, sentence = refusal.code, str(refusal)
    except OSError as error:
        code, sentence = IO_FAILURE, f"the CNI plugin failed: {error}"
    spoken = quoted(version_of(config))
    write_all(1, f'{{"cniVersion": {spoken}, "code": {code}, "msg": {quoted(sentence)}}}\n'.encode())
    return 1


if __name__ == "__main__":
    posix._exit(main())
