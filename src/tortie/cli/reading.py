"""`get`: objects as tables and documents."""

from dataclasses import dataclass

import click

from tortie.cli import options, output
from tortie.cli.connection import Settings, ask_objects
from tortie.cli.documents import Document, exported, name_of, namespace_of
from tortie.cli.inputs import InputError, load
from tortie.cli.kinds import Kind, UnknownKindError, kind_named, kind_titled
from tortie.cli.objects import Found, Objects
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.model.constants import DEFAULT_AS_NUMBER
from tortie.model.resources import BGPConfiguration

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Objects of one kind: all of them in `namespace` (empty: everywhere), or those with `names`."""

    kind: Kind
    names: tuple[str, ...]
    namespace: str


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-o",
    "--output",
    "form",
    default="ps",
    show_default=True,
    metavar="FORMAT",
    help=f"How to print: {', '.join(output.FORMATS)}",
)
@click.option("-n", "--namespace", help="For namespaced kinds.  [default: default]")
@click.option("-A", "--all-namespaces", is_flag=True, help="For namespaced kinds: all of them.")
@click.option("--export", is_flag=True, help="Without what belongs to this cluster only (uid, version...).")
@options.filename(required=False)
@click.pass_obj
def get(
    settings: Settings,
    kind: str | None,
    names: tuple[str, ...],
    form: str,
    namespace: str | None,
    all_namespaces: bool,
    export: bool,
    filenames: tuple[str, ...],
    recursive: bool,
) -> None:
    """Show objects of a KIND, or those that are named in files."""
    if (kind is None) == (not filenames):
        raise click.UsageError("Give either a KIND or files (-f).")
    try:
        layout = output.parse_format(form)
    except output.FormatError as error:
        raise click.UsageError(str(error)) from error
    try:
        asked = (
            [_by_name(kind_named(kind), names, namespace, all_namespaces)]
            if kind is not None
            else [item for name in filenames for item in _by_file(name, recursive, namespace)]
        )
    except (UnknownKindError, InputError) as error:
        raise click.ClickException(str(error)) from error

    async def question(objects: Objects) -> tuple[list[Found], int]:
        found = [await _read(objects, item) for item in asked]
        shows_as = layout.name in ("ps", "wide") and any(item.kind.title == "Node" for item in asked)
        as_number = await cluster_as_number(objects.store) if shows_as else 0
        return found, as_number

    answers, as_number = ask_objects(settings, question)
    single = len(asked) == 1 and len(asked[0].names) == 1
    missing: list[str] = []
    texts: list[str] = []
    for item, answer in zip(asked, answers, strict=True):
        bodies = [_with_default_as(body, as_number) for body in answer.items] if as_number else answer.items
        if export:
            bodies = [exported(body, with_namespace=not item.names) for body in bodies]
        try:
            texts.append(output.render(item.kind, bodies, answer.version, layout, single, all_namespaces))
        except output.FormatError as error:
            raise click.ClickException(str(error)) from error
        gone = sorted(set(item.names) - {name_of(body) for body in answer.items})
        place = f" in namespace {item.namespace}" if item.kind.namespaced and item.namespace else ""
        if gone:
            missing.append(f"no {item.kind.title} named {', '.join(gone)}{place}")
    between = "\n" if layout.name in ("ps", "wide") else "---\n" if layout.name == "yaml" else ""
    click.echo(between.join(texts), nl=False)
    if missing:
        raise click.ClickException("; ".join(missing))


def _by_name(kind: Kind, names: tuple[str, ...], namespace: str | None, everywhere: bool) -> Wanted:
    if not kind.namespaced and (namespace or everywhere):
        raise click.ClickException(f"{kind.title} is not namespaced; leave out -n and -A")
    if namespace and everywhere:
        raise click.ClickException("-n and -A exclude each other")
    if names and everywhere:
        raise click.ClickException("-A lists everything; with a NAME, say the namespace with -n")
    scope = namespace or DEFAULT_NAMESPACE
    return Wanted(kind, names, "" if everywhere or not kind.namespaced else scope)


def _by_file(name: str, recursive: bool, namespace: str | None) -> list[Wanted]:
    wanted = []
    for document in load(name, recursive):
        kind = kind_titled(str(document.value.get("kind") or ""))
        scope = namespace_of(document.value) or namespace or DEFAULT_NAMESPACE
        wanted.append(Wanted(kind, (name_of(document.value),), scope if kind.namespaced else ""))
    return wanted


async def _read(objects: Objects, wanted: Wanted) -> Found:
    if not wanted.names or len(wanted.names) > 1:
        found = await objects.list(wanted.kind, wanted.namespace)
        if not wanted.names:
            return found
    items: list[Document] = []
    for name in dict.fromkeys(wanted.names):
        try:
            items.append(await objects.get(wanted.kind, name, wanted.namespace))
        except NotFoundError:
            continue  # named by the caller, who sees what is not in the answer
    return Found(items, found.version if len(wanted.names) > 1 else "")


def _with_default_as(body: Document, as_number: int) -> Document:
    """For the table of nodes: an AS number in brackets is the cluster's."""
    if body.get("kind") != "Node" or body["spec"].get("bgp", {}).get("asNumber"):
        return body
    bgp = {**body["spec"].get("bgp", {}), "asNumber": f"({as_number})"}
    return {**body, "spec": {**body["spec"], "bgp": bgp}}


async def cluster_as_number(store: Datastore) -> int:
    """The AS number of nodes that have none of their own."""
    try:
        return (await store.get(BGPConfiguration, "default")).spec.as_number
    except NotFoundError:
        return DEFAULT_AS_NUMBER
