"""A client of the Kubernetes API for modules: JSON over one kept connection, standard library only.

kubectl loads the API's whole description for every document it applies; this asks only what it needs.
Credentials come from a kubeconfig, which `kubectl config view` turns into JSON: the standard library reads
no YAML.
Every request can be repeated: server-side apply (PATCH), GET and DELETE by name.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

Document = dict[str, Any]
RunCommand = Callable[[list[str]], tuple[int, str, str]]  # words -> exit status, output, errors

JSON = "application/json"
APPLY = "application/apply-patch+yaml"  # server-side apply; JSON is YAML
LONGEST_PAUSE = 10.0  # seconds; what a server's Retry-After may ask for
# "Too many requests" and what a server or a proxy before it answers while it starts (RFC 6585, RFC 9110).
TRANSIENT_STATUS = (429, 502, 503, 504)
# What a server says in an internal error (500) that passes: etcd elects a leader, a webhook starts.
TRANSIENT_WORDS = (
    "etcdserver",
    "connection refused",
    "connection reset",
    "deadline exceeded",
    "timeout",
    "EOF",
)


class ApiError(Exception):
    """The API server refused or did not answer; the text has no full stop.

    `status` is HTTP's, 0 without an answer. `transient`: the same request may succeed a moment later.
    """

    def __init__(self, text: str, status: int = 0, transient: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.transient = transient


@dataclass(frozen=True)
class Access:
    """Where the API server is and who we are. The secrets are not part of its repr."""

    host: str
    port: int
    prefix: str  # path before /api, without a slash at its end
    context: ssl.SSLContext | None  # None: plain HTTP
    server_name: str  # the name that the server's certificate must have
    namespace: str  # of objects that name none
    authorization: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Resource:
    """How the objects of one kind are addressed."""

    plural: str
    namespaced: bool


def access(kubeconfig: str, kubectl: str, run_command: RunCommand, scratch: str) -> Access:
    """What a kubeconfig's current context says. `scratch`: directory for a key's moment on disk.

    Raise ApiError.
    """
    words = [
        kubectl,
        "--kubeconfig",
        kubeconfig,
        "config",
        "view",
        "--raw",
        "--minify",
        "--flatten",
        "-o",
        "json",
    ]
    status, output, errors = run_command(words)
    if status != 0:
        reason = " ".join(errors.split()) or f"kubectl ended with status {status}"
        raise ApiError(f"kubeconfig {kubeconfig} cannot be read: {reason}")
    try:
        config = json.loads(output)
        cluster = config["clusters"][0]["cluster"]
        user = ((config.get("users") or [{}])[0]).get("user") or {}
        context = config["contexts"][0]["context"]
        server = urlsplit(str(cluster["server"]))
        secure = server.scheme == "https"
        port = server.port or (443 if secure else 80)
    except (ValueError, LookupError, TypeError) as error:
        raise ApiError(f"kubeconfig {kubeconfig} has no complete current context ({error!r})") from error
    for name in ("exec", "auth-provider", "username"):
        if user.get(name):
            raise ApiError(
                f"kubeconfig {kubeconfig} has user.{name}, which is not supported here; use a client "
                "certificate or a token, as /etc/kubernetes/admin.conf does"
            )
    host = server.hostname or ""
    return Access(
        host=host,
        port=port,
        prefix=server.path.rstrip("/"),
        context=tls_context(cluster, user, scratch) if secure else None,
        server_name=str(cluster.get("tls-server-name") or host),
        namespace=str(context.get("namespace") or "default"),
        authorization=_authorization(user),
    )


def _authorization(user: Mapping[str, Any]) -> str:
    token = user.get("token")
    if not token and user.get("tokenFile"):
        try:
            token = Path(str(user["tokenFile"])).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ApiError(f"token file {user['tokenFile']} cannot be read: {error.strerror}") from error
    return f"Bearer {token}" if token else ""


def tls_context(cluster: Mapping[str, Any], user: Mapping[str, Any], scratch: str) -> ssl.SSLContext:
    """TLS as a flattened kubeconfig wants it. Raise ApiError."""
    try:
        ca = cluster.get("certificate-authority-data")
        context = ssl.create_default_context(cadata=base64.b64decode(ca).decode() if ca else None)
        # Python 3.13 wants extensions (RFC 5280) that certificates of older kubeadm lack. kubectl does not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = user.get("client-certificate-data"), user.get("client-key-data")
        if certificate and key:
            _load_pair(context, base64.b64decode(certificate), base64.b64decode(key), scratch)
    except (ssl.SSLError, binascii.Error, UnicodeDecodeError) as error:
        raise ApiError(f"the kubeconfig's certificates or key cannot be used: {error}") from error
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes, scratch: str) -> None:
    """OpenSSL reads a key from a file only: it exists for that moment, readable by its owner."""
    handle, name = tempfile.mkstemp(dir=scratch)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        context.load_cert_chain(name, password="")  # an encrypted key fails instead of asking
    finally:
        Path(name).unlink()


class _Tls(http.client.HTTPSConnection):
    """HTTPS whose certificate may have another name than the address."""

    def __init__(self, access: Access, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(access.host, access.port, timeout=timeout, context=context)
        self._tls_context = context
        self._server_name = access.server_name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls_context.wrap_socket(self.sock, server_hostname=self._server_name)


class Api:
    """The API server behind `access`, over a connection that is kept from request to request.

    `timeout`: seconds that the server may be silent; a transient failure is tried `attempts` times in all,
    `pause` seconds apart. Every method raises ApiError.
    """

    def __init__(self, access: Access, timeout: float, attempts: int = 1, pause: float = 1.0) -> None:
        self.access = access
        self.requests = 0  # sent so far
        self._timeout = timeout
        self._attempts = attempts
        self._pause = pause
        self._connection: http.client.HTTPConnection | None = None
        self._kinds: dict[str, dict[str, Resource]] = {}

    def get(self, path: str) -> Document | None:
        """One object; None when it is not there."""
        try:
            return self._json(self.request("GET", path))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Document]:
        """The objects of a collection, each with its kind, which the server leaves out in lists."""
        found = self._json(self.request("GET", path, query))
        common = {"apiVersion": found["apiVersion"], "kind": str(found["kind"])[: -len("List")]}
        return [{**common, **item} for item in found.get("items") or []]

    def text(self, path: str, **query: str) -> str:
        """What is no JSON, such as a log."""
        return self.request("GET", path, query).decode("utf-8", "replace")

    def apply(self, document: Document, manager: str, dry_run: bool = False) -> Document:
        """Server-side apply, also against the will of other managers of its fields; the object as stored."""
        query = {"fieldManager": manager, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        return self._json(self.request("PATCH", self.path_of(document), query, json.dumps(document), APPLY))

    def delete(self, path: str, **query: str) -> None:
        """Delete an object or, where the server can, a collection; what is not there is no error."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background", **query})
        except ApiError as error:
            if error.status != 404:
                raise

    def path_of(self, document: Document) -> str:
        """Where an object is, whether it exists or not; status 404 when the server does not know its kind."""
        version, metadata = str(document["apiVersion"]), document["metadata"]
        resource = self.resource(version, str(document["kind"]))
        namespace = str(metadata.get("namespace") or self.access.namespace) if resource.namespaced else ""
        return object_path(version, resource.plural, namespace, str(metadata["name"]))

    def resource(self, version: str, kind: str) -> Resource:
        """What discovery says about a kind; asked again for a kind that is not known yet."""
        if kind not in self._kinds.get(version, {}):
            found = self.get(version_path(version)) or {}
            self._kinds[version] = {
                str(item["kind"]): Resource(str(item["name"]), bool(item["namespaced"]))
                for item in found.get("resources") or []
                if "/" not in item["name"]  # subresources
            }
        if kind not in self._kinds[version]:
            raise ApiError(f"the API server knows no kind {kind} in version {version}", 404)
        return self._kinds[version][kind]

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """One request; the body of a successful answer."""
        target = f"{self.access.prefix}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": JSON, "Content-Type": content_type, "Authorization": self.access.authorization}
        headers = {name: value for name, value in headers.items() if value}
        data = None if body is None else body.encode()
        attempt = 0
        while True:
            attempt += 1
            pause = self._pause
            try:
                status, wait, answer = self._exchange(method, target, data, headers)
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise ApiError(
                    f"the API server at {self.access.place} is not to be trusted: {error.verify_message}; "
                    "is the kubeconfig of another cluster?"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = str(error) or type(error).__name__
                failure = ApiError(
                    f"the API server at {self.access.place} does not answer: {reason}", 0, True
                )
            else:
                if 200 <= status < 300:
                    return answer
                failure = refusal(status, answer, path, unserved_passes=method == "PATCH")
                pause = max(pause, min(wait, LONGEST_PAUSE))
            if not failure.transient or attempt >= self._attempts:
                raise failure
            time.sleep(pause)

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, float, bytes]:
        """Status, seconds of Retry-After (0 without) and body. A kept connection may have ended meanwhile."""
        kept = self._connection is not None
        try:
            return self._send(method, target, data, headers)
        except (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self.close()
            if not kept:
                raise
        return self._send(method, target, data, headers)

    def _send(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, float, bytes]:
        connection = self._connection = self._connection or self._connect()
        self.requests += 1
        connection.request(method, target, data, headers)
        response = connection.getresponse()
        wait = str(response.headers.get("Retry-After") or "")
        return response.status, float(wait) if wait.isdecimal() else 0.0, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        at = self.access
        if at.context is None:
            return http.client.HTTPConnection(at.host, at.port, timeout=self._timeout)
        return _Tls(at, at.context, self._timeout)

    def close(self) -> None:
        """End the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _json(self, answer: bytes) -> Document:
        try:
            found: Document = json.loads(answer)
        except ValueError as error:
            raise ApiError(f"what answers at {self.access.place} is no API server: {error}") from error
        return found


def version_path(version: str) -> str:
    """Where a group's version (`v1`, `apps/v1`) is served."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def object_path(version: str, plural: str, namespace: str = "", name: str = "") -> str:
    """The path of an object; without a name that of the collection, without a namespace that of all."""
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{version_path(version)}{inside}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def refusal(status: int, answer: bytes, path: str, unserved_passes: bool = False) -> ApiError:
    """A failure in the server's own words (metav1.Status).

    `unserved_passes`: treat a path that is not served as transient: a new kind is announced a moment early.
    """
    text = answer.decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict) and said.get("kind") == "Status":
        text = str(said.get("message") or said.get("reason") or "")
    elif status == 404:
        return ApiError(f"the API server does not serve {path}", status, unserved_passes)
    transient = status in TRANSIENT_STATUS or (
        status == 500 and any(word in text for word in TRANSIENT_WORDS)
    )
    return ApiError(" ".join(text.split()).rstrip(".") or f"HTTP status {status}", status, transient)
