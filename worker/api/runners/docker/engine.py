"""The Docker Engine's API: its calls made in threads, bounded in time, its errors made ours."""

from __future__ import annotations

import asyncio
import importlib
import logging
import tarfile
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.protocol import RunnerUnavailable
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_S: Final = 20
_THREADS: Final = 8
_DELAYS_S: Final = (0.1, 0.4, 1.0)
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})


class EngineError(Exception):
    """The engine answered, and said no.

    `status` is its HTTP status, and `str()` its own words.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Engine:
    """One engine, found as `docker` finds it: DOCKER_HOST, or the local socket."""

    def __init__(self) -> None:
        """Raises SettingError when no engine answers."""
        # By name: for mypy the folder `docker` of the source tree would hide the library.
        docker: Any = importlib.import_module("docker")
        import requests  # noqa: PLC0415 - as heavy as the library above, and only wanted here
        import urllib3  # noqa: PLC0415 - the same

        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        self._api_error = docker.errors.APIError
        self._lost = (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            tarfile.TarError,  # an answer that breaks off, as when a file grows while it is read
            OSError,
        )
        found = docker.utils.kwargs_from_env()
        self._url = found.get("base_url", "unix:///var/run/docker.sock")
        try:
            self.client = docker.APIClient(version="auto", timeout=_TIMEOUT_S, **found)
        except self._lost as error:
            raise SettingError(
                f"WORKER_RUNNER=docker: no Docker engine answers at {self._url}; start it, let "
                "this user open its socket, or set DOCKER_HOST"
            ) from error
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")

    def close(self) -> None:
        """Drop the connections; calls that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()

    async def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call once more, up to three times, when the engine does not answer.

        Raises:
            EngineError: it said no.
            RunnerUnavailable: it never answered.
        """
        for delay_s in _DELAYS_S:
            try:
                return await self.call_once(function, *arguments, **named)
            except RunnerUnavailable:
                await asyncio.sleep(delay_s)
        return await self.call_once(function, *arguments, **named)

    async def call_once(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call what must not be done twice.

        Raises:
            EngineError: it said no.
            RunnerUnavailable: it did not answer.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: function(*arguments, **named))
        except self._api_error as error:
            raise EngineError(error.status_code or 0, str(error.explanation or error)) from error
        except self._lost as error:
            raise RunnerUnavailable(f"the Docker engine at {self._url} does not answer") from error

    async def call_if_there(
        self, function: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Any:
        """Call; None when what it is about is gone, or in another state by now."""
        try:
            return await self.call(function, *arguments, **named)
        except EngineError as error:
            if error.status in _GONE:
                return None
            raise RunnerUnavailable(f"the Docker engine said: {error}") from error
