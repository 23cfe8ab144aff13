"""The reference of tortiectl's commands and kinds, as Markdown, out of the commands themselves.

python -m tortie.cli.reference > docs/tortiectl-reference.md
"""

from collections.abc import Iterator
from typing import Final

import click

from tortie.cli.kinds import KINDS, Kind, Verb
from tortie.cli.kubernetes_policies import PREFIX, reason_against
from tortie.cli.main import main

_HEAD: Final = (
    "# tortiectl: reference\n\n"
    "Generated from the program by `python -m tortie.cli.reference`; do not edit. What the commands are for\n"
    "and how they behave stands in [tortiectl.md](tortiectl.md).\n"
)
_VERBS: Final[dict[Verb, str]] = {
    "create": "create",
    "change": "apply, replace, patch, label",
    "delete": "delete",
}


def render() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *_commands(main, "tortiectl"), *_kinds()]) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[str]:
    """A group's options, then every command below it, depth first."""
    yield from _section(group, path)
    for name in sorted(group.commands):
        command = group.commands[name]
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield from _section(command, f"{path} {name}")


def _section(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"## {path}\n"
    yield f"    {' '.join([path, *command.collect_usage_pieces(context)])}\n"
    if command.help:
        yield _plain(command.help) + "\n"
    rows = [
        found
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and not parameter.hidden
        and (found := parameter.get_help_record(context))
    ]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows)
        yield ""


def _plain(text: str) -> str:
    """A docstring's paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def _kinds() -> Iterator[str]:
    yield "## Kinds\n"
    yield "| kind | names | columns | with `-o wide` | not possible |\n|---|---|---|---|---|"
    for kind in KINDS:
        names = ", ".join(f"`{name}`" for name in kind.names)
        title = f"{kind.title}{' (namespaced)' if kind.namespaced else ''}"
        wide = " ".join(kind.wide) if kind.wide != kind.headings else ""
        yield f"| {title} | {names} | {' '.join(kind.headings)} | {wide} | {_limits(kind)} |"


def _limits(kind: Kind) -> str:
    parts = []
    for reasons, where in ((kind.refused, ""), (kind.only_etcd, " (Kubernetes datastore)")):
        if not reasons:
            continue
        if len(reasons) == len(_VERBS) and len(set(reasons.values())) == 1:
            parts.append(f"to write{where}: {next(iter(reasons.values()))}")
        else:
            parts += [f"{_VERBS[verb]}{where}: {reason}" for verb, reason in reasons.items()]
    if kind.guest is not None:
        parts.append(f"to write `{PREFIX}*`: {reason_against(PREFIX + 'NAME')}")
    return "; ".join(parts)


if __name__ == "__main__":
    print(render(), end="")
