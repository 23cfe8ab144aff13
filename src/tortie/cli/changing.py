"""`patch` and `label`: one object, changed in place."""

from collections.abc import Callable

import click

from tortie.cli import options
from tortie.cli.connection import Settings, ask_objects
from tortie.cli.constraints import RefusedError
from tortie.cli.documents import Document
from tortie.cli.findings import Finding, check
from tortie.cli.inputs import Source
from tortie.cli.kinds import Kind, UnknownKindError, kind_named
from tortie.cli.objects import Change, Objects
from tortie.cli.parsing import Parsed
from tortie.cli.patching import PATCH_TYPES, PatchError, PatchType, patcher
from tortie.cli.reading import DEFAULT_NAMESPACE


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option("-p", "--patch", "text", required=True, help="The patch, JSON or YAML.")
@click.option(
    "-t", "--type", "patch_type", type=click.Choice(PATCH_TYPES), default="strategic", show_default=True
)
@options.namespace
@options.allow_unknown
@click.pass_obj
def patch(
    settings: Settings,
    kind: str,
    name: str,
    text: str,
    patch_type: PatchType,
    namespace: str | None,
    allow_unknown_fields: bool,
) -> None:
    """Change some fields of an object."""
    wanted, scope = _target(kind, namespace)
    try:
        change = _checked(wanted, patcher(text, patch_type), allow_unknown_fields)
    except PatchError as error:
        raise click.ClickException(str(error)) from error
    _change(settings, wanted, name, scope, change)
    click.echo(f"Successfully patched 1 '{wanted.title}' resource")


@click.command()
@click.argument("kind")
@click.argument("name")
@click.argument("label", metavar="KEY=VALUE|KEY")
@click.option("--overwrite", is_flag=True, help="Change a label that has another value.")
@click.option("--remove", is_flag=True, help="Remove the label KEY.")
@options.namespace
@click.pass_obj
def label(
    settings: Settings,
    kind: str,
    name: str,
    label: str,
    overwrite: bool,
    remove: bool,
    namespace: str | None,
) -> None:
    """Set a label of an object, or remove it. A node's labels are Kubernetes' own."""
    wanted, scope = _target(kind, namespace)
    key, separator, value = label.partition("=")
    if bool(separator) == remove or not key:
        raise click.UsageError("Give KEY=VALUE, or KEY and --remove.")
    done: list[str] = []

    def change(document: Document) -> Document:
        labels = dict(document["metadata"].get("labels") or {})
        done[:] = [_label(labels, key, None if remove else value, overwrite, f"{wanted.title} {name}")]
        return {**document, "metadata": {**document["metadata"], "labels": labels}}

    _change(settings, wanted, name, scope, change)
    click.echo(f"Successfully {done[0]} label {key} on {wanted.title} {name}")


def _label(labels: dict[str, str], key: str, value: str | None, overwrite: bool, what: str) -> str:
    """Change `labels`; what was done, as a word. Raise RefusedError."""
    if value is None:
        if key not in labels:
            raise RefusedError(f"{what} has no label {key!r}")
        del labels[key]
        return "removed"
    known = labels.get(key)
    if known is not None and known != value and not overwrite:
        raise RefusedError(f"{what} has label {key} = {known!r} already; --overwrite changes it")
    labels[key] = value
    return "set" if known is None else "updated"


def _target(kind: str, namespace: str | None) -> tuple[Kind, str]:
    try:
        wanted = kind_named(kind)
    except UnknownKindError as error:
        raise click.ClickException(str(error)) from error
    if namespace and not wanted.namespaced:
        raise click.ClickException(f"{wanted.title} is not namespaced; leave out -n")
    return wanted, (namespace or DEFAULT_NAMESPACE) if wanted.namespaced else ""


def _checked(kind: Kind, apply: Callable[[Document], Document], allow_unknown: bool) -> Change:
    """The change, refused when it makes the object wrong. What was wrong or unknown before is none of the
    patch's business."""

    def change(old: Document) -> Document:
        new = apply(old)
        for field in ("apiVersion", "kind"):
            if new.get(field) != old.get(field):
                raise RefusedError(f"{kind.title}: a patch cannot change {field}")
        before = {item.path for item in _findings(old)}
        errors = [
            f"{item.field}{f' {item.value!r}' if item.value else ''} {item.rule}"
            for item in _findings(new)
            if item.path not in before and not (item.unknown and allow_unknown)
        ]
        if errors:
            raise RefusedError(f"{kind.title}: the patch makes it invalid: {'; '.join(errors)}")
        return new

    return change


def _findings(body: Document) -> tuple[Finding, ...]:
    return check(Source(body, "", Parsed(body, 1))).errors


def _change(settings: Settings, kind: Kind, name: str, namespace: str, change: Change) -> None:
    async def question(objects: Objects) -> Document:
        objects.allow(kind, "change", name)
        return await objects.change(kind, name, namespace, change)

    ask_objects(settings, question)
