"""What is wrong with the objects that policy reads, and what is done about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from tortie.model.policy_validation import policy_problems
from tortie.model.problems import Problem
from tortie.model.resources import Resource

IGNORED = "The whole policy is out of force: it does not say whom it is for."
RULE = "The rule is left out; one that does not allow denies everything instead."
TIER = "The tier comes after all others and denies what its policies do not decide."


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """`effect` is a sentence, empty when the object is in force as it is written. `kind` is the Python
    class's name, as in PolicyKey."""

    kind: str
    namespace: str
    name: str
    problem: Problem
    effect: str = ""

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        effect = f" {self.effect}" if self.effect else ""
        return f"{self.kind} {place}: {self.problem}.{effect}"


def findings(resource: Resource, unreadable: Iterable[Problem] = (), effect: str = "") -> list[PolicyProblem]:
    """Everything that validation says of `resource`; `effect` follows from the problems in `unreadable`."""
    metadata = resource.metadata
    told = {problem.field: problem for problem in policy_problems(resource)}
    effects = dict.fromkeys((problem.field for problem in unreadable), effect)
    for problem in unreadable:
        told.setdefault(problem.field, problem)
    return [
        PolicyProblem(
            type(resource).__name__, metadata.namespace, metadata.name, problem, effects.get(field, "")
        )
        for field, problem in told.items()
    ]
