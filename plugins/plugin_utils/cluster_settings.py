# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The settings of every host of the cluster as the roles will see them. Runs on the controller only.

Inside a play a host sees the roles' defaults, but the host variables of the others do not have them: they
are read from the roles' own files and laid under what the inventory says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

COLLECTION = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """values: by host, then by variable; names: what the inventory sets, by host; known: what the roles
    define; broken: sentences.
    """

    values: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, list[str]]
    known: frozenset[str]
    broken: list[str]


def role_defaults(loader: DataLoader) -> dict[str, Any]:
    """Every public variable that has a default, with its untemplated value."""
    defaults: dict[str, Any] = {}
    for path in sorted(COLLECTION.glob("roles/*/defaults/main.yml")):
        defaults.update(loader.load_from_file(str(path), trusted_as_template=True) or {})
    return defaults


def role_options(loader: DataLoader) -> set[str]:
    """Every public variable that a role documents, those without a default too."""
    names: set[str] = set()
    for path in sorted(COLLECTION.glob("roles/*/meta/argument_specs.yml")):
        document = loader.load_from_file(str(path)) or {}
        for entry in document.get("argument_specs", {}).values():
            names.update(entry.get("options", {}))
    return names


def collect(hosts: list[str], task_vars: Mapping[str, Any], templar: Templar, loader: DataLoader) -> Settings:
    """The settings of these hosts. A variable that cannot be evaluated is left out and becomes a sentence."""
    defaults = role_defaults(loader)
    known = frozenset(defaults) | role_options(loader)
    values: dict[str, dict[str, Any]] = {}
    names: dict[str, list[str]] = {}
    broken: dict[str, str] = {}
    for host in hosts:
        raw = task_vars["hostvars"].raw_get(host)
        names[host] = [str(name) for name in raw]
        scope = {**defaults, **raw, "hostvars": task_vars["hostvars"], "groups": task_vars["groups"]}
        own = templar.copy_with_new_env(available_variables=scope)
        values[host] = {}
        for name in sorted(known & set(scope)):
            try:
                values[host][name] = own.template(scope[name])
            except AnsibleError as error:
                reason = " ".join(str(error.message).split())
                broken.setdefault(
                    name, f"{name} of host '{host}' cannot be evaluated: {reason}; correct its expression."
                )
    return Settings(values, names, known, list(broken.values()))
