"""The agent, which notes when its policy half did what: started by bench/policy_agent.py.

Nothing is left out or replaced: the agent's own classes are called, and what they answer is written down,
after the fact, to the file that BENCH_TIMES names.
"""

import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tortie.agent import main as agent
from tortie.agent.policy import PolicyAgent, PolicySources
from tortie.agent.policy_work import Outcome, PolicyWorker, Work
from tortie.datastore.interface import Datastore
from tortie.model.endpoints import WorkloadEndpoint


class Note(Struct, omit_defaults=True):
    """A change of the kernel's policy, on the clock of time.monotonic(): `noticed` when its event was
    decoded, then as `Outcome` says, with the policy thread's `processor` seconds. Or an ADD that `waited`:
    when it was `noticed`, and when it `ended`."""

    noticed: float = 0.0
    began: float = 0.0
    computed: float = 0.0
    ended: float = 0.0
    processor: float = 0.0
    waited: bool = False


def read_notes(path: Path) -> list[Note]:
    """What was noted so far; a line that is being written is left for later."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=Note) for line in lines if line.endswith(b"\n")]


def _write(note: Note) -> None:
    with Path(os.environ["BENCH_TIMES"]).open("ab") as file:
        file.write(msgspec.json.encode(note) + b"\n")


_noticed: list[float] = []


class _Sources(PolicySources):
    def __init__(self, datastore: Datastore) -> None:
        super().__init__(datastore)
        for source in self.all:
            source.on_change(lambda: _noticed.append(time.monotonic()))


class _Worker(PolicyWorker):
    def do(self, work: Work) -> Outcome:
        """As the agent's; noted when the kernel was changed."""
        noticed, processor = _noticed[:1], time.thread_time()
        _noticed.clear()
        outcome = super().do(work)
        if outcome.changed:
            processor = time.thread_time() - processor
            began = noticed[0] if noticed else outcome.began
            _write(Note(began, outcome.began, outcome.computed, outcome.ended, processor))
        return outcome


class _Agent(PolicyAgent):
    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """As the agent's; noted."""
        noticed = time.monotonic()
        await super().endpoint_ready(endpoint)
        _write(Note(noticed=noticed, ended=time.monotonic(), waited=True))


if __name__ == "__main__":
    vars(agent).update(PolicySources=_Sources, PolicyWorker=_Worker, PolicyAgent=_Agent)
    agent.main()
