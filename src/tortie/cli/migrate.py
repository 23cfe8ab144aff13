"""`tortiectl datastore migrate`: from one datastore to another, with every address as it is.

    tortiectl datastore migrate lock                 # on the old one: no address is allocated any more
    tortiectl datastore migrate export > all.yaml
    tortiectl datastore migrate import -f all.yaml   # on the new one, which is empty
    tortiectl datastore migrate unlock               # on the new one, when the nodes use it

Which datastore is meant, the usual settings say (DATASTORE_TYPE and so on).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import yaml

from tortie.cli.connection import Settings, ask
from tortie.datastore import migration
from tortie.datastore.interface import Datastore
from tortie.datastore.kubernetes import KubernetesDatastore

# libyaml's writer is ten times as fast; PyYAML may be built without it.
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@click.group("datastore")
def datastore() -> None:
    """The datastore as a whole."""


@datastore.group("migrate")
def migrate() -> None:
    """Move everything to another datastore."""


@migrate.command("lock")
@click.pass_obj
def lock(settings: Settings) -> None:
    """No address is allocated or released until `unlock`."""
    ask(settings, lambda store: migration.set_lock(store, True))
    click.echo("Datastore locked.")


@migrate.command("unlock")
@click.pass_obj
def unlock(settings: Settings) -> None:
    """Let the nodes work with the datastore."""
    ask(settings, lambda store: migration.set_lock(store, False))
    click.echo("Datastore unlocked.")


@migrate.command("export")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.pass_obj
def export(settings: Settings, output: str) -> None:
    """Write every object of a locked datastore to standard output."""
    documents = ask(settings, migration.export_documents)
    click.echo(text_of(documents, output), nl=False)


@migrate.command("import")
@click.option(
    "-f",
    "--filename",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="What `export` wrote; - is standard input.",
)
@click.pass_obj
def import_(settings: Settings, filename: Path) -> None:
    """Write what was exported into an empty datastore, and leave that locked."""
    documents = read_file(filename)

    async def question(store: Datastore) -> int:
        return await migration.import_documents(
            store,
            documents,
            has_nodes=isinstance(store, KubernetesDatastore),
            warn=lambda text: click.echo(f"Warning: {text}", err=True),
        )

    count = ask(settings, question)
    click.echo(f"Imported {count} objects. The datastore is locked: unlock it when the nodes use it.")


def text_of(documents: list[dict[str, Any]], output: str) -> str:
    """The file's text: YAML documents, or one JSON list."""
    if output == "json":
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=1) + "\n"
    text: str = yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False, explicit_start=True)
    return text


def read_file(path: Path) -> list[Any]:
    """The documents of a file, members of lists one by one. Raise click.ClickException."""
    try:
        with click.open_file(str(path)) as file:
            text = file.read()
        loaded = [json.loads(text)] if text.lstrip().startswith("{") else list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}.") from error
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise click.ClickException(f"{path} is neither YAML nor JSON: {error}.") from error
    return list(_members(loaded))


def _members(documents: Iterable[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items") or []
        elif document is not None:
            yield document
