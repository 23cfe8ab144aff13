"""tortiectl in this process, with an administrator's rights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from tests.components.apiserver import ApiServer
from tortie.cli.main import main


@dataclass(frozen=True, slots=True)
class Result:
    """What a run printed and how it ended."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Tool:
    """Runs commands against one API server or, when `etcd` names one, that etcd; `scratch` is for files."""

    server: ApiServer
    scratch: Path
    etcd: str = ""

    def run(self, *words: str, stdin: str = "") -> Result:
        """Any command. A traceback fails the test."""
        where = [] if self.etcd else ["--kubeconfig", str(self.server.kubeconfig)]
        environment = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": self.etcd} if self.etcd else {}
        result = CliRunner(env=environment).invoke(main, [*where, *words], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    def ok(self, *words: str, stdin: str = "") -> str:
        """Output of a command that succeeds without a word of complaint."""
        result = self.run(*words, stdin=stdin)
        assert (result.status, result.stderr) == (0, ""), result
        return result.stdout

    def fails(self, *words: str, stdin: str = "") -> str:
        """What a command that fails says."""
        result = self.run(*words, stdin=stdin)
        assert result.status == 1, result
        return result.stderr

    def write(self, verb: str, *documents: dict[str, Any], options: tuple[str, ...] = ()) -> str:
        """create, apply or replace documents that must be accepted."""
        return self.ok(verb, "-f", "-", *options, stdin=yaml.safe_dump_all(documents))

    def refused(self, verb: str, *documents: dict[str, Any], options: tuple[str, ...] = ()) -> str:
        """create, apply or replace documents that must not be."""
        return self.fails(verb, "-f", "-", *options, stdin=yaml.safe_dump_all(documents))

    def get(self, *words: str) -> Any:
        """An object or list as JSON."""
        return json.loads(self.ok("get", *words, "-o", "json"))

    def stored(self, plural: str, name: str, namespace: str = "") -> Any:
        """The object as it stands in the API server."""
        scope = f"/namespaces/{namespace}" if namespace else ""
        return self.server.request("GET", f"/apis/crd.projectcalico.org/v1{scope}/{plural}/{name}")
