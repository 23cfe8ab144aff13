"""What is wrong with an object: the one form in which validation answers, for every kind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `field` is a path (`spec.ingress[0].source.ports[1]`), `value` what stands there as the
    user wrote it, `rule` a sentence without its subject that says what is allowed."""

    field: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value!r} {self.rule}"
