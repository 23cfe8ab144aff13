"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# Global options that calicoctl takes after the command, too. The value says whether an argument follows.
_ANYWHERE: Final = {
    "-c": True,
    "--config": True,
    "-l": True,
    "--log-level": True,
    "--allow-version-mismatch": False,
}


class AnywhereGroup(click.Group):
    """A group whose global options may stand behind the command: `calicoctl get nodes --config=FILE`."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Put the global options first; what follows `--` is left alone."""
        front: list[str] = []
        rest: list[str] = []
        waiting = list(arguments)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                rest += [word, *waiting]
                break
            name, separator, _value = word.partition("=")
            if name not in _ANYWHERE:
                rest.append(word)
                continue
            front.append(word)
            if _ANYWHERE[name] and not separator and waiting:
                front.append(waiting.pop(0))
        return super().parse_args(context, front + rest)


def filename(required: bool) -> Callable[[F], F]:
    """-f, which may be given more than once, and -R."""

    def decorate(function: F) -> F:
        function = click.option(
            "-R", "--recursive", is_flag=True, help="Directories with all that is below them."
        )(function)
        return click.option(
            "-f",
            "--filename",
            "filenames",
            multiple=True,
            required=required,
            metavar="FILE",
            help="YAML or JSON: a file, a directory, or - for standard input. May be repeated.",
        )(function)

    return decorate


def namespace(function: F) -> F:
    """-n."""
    return click.option(
        "-n", "--namespace", help="For namespaced kinds, where the object names none.  [default: default]"
    )(function)


def skip_empty(function: F) -> F:
    """--skip-empty."""
    return click.option("--skip-empty", is_flag=True, help="A file without objects is no error.")(function)


def allow_unknown(function: F) -> F:
    """--allow-unknown-fields."""
    return click.option(
        "--allow-unknown-fields",
        is_flag=True,
        help="Write fields that this version does not know: of a newer Calico, say.",
    )(function)
