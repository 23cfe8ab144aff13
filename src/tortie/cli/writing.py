"""`create`, `apply`, `replace`, `delete`, `validate`: many objects at once.

Every object is checked before the first is written: a mistake in the last file changes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from tortie.cli import options
from tortie.cli.connection import Settings, ask_objects
from tortie.cli.constraints import RefusedError
from tortie.cli.documents import name_of, namespace_of, version_of
from tortie.cli.findings import Checked, Finding, check
from tortie.cli.inputs import InputError, Source, load
from tortie.cli.kinds import Kind, UnknownKindError, kind_named, kind_titled
from tortie.cli.objects import Objects
from tortie.cli.reading import DEFAULT_NAMESPACE
from tortie.datastore.interface import AlreadyExistsError, DatastoreError, NotFoundError, UnavailableError

Write = Callable[[Objects, Kind, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: how many of `kinds` were done, and a sentence for each that was not."""

    kinds: tuple[str, ...]
    done: int
    errors: tuple[str, ...]


@click.command()
@options.filename(required=True)
@click.option("--skip-exists", is_flag=True, help="An object that exists already is no error.")
@options.skip_empty
@options.namespace
@options.allow_unknown
@click.pass_obj
def create(
    settings: Settings,
    filenames: tuple[str, ...],
    recursive: bool,
    skip_exists: bool,
    skip_empty: bool,
    namespace: str | None,
    allow_unknown_fields: bool,
) -> None:
    """Create objects that do not exist yet."""

    async def write(objects: Objects, kind: Kind, body: dict[str, Any]) -> None:
        try:
            await objects.create(kind, body)
        except AlreadyExistsError:
            if not skip_exists:
                raise

    checked = gather(filenames, recursive, namespace, skip_empty)
    refuse(
        checked, [item for one in checked for item in one.errors if not _excused(item, allow_unknown_fields)]
    )
    report("create", "created", run(settings, checked, write))


@click.command()
@options.filename(required=True)
@options.skip_empty
@options.namespace
@options.allow_unknown
@click.pass_obj
def apply(
    settings: Settings,
    filenames: tuple[str, ...],
    recursive: bool,
    skip_empty: bool,
    namespace: str | None,
    allow_unknown_fields: bool,
) -> None:
    """Create objects, or replace those that exist."""

    async def write(objects: Objects, kind: Kind, body: dict[str, Any]) -> None:
        await objects.apply(kind, body)

    checked = gather(filenames, recursive, namespace, skip_empty)
    report("apply", "applied", run(settings, checked, write, _unknown_check(checked, allow_unknown_fields)))


@click.command(name="replace")
@options.filename(required=True)
@options.skip_empty
@options.namespace
@options.allow_unknown
@click.pass_obj
def replace_command(
    settings: Settings,
    filenames: tuple[str, ...],
    recursive: bool,
    skip_empty: bool,
    namespace: str | None,
    allow_unknown_fields: bool,
) -> None:
    """Replace objects that exist."""

    async def write(objects: Objects, kind: Kind, body: dict[str, Any]) -> None:
        await objects.replace(kind, body)

    checked = gather(filenames, recursive, namespace, skip_empty)
    report(
        "replace", "replaced", run(settings, checked, write, _unknown_check(checked, allow_unknown_fields))
    )


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@options.filename(required=False)
@click.option("-s", "--skip-not-exists", is_flag=True, help="An object that does not exist is no error.")
@options.skip_empty
@options.namespace
@click.pass_obj
def delete(
    settings: Settings,
    kind: str | None,
    names: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    skip_not_exists: bool,
    skip_empty: bool,
    namespace: str | None,
) -> None:
    """Delete objects by KIND and NAME, or those that are named in files."""
    if (kind is None) == (not filenames) or (kind is not None and not names):
        raise click.UsageError("Give either a KIND and at least one NAME, or files (-f).")

    async def write(objects: Objects, kind: Kind, body: dict[str, Any]) -> None:
        try:
            await objects.delete(kind, name_of(body), namespace_of(body), version_of(body))
        except NotFoundError:
            if not skip_not_exists:
                raise

    targets = (
        _named(kind, names, namespace)
        if kind is not None
        else [
            (item.kind, item.document.value)
            for item in gather(filenames, recursive, namespace, skip_empty, only_names=True)
            if item.kind is not None
        ]
    )
    # A tier goes after its policies.
    targets.sort(key=lambda item: item[0].title == "Tier")
    report("delete", "deleted", ask_objects(settings, lambda objects: _each(objects, targets, write)))


@click.command()
@options.filename(required=True)
@options.skip_empty
@options.namespace
def validate(filenames: tuple[str, ...], recursive: bool, skip_empty: bool, namespace: str | None) -> None:
    """Check objects without a cluster: every error with file, line, field and rule."""
    checked = gather(filenames, recursive, namespace, skip_empty)
    refuse(checked, [item for one in checked for item in one.errors], "")
    click.echo(f"Successfully validated {_counted([one.kind.title for one in checked if one.kind])}")


def gather(
    filenames: Sequence[str],
    recursive: bool,
    namespace: str | None,
    skip_empty: bool,
    only_names: bool = False,
) -> list[Checked]:
    """Every object of the files, checked; warnings are printed. `only_names`: for a deletion nothing but
    kind and name matters. Exit with an error when a file cannot be read or has no objects."""
    try:
        documents: list[Source] = []
        for name in filenames:
            found = load(name, recursive)
            if not found and not skip_empty:
                raise InputError(f"{name} has no objects; --skip-empty allows that.")
            documents += found
    except InputError as error:
        raise click.ClickException(str(error)) from error
    checked = [_in_namespace(document, namespace) for document in documents]
    if only_names:
        for item in checked:
            if item.kind is None or not name_of(item.document.value):
                refuse(checked, item.findings)
        return checked
    for item in checked:
        for finding in item.findings:
            if finding.warning:
                click.echo(f"Warning: {finding}", err=True)
    # A tier comes before its policies.
    return sorted(checked, key=lambda item: item.kind is None or item.kind.title != "Tier")


def _in_namespace(document: Source, namespace: str | None) -> Checked:
    """The document in the namespace that it says, or else the one of -n, checked."""
    try:
        kind = kind_titled(str(document.value.get("kind") or ""))
    except UnknownKindError:
        return check(document)
    metadata = document.value.get("metadata")
    if not kind.namespaced or not isinstance(metadata, dict):
        return check(document)
    own = metadata.get("namespace")
    placed = replace(
        document,
        value={
            **document.value,
            "metadata": {**metadata, "namespace": own or namespace or DEFAULT_NAMESPACE},
        },
    )
    checked = check(placed)
    if own and namespace and own != namespace:
        finding = Finding(
            placed, ("metadata", "namespace"), str(own), f"is not the namespace of -n, {namespace}"
        )
        return replace(checked, findings=(*checked.findings, finding))
    return checked


def refuse(
    checked: Sequence[Checked], errors: Sequence[Finding], consequence: str = "; nothing was changed"
) -> None:
    """Print the errors, if any, and exit."""
    if not errors:
        return
    for error in errors:
        click.echo(str(error), err=True)
    wrong = len({id(error.document) for error in errors})
    noun = "error" if len(errors) == 1 else "errors"
    raise click.ClickException(f"{len(errors)} {noun} in {wrong} of {len(checked)} object(s){consequence}")


def _excused(finding: Finding, allow_unknown: bool) -> bool:
    return finding.unknown and allow_unknown and finding.path[:1] == ("spec",)


def _unknown_check(
    checked: Sequence[Checked], allow_unknown: bool
) -> Callable[[Objects], Awaitable[list[Finding]]]:
    """For objects that may exist: fields that we do not know are no error when the stored object has them,
    so what was read from a newer Calico can be written back."""

    async def find(objects: Objects) -> list[Finding]:
        remaining: list[Finding] = []
        for one in checked:
            unknown = [item for item in one.errors if item.unknown and not _excused(item, allow_unknown)]
            if not unknown or one.kind is None:
                continue
            stored: Any = {}
            try:
                body = one.document.value
                stored = await objects.get(one.kind, name_of(body), namespace_of(body))
            except NotFoundError:
                stored = {}
            remaining += [item for item in unknown if not _has(stored, item.path)]
        return remaining

    refuse(checked, [item for one in checked for item in one.errors if not item.unknown])
    return find


def _has(value: Any, path: Sequence[str | int]) -> bool:
    for part in path:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not in_list and not (isinstance(value, dict) and part in value):
            return False
        value = value[part]
    return True


def run(
    settings: Settings,
    checked: Sequence[Checked],
    write: Write,
    find_errors: Callable[[Objects], Awaitable[list[Finding]]] | None = None,
) -> Outcome:
    """Write the objects in order. `find_errors` looks at the datastore first and forbids everything."""
    targets = [(item.kind, item.document.value) for item in checked if item.kind is not None]

    async def question(objects: Objects) -> tuple[list[Finding], Outcome]:
        errors = await find_errors(objects) if find_errors is not None else []
        return errors, Outcome((), 0, ()) if errors else await _each(objects, targets, write)

    errors, outcome = ask_objects(settings, question)
    refuse(checked, errors)
    return outcome


async def _each(objects: Objects, targets: Sequence[tuple[Kind, dict[str, Any]]], write: Write) -> Outcome:
    """Write each object; an error with one does not stop the others, a datastore that is away does."""
    errors: list[str] = []
    for kind, body in targets:
        try:
            await write(objects, kind, body)
        except UnavailableError:
            raise
        except (DatastoreError, RefusedError) as error:
            errors.append(str(error))
    return Outcome(tuple(kind.title for kind, _body in targets), len(targets) - len(errors), tuple(errors))


def _named(kind_name: str, names: Sequence[str], namespace: str | None) -> list[tuple[Kind, dict[str, Any]]]:
    try:
        kind = kind_named(kind_name)
    except UnknownKindError as error:
        raise click.ClickException(str(error)) from error
    if namespace and not kind.namespaced:
        raise click.ClickException(f"{kind.title} is not namespaced; leave out -n")
    scope = {"namespace": namespace or DEFAULT_NAMESPACE} if kind.namespaced else {}
    return [(kind, {"metadata": {"name": name, **scope}}) for name in dict.fromkeys(names)]


def report(verb: str, past: str, outcome: Outcome) -> None:
    """Say what was done, in calicoctl's words; exit with an error when something was not."""
    if not outcome.kinds:
        click.echo("No resources specified")
        return
    if not outcome.errors:
        click.echo(f"Successfully {past} {_counted(outcome.kinds)}")
        return
    for error in outcome.errors:
        click.echo(f"Failed to {verb}: {error}", err=True)
    if outcome.done:
        click.echo(f"Partial success: {past} {outcome.done} out of {len(outcome.kinds)} resources")
    raise click.ClickException(f"{len(outcome.errors)} of {len(outcome.kinds)} resource(s) failed to {verb}")


def _counted(kinds: Sequence[str]) -> str:
    kind = f" '{kinds[0]}'" if len(set(kinds)) == 1 else ""
    return f"{len(kinds)}{kind} resource(s)"
