"""The API client of the modules against a scripted server: what it asks for, repeats and refuses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import kube_api

Answer = tuple[int, Any, dict[str, str]]
CAT = {"apiVersion": "example.org/v1", "kind": "Cat", "metadata": {"name": "tom", "namespace": "home"}}
KINDS = {
    "resources": [
        {"name": "cats/status", "kind": "Cat", "namespaced": True},
        {"name": "cats", "kind": "Cat", "namespaced": True},
    ]
}


class Script(ThreadingHTTPServer):
    """Gives the answers in their order, one per request, and remembers the requests."""

    daemon_threads = True

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str]] = []  # content type, body
        self.connections = 0

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Script

    def answer(self) -> None:
        """Read the request; give the next answer. Status 0: end the connection instead."""
        self.server.asked.append((self.command, self.path))
        length = int(self.headers.get("Content-Length", 0))
        self.server.sent.append((self.headers["Content-Type"], self.rfile.read(length).decode()))
        status, body, headers = self.server.answers.pop(0)
        if status == 0:
            self.close_connection = True
            return
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: Any) -> None:
        """Silence."""


for _method in ("GET", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", Handler.answer)


@contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[Script, kube_api.Api]]:
    """A server that gives these answers, and a client that tries three times without a pause."""
    with Script(list(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        access = kube_api.Access("127.0.0.1", server.server_port, "", None, "", "default", "Bearer secret")
        api = kube_api.Api(access, timeout=10, attempts=3, pause=0.0)
        try:
            yield server, api
        finally:
            api.close()
            server.shutdown()
            thread.join()


def status(message: str, code: int = 400) -> Answer:
    """A refusal as the API server words it."""
    return code, {"kind": "Status", "message": message}, {}


def test_all_requests_go_over_one_connection() -> None:
    with scripted(*[(200, {"kind": "Cat"}, {})] * 5) as (server, api):
        for _each in range(5):
            assert api.get("/x") == {"kind": "Cat"}
        assert (server.connections, api.requests) == (1, 5)


def test_connection_that_ended_while_it_was_idle_is_replaced_without_an_attempt() -> None:
    with scripted((200, {}, {}), (0, "", {}), (200, {"a": 1}, {})) as (server, api):
        single = kube_api.Api(api.access, timeout=10, attempts=1)
        single.get("/x")
        assert single.get("/x") == {"a": 1}
        single.close()
        assert server.connections == 2


@pytest.mark.parametrize(
    "passing",
    [
        (429, "busy", {"Retry-After": "0"}),
        (502, "", {}),
        status("apiserver is shutting down", 503),
        status("etcdserver: leader changed", 500),
        (0, "", {}),
    ],
    ids=["too-many", "gateway", "unavailable", "election", "cut"],
)
def test_what_passes_is_tried_again(passing: Answer) -> None:
    with scripted(passing, (200, {"a": 1}, {})) as (_server, api):
        assert api.get("/x") == {"a": 1}


def test_attempts_are_bounded() -> None:
    with scripted(*[status("starting", 503)] * 3) as (server, api):
        with pytest.raises(kube_api.ApiError, match="starting") as caught:
            api.get("/x")
        assert (caught.value.status, len(server.asked)) == (503, 3)


@pytest.mark.parametrize("code", [400, 401, 403, 409, 422, 500])
def test_what_does_not_pass_is_said_at_once(code: int) -> None:
    with scripted(status('Service "x" is\n invalid.', code)) as (server, api):
        with pytest.raises(kube_api.ApiError) as caught:
            api.get("/x")
        assert (str(caught.value), caught.value.transient) == ('Service "x" is invalid', False)
        assert len(server.asked) == 1


def test_server_that_is_away_is_named_and_the_token_is_not() -> None:
    access = kube_api.Access("127.0.0.1", 1, "", None, "", "default", "Bearer secret")
    with pytest.raises(kube_api.ApiError, match=r"127\.0\.0\.1:1 does not answer: .*refused") as caught:
        kube_api.Api(access, timeout=5, attempts=2, pause=0.0).get("/x")
    assert caught.value.transient
    assert "secret" not in f"{caught.value} {access!r}"


def test_apply_is_a_patch_of_the_named_path_with_force_and_manager() -> None:
    with scripted((200, KINDS, {}), (200, CAT, {}), (201, CAT, {})) as (server, api):
        api.apply(CAT, "me", dry_run=True)
        api.apply(CAT, "me")
        path = "/apis/example.org/v1/namespaces/home/cats/tom?fieldManager=me&force=true"
        assert server.asked == [
            ("GET", "/apis/example.org/v1"),
            ("PATCH", f"{path}&dryRun=All"),
            ("PATCH", path),
        ]
        assert server.sent[1] == ("application/apply-patch+yaml", json.dumps(CAT))


def test_kind_that_is_announced_a_moment_before_it_is_served_is_tried_again() -> None:
    with scripted((200, KINDS, {}), (404, "404 page not found", {}), (201, CAT, {})) as (_server, api):
        assert api.apply(CAT, "me") == CAT


def test_missing_namespace_is_not_tried_again() -> None:
    with scripted((200, KINDS, {}), status('namespaces "home" not found', 404)) as (server, api):
        api.resource("example.org/v1", "Cat")
        with pytest.raises(kube_api.ApiError, match='namespaces "home" not found'):
            api.apply(CAT, "me")
        assert len(server.asked) == 2


def test_kind_that_appears_later_is_found_by_asking_again() -> None:
    nothing: dict[str, Any] = {"resources": []}
    with scripted((200, nothing, {}), (200, KINDS, {})) as (_server, api):
        with pytest.raises(kube_api.ApiError, match="no kind Cat in version"):
            api.resource("example.org/v1", "Cat")
        assert api.resource("example.org/v1", "Cat") == kube_api.Resource("cats", True)


def test_items_of_a_list_have_their_kind() -> None:
    answer = {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}]}
    with scripted((200, answer, {})) as (_server, api):
        found = api.items("/api/v1/pods", labelSelector="a=b")
    assert found == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}]


def test_deleting_what_is_not_there_is_no_error() -> None:
    with scripted(status("not found", 404)) as (server, api):
        api.delete("/x", gracePeriodSeconds="0")
        assert server.asked == [("DELETE", "/x?propagationPolicy=Background&gracePeriodSeconds=0")]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("v1", "nodes"), "/api/v1/nodes"),
        (("v1", "pods", "web", "p"), "/api/v1/namespaces/web/pods/p"),
        (("rbac.authorization.k8s.io/v1", "roles", "", "system:a/b"), "/roles/system%3Aa%2Fb"),
    ],
)
def test_path_of_an_object(arguments: tuple[str, ...], path: str) -> None:
    assert kube_api.object_path(*arguments).endswith(path)


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        ("", 1, "cannot be read: error: no such file"),
        ("{}", 0, "no complete current context"),
        (
            json.dumps(
                {
                    "clusters": [{"cluster": {"server": "http://h"}}],
                    "contexts": [{"context": {}}],
                    "users": [{"user": {"exec": {"command": "x"}}}],
                }
            ),
            0,
            "user.exec, which is not supported",
        ),
        (
            json.dumps(
                {
                    "clusters": [{"cluster": {"server": "https://h", "certificate-authority-data": "eA=="}}],
                    "contexts": [{"context": {}}],
                }
            ),
            0,
            "certificates or key cannot be used",
        ),
    ],
    ids=["missing", "empty", "exec", "no-certificate"],
)
def test_unusable_kubeconfig_is_described(output: str, status: int, words: str, tmp_path: Any) -> None:
    with pytest.raises(kube_api.ApiError, match=words):
        kube_api.access(
            "x.conf", "kubectl", lambda _words: (status, output, "error: no such file\n"), str(tmp_path)
        )
