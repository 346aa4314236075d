"""Requests to the Kubernetes API: in threads, with timeouts and retries, with errors of ours."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import net
from worker.api import retry
from worker.api.runners.protocol import RunnerUnavailable
from worker.api.runners.threads import SharedThreads, Threads
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

RULES: Final = {
    ("batch", "jobs"): frozenset({"create", "get", "list", "patch"}),
    ("", "pods"): frozenset({"list"}),
    ("", "pods/log"): frozenset({"get"}),
    ("", "secrets"): frozenset({"create"}),
}
"""Everything that the runner does; the Role of docker/k8s/api.yaml allows exactly this."""

_LOG: Final = "pods/log"
_METHODS: Final = {"create": "POST", "get": "GET", "list": "GET", "patch": "PATCH"}
_PREFIXES: Final = {"batch": "/apis/batch/v1", "": "/api/v1"}
_TIMEOUT_S: Final = (3.0, 15.0)  # to connect, to read
_THREADS: Final = 16
_DOWNLOAD_THREADS: Final = 8
_DOWNLOADS_PER_ACCOUNT: Final = 2
_DELAYS_S: Final = (0.2, 0.5, 1.0)
_RETRY_AFTER_MAX_S: Final = 5.0
_TEMPORARY: Final = frozenset({408, 429, 500, 502, 503, 504})
_PAGE: Final = 500
_SERVICE_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT_NAMESPACE: Final = "worker"


class ClusterError(Exception):
    """The API server answered with an error: its HTTP status, and its message as `str()`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    content: bytes


class Cluster:
    """One namespace of the cluster that this process runs in, or that `kubectl` would use."""

    def __init__(self, namespace: str | None) -> None:
        """Read the configuration.

        Raises:
            SettingError: no cluster is configured.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - used only by this runner

        # By name: the library is only partly typed.
        client: Any = importlib.import_module("kubernetes.client")
        config: Any = importlib.import_module("kubernetes.config")

        self._lost = (HTTPError, client.ApiException, OSError)
        configuration = client.Configuration()
        configuration.retries = False
        found: str | None = None
        try:
            config.load_incluster_config(client_configuration=configuration)
            found = _read(_SERVICE_ACCOUNT_NAMESPACE)
        except config.ConfigException:
            try:
                # The library itself reads the variable only once, when it is imported.
                file = os.environ.get("KUBECONFIG") or None
                config.load_kube_config(file, client_configuration=configuration)
                found = config.list_kube_config_contexts(file)[1]["context"].get("namespace")
            except (config.ConfigException, OSError) as error:
                raise SettingError(
                    "WORKER_RUNNER=kubernetes: no cluster is configured here; run it inside one, "
                    "or set KUBECONFIG to a kubeconfig file"
                ) from error
        self.namespace = namespace or found or _DEFAULT_NAMESPACE
        self.host = configuration.host
        if net.is_on_this_machine(self.host):
            configuration.proxy = None
        self._client = client.ApiClient(configuration)
        self._threads = Threads(_THREADS, "kubernetes")
        self._downloads = SharedThreads(
            _DOWNLOAD_THREADS, _DOWNLOADS_PER_ACCOUNT, "kubernetes-download"
        )

    def close(self) -> None:
        """Close the connections; requests in progress end by themselves."""
        self._threads.close()
        self._downloads.close()
        self._client.rest_client.close()

    async def request(
        self,
        verb: str,
        resource: str,
        name: str = "",
        *,
        group: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        """Make a request; up to three times more while there is no answer, or a temporary error.

        Args:
            verb: as in a Role.
            resource: in the plural.
            name: of the object, unless it is created or listed.
            group: the API group of the resource.
            query: further parameters.
            body: JSON.

        Raises:
            ClusterError: the server answered with an error.
            RunnerUnavailable: it did not answer, or does not allow the request.
        """
        path = self._path(verb, resource, name, group)
        send = partial(self._send_once, _METHODS[verb], path, dict(query or {}), body)
        return json.loads(
            self._content(verb, resource, await self._retried(partial(self._threads.call, send)))
        )

    async def log(self, account: str, pod: str, query: Mapping[str, str]) -> bytes:
        """A pod's log; slow downloads occupy the account's share of threads only.

        Raises:
            ClusterError: the server answered with an error.
            RunnerUnavailable: it did not answer, or does not allow the request.
        """
        path = self._path("get", _LOG, pod, "")
        send = partial(self._send_once, "GET", path, dict(query), None)
        answer = await self._retried(partial(self._downloads.call, account, send))
        return self._content("get", _LOG, answer)

    def _path(self, verb: str, resource: str, name: str, group: str) -> str:
        if verb not in RULES[group, resource]:
            raise AssertionError(f"{verb} {resource}: not in the Role")
        kind, _, part = resource.partition("/")
        path = f"{_PREFIXES[group]}/namespaces/{self.namespace}/{kind}"
        return path + "".join(f"/{each}" for each in (name, part) if each)

    def _content(self, verb: str, resource: str, answer: _Answer) -> bytes:
        if answer.status < HTTPStatus.BAD_REQUEST:
            return answer.content
        message = _message(answer.content)
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and not (
            _is_quota(message)
        ):
            raise RunnerUnavailable(
                f"the cluster does not allow to {verb} {resource} in {self.namespace}: {message}"
            )
        raise ClusterError(answer.status, message)

    async def list(self, resource: str, selector: str, *, group: str = "") -> list[dict[str, Any]]:
        """All objects that a label selector matches; reads every page."""
        found: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = await self.request("list", resource, group=group, query=query)
            found += page["items"]
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return found

    async def _retried(self, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
        try:
            return await retry.call(
                send,
                delays_s=_DELAYS_S,
                retry_after_max_s=_RETRY_AFTER_MAX_S,
            )
        except retry.TemporaryFailure as error:
            raise RunnerUnavailable(
                f"the Kubernetes API at {self.host} does not answer: {error}"
            ) from error

    def _send_once(self, method: str, path: str, query: dict[str, str], body: Any) -> _Answer:
        """Blocks; TemporaryFailure if another attempt may succeed."""
        try:
            response = self._call(method, path, query, body)
            content = response.read() or b""
        except self._lost as error:
            raise retry.TemporaryFailure(type(error).__name__) from error
        if response.status in _TEMPORARY:
            after = response.getheader("Retry-After") or ""
            raise retry.TemporaryFailure(
                f"HTTP {response.status}", retry_after_s=float(after) if after.isdigit() else 0.0
            )
        return _Answer(status=response.status, content=content)

    def _call(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        request = self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        return self._client.call_api(*request, _request_timeout=_TIMEOUT_S)


def _read(file: Path) -> str | None:
    return file.read_text().strip() if file.is_file() else None


def _message(content: bytes) -> str:
    """The message of a Status object (meta/v1)."""
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")[:200]


def _is_quota(message: str) -> bool:
    return "exceeded quota" in message
