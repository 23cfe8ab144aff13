"""Programs of Debian packages, run as if the packages were installed, and nothing of it seen by the machine.

A mount namespace of its own gets the packages' files laid over `/usr` and `/etc`; what is written to `/etc`,
`/run`, `/var/lib` and `/var/log` is in memory and gone with it. Maintainer scripts do not run, so nothing is
started.
"""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.components.processes import daemon, wait_until

_COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.1
_READY_TRIES = 600
# $1: where the overlay of /etc keeps what is written. $2 and on: directories of packages.
# /lib is a link into /usr on every Debian 12, but the packages of that time still have a directory.
_ASSEMBLE = """
set -eu
scratch=$1
shift
lowers() {
  list=
  for package; do
    if [ -d "$package/$part" ]; then list="$list$package/$part:"; fi
  done
  echo "$list"
}
usr=$(part=usr; lowers "$@")
lib=$(part=lib; lowers "$@")
usrlib=$(part=usr/lib; lowers "$@")
etc=$(part=etc; lowers "$@")
mount -t tmpfs -o mode=755 scratch "$scratch"
mkdir "$scratch/upper" "$scratch/work"
mkdir "$scratch/usr"
mount --bind /usr "$scratch/usr"  # an overlay of an overlay of an overlay is one too many for the kernel
mount -t overlay packages -o "lowerdir=$usr/usr" /usr
mount -t overlay packages -o "lowerdir=$lib$usrlib$scratch/usr/lib" /usr/lib
mount -t overlay packages -o "lowerdir=$etc/etc,upperdir=$scratch/upper,workdir=$scratch/work" /etc
for place in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 scratch "$place"; done
echo assembled
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class DebianRoot:
    """The process that holds the mounts, and the network namespace in which programs run."""

    holder: int
    network: Path
    directory: Path

    def command(self, *words: str) -> tuple[str, ...]:
        """The words that run a program inside; the process that starts it is the program's own."""
        enter = ("nsenter", f"--mount=/proc/{self.holder}/ns/mnt", f"--net={self.network}", "--wd=/")
        return *enter, "--", *words

    def run(self, *words: str) -> str:
        """Standard output of a program that must succeed."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def succeeds(self, *words: str) -> bool:
        """Whether the program ends well."""
        done = subprocess.run(
            self.command(*words), capture_output=True, timeout=_COMMAND_SECONDS, check=False
        )
        return done.returncode == 0

    @contextlib.contextmanager
    def daemon(self, *words: str, ready: Sequence[str]) -> Iterator[None]:
        """A daemon; it is up when the program `ready` succeeds."""
        log = self.directory / f"{Path(words[0]).name}.log"
        with daemon(self.command(*words), log) as process:
            wait_until(
                lambda: self.succeeds(*ready),
                process,
                log,
                lambda: _sleep(process),
                _READY_TRIES,
            )
            yield


def _sleep(process: subprocess.Popen[bytes]) -> None:
    """A pause that a daemon's early death cuts short."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_POLL_SECONDS)


@contextlib.contextmanager
def debian_root(packages: Sequence[Path], network: Path, directory: Path) -> Iterator[DebianRoot]:
    """These unpacked packages over the machine's root, in a network namespace; logs go to `directory`."""
    scratch = directory / "scratch"
    scratch.mkdir()
    log = directory / "mounts.log"
    command = (
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", _ASSEMBLE, "assemble"),
        str(scratch),
        *(str(package) for package in packages),
    )
    with daemon(command, log) as holder:
        wait_until(lambda: "assembled" in log.read_text(), holder, log, lambda: _sleep(holder), _READY_TRIES)
        yield DebianRoot(holder.pid, network, directory)
