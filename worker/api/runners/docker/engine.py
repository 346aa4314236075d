"""Calls to the Docker Engine API: in threads, with timeouts and retries, with errors of ours."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker import net
from worker.api import retry
from worker.api.runners.protocol import RunnerUnavailable
from worker.api.runners.threads import SharedThreads, Threads
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

_TIMEOUT_S: Final = 20
_THREADS: Final = 8
_STOPS_MIN: Final = 16
_STOPS_PER_CONTAINER: Final = 2
_CALL_THREADS: Final = 16
_CALLS_PER_ACCOUNT: Final = 4
_SLOW_THREADS: Final = 8
_SLOW_PER_ACCOUNT: Final = 2
_DELAYS_S: Final = (0.1, 0.4, 1.0)
_CHUNK_BYTES: Final = 1 << 20
_MACHINE_FAULTS: Final = (
    *("no space left on device", "disk quota exceeded", "read-only file system"),
    *("input/output error", "cannot allocate memory", "resource temporarily unavailable"),
    *("too many open files", "device or resource busy", "deadline exceeded"),
)
"""Texts of errno values, and of Go's context package, in the engine's messages."""
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})


def _client_class(docker: Any, url: str) -> Any:
    """The library's client; for an engine on this machine, one that ignores proxies."""
    if not net.is_on_this_machine(url):
        return docker.APIClient

    class DirectClient(docker.APIClient):  # type: ignore[misc]  # the library is untyped
        def merge_environment_settings(self, *args: Any) -> Any:
            self.trust_env = False  # requests.Session: the constructor makes a request already
            return super().merge_environment_settings(*args)

    return DirectClient


class EngineError(Exception):
    """The engine answered with an error: its HTTP status, and its message as `str()`."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    @property
    def is_machine_fault(self) -> bool:
        """Whether the engine's machine lacks something: a later attempt may succeed."""
        text = str(self).lower()
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and any(
            each in text for each in _MACHINE_FAULTS
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errors:
    """The library's errors: an answer of the engine, and no answer of the engine at `url`."""

    api: type[Any]
    lost: tuple[type[Exception], ...]
    url: str


class Calls:
    """Calls to the engine in threads of one purpose."""

    def __init__(self, run: Callable[..., Awaitable[Any]], errors: _Errors) -> None:
        self._run = run
        self._errors = errors

    async def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call; up to three times more while the engine does not answer.

        Raises:
            EngineError: the engine answered with an error.
            RunnerUnavailable: it did not answer.
        """
        return await retry.call(
            partial(self.call_once, function, *arguments, **named),
            delays_s=_DELAYS_S,
            on=RunnerUnavailable,
        )

    async def call_once(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call without a retry, for what must not be done twice.

        Raises:
            EngineError: the engine answered with an error.
            RunnerUnavailable: it did not answer.
        """
        try:
            return await self._run(function, *arguments, **named)
        except self._errors.api as error:
            raise EngineError(error.status_code or 0, str(error.explanation or error)) from error
        except self._errors.lost as error:
            raise RunnerUnavailable(
                f"the Docker engine at {self._errors.url} does not answer"
            ) from error

    async def call_if_present(
        self, function: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Any:
        """Call; None if the object does not exist or is in another state by now.

        Raises:
            RunnerUnavailable: the engine did not answer, or answered with another error.
        """
        try:
            return await self.call(function, *arguments, **named)
        except EngineError as error:
            if error.status in _GONE:
                return None
            raise RunnerUnavailable(f"the Docker engine answered with an error: {error}") from error


class Engine(Calls):
    """The engine that `docker` would use: DOCKER_HOST, or the local socket.

    Its own calls are those of the runner. `stopping` makes calls that last as long as a container's
    grace period, in as many threads as there may be.
    """

    def __init__(self, *, max_running: int = 0) -> None:
        """Connect.

        Args:
            max_running: the maximum number of running containers.

        Raises:
            SettingError: no engine answers.
        """
        # By name: mypy would take the folder `docker` of the source tree for the library.
        docker: Any = importlib.import_module("docker")
        import requests  # noqa: PLC0415 - as heavy as the library above, and used only here
        import urllib3  # noqa: PLC0415 - the same

        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        lost = (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
        )
        found = docker.utils.kwargs_from_env()
        url = found.get("base_url", "unix:///var/run/docker.sock")
        try:
            self.client = _client_class(docker, url)(version="auto", timeout=_TIMEOUT_S, **found)
        except lost as error:
            raise SettingError(
                f"WORKER_RUNNER=docker: no Docker engine answers at {url}; start it, let "
                "this user open its socket, or set DOCKER_HOST"
            ) from error
        errors = _Errors(api=docker.errors.APIError, lost=lost, url=url)
        self._threads = Threads(_THREADS, "docker")
        stops = max(_STOPS_MIN, _STOPS_PER_CONTAINER * max_running)  # by client and watchdog
        self._stop_threads = Threads(stops, "docker-stop")
        self._call_threads = SharedThreads(_CALL_THREADS, _CALLS_PER_ACCOUNT, "docker-call")
        self._read_threads = SharedThreads(_SLOW_THREADS, _SLOW_PER_ACCOUNT, "docker-read")
        self._removal_threads = SharedThreads(_SLOW_THREADS, _SLOW_PER_ACCOUNT, "docker-removal")
        super().__init__(self._threads.call, errors)
        self.stopping = Calls(self._stop_threads.call, errors)

    def close(self) -> None:
        """Close the connections; calls in progress end by themselves."""
        own = (self._call_threads, self._read_threads, self._removal_threads)
        for threads in (self._threads, self._stop_threads, *own):
            threads.close()
        self.client.close()

    def of(self, account: str) -> Calls:
        """Calls about an account's containers: the engine may be slow to answer for one of them."""
        return Calls(partial(self._call_threads.call, account), self._errors)

    def reading(self, account: str) -> Calls:
        """Calls that read files or logs: slow ones occupy the account's share of threads only."""
        return Calls(partial(self._read_threads.call, account), self._errors)

    def removing(self, account: str) -> Calls:
        """Calls that remove containers with their files, which may be many."""
        return Calls(partial(self._removal_threads.call, account), self._errors)

    def read_archive(self, container: str, path: str) -> Generator[bytes]:
        """The tar stream of a path in a container; blocks, so use `call` for it and its chunks.

        The library's own function does not end the answer when its stream is closed.
        """
        client = self.client
        answer = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{container}/archive",
            params={"path": path},
            stream=True,
            timeout=client.timeout,
        )
        if answer.status_code != HTTPStatus.OK:
            with answer:
                raise EngineError(answer.status_code, f"it has no archive of {path}")
        return _chunks(answer)

    async def require(
        self, inspect: Callable[..., Any], name: str, kind: str, setting: str
    ) -> None:
        """Check that an object exists; close the connections if it does not.

        Args:
            inspect: the client's method that reads it.
            name: the object's name.
            kind: what it is, for the error's text.
            setting: the variable that names it.

        Raises:
            SettingError: it does not exist, or the engine does not answer.
        """
        try:
            await self.call(inspect, name)
        except EngineError as error:
            self.close()
            raise SettingError(
                f"{setting}: the Docker engine has no {kind} {name!r}; create it, or set another"
            ) from error
        except RunnerUnavailable as error:
            self.close()
            raise SettingError(f"WORKER_RUNNER=docker: {error}") from error


def _chunks(answer: Any) -> Generator[bytes]:
    with answer:
        yield from answer.iter_content(_CHUNK_BYTES)
