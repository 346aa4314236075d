"""The account that is not attacked: what it does, how long that takes, and what fails."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import statistics
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import httpx
from rfb_client import Refused, Viewer

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_serve import WorkerServe

KINDS: Final = ("list", "get", "health", "task", "stream", "callback")
_ACCOUNT: Final = "alice"
_PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.02
_REQUEST_PAUSE_S: Final = 0.05
_TIMEOUT_S: Final = 30.0
_SERVER_ERROR: Final = 500
_ENDED: Final = ("success", "failed", "cancelled")


class Measurements:
    """Durations by kind, and errors."""

    kinds = KINDS

    def __init__(self) -> None:
        self._durations_s: dict[str, list[float]] = defaultdict(list)
        self.errors: list[tuple[str, str]] = []

    def add(self, kind: str, duration_s: float) -> None:
        """Add one duration."""
        self._durations_s[kind].append(duration_s)

    def count(self, kind: str) -> int:
        """How many succeeded."""
        return len(self._durations_s[kind])

    def p99(self, kind: str) -> float:
        """The 99th percentile in seconds; the largest value if there are fewer than 100."""
        durations = sorted(self._durations_s[kind])
        return durations[int(len(durations) * 0.99)] if durations else float("inf")

    def line(self, kind: str) -> str:
        """Number, median and 99th percentile, as text."""
        durations = self._durations_s[kind]
        if not durations:
            return "none"
        median = statistics.median(durations) * 1000
        return f"{len(durations)} × {median:.0f} / {self.p99(kind) * 1000:.0f} ms"


class Victim:
    """Uses an API as one account: lists, tasks, streams and callbacks, each in a thread."""

    def __init__(self, api: WorkerServe) -> None:
        self._api = api
        self._headers = {"x-api-key": api.key(_ACCOUNT)}
        self._receiver = _Receiver()
        self._measurements = Measurements()
        self._until_s = 0.0

    def measure(
        self, seconds: float, each_second: Callable[[], None] = lambda: None
    ) -> Measurements:
        """Work for this long and return what was measured."""
        self._measurements = Measurements()
        self._until_s = time.monotonic() + seconds
        works = (self._lists, self._tasks)
        threads = [threading.Thread(target=self._loop, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        while time.monotonic() < self._until_s:
            each_second()
            time.sleep(1)
        for thread in threads:
            thread.join()
        return self._measurements

    def close(self) -> None:
        """Stop receiving callbacks."""
        self._receiver.shutdown()

    def _loop(self, work: Callable[[httpx.Client], None]) -> None:
        # As if on another machine: a wait for the CPU would count as the API's.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        with httpx.Client(
            base_url=self._api.url, headers=self._headers, timeout=_TIMEOUT_S
        ) as client:
            while time.monotonic() < self._until_s:
                work(client)

    def _request(self, client: httpx.Client, kind: str, method: str, path: str, **more: Any) -> Any:
        began = time.monotonic()
        try:
            answer = client.request(method, path, **more)
        except httpx.HTTPError as error:
            self._measurements.errors.append((kind, f"{path}: {type(error).__name__}"))
            return None
        if answer.status_code >= _SERVER_ERROR or not answer.is_success:
            self._measurements.errors.append((kind, f"{path}: {answer.status_code} {answer.text}"))
            return None
        if kind in KINDS[:3]:
            self._measurements.add(kind, time.monotonic() - began)
        return answer.json()

    def _lists(self, client: httpx.Client) -> None:
        page = self._request(client, "list", "GET", "/api/v1/tasks")
        if page and page["tasks"]:
            self._request(client, "get", "GET", f"/api/v1/tasks/{page['tasks'][0]['task_id']}")
        self._request(client, "health", "GET", "/readyz")
        time.sleep(_REQUEST_PAUSE_S)

    def _tasks(self, client: httpx.Client) -> None:
        began = time.monotonic()
        body = {"endpoint_name": "victim", "callback_url": self._receiver.url}
        started = self._request(client, "task", "POST", "/api/v1/inference", json=body)
        if not started:
            time.sleep(1)
            return
        task_id = started["task_id"]
        self._stream(client, task_id)
        ended = self._end(client, task_id)
        if ended is None:
            return
        self._measurements.add("task", time.monotonic() - began)
        ended_at = time.monotonic()
        if self._receiver.wait(task_id, _PATIENCE_S):
            self._measurements.add("callback", time.monotonic() - ended_at)
        else:
            self._measurements.errors.append(("callback", f"none for {task_id}"))

    def _stream(self, client: httpx.Client, task_id: str) -> None:
        """Connect a viewer as soon as the task has a stream, and wait for its first picture."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            answer = client.get(f"/api/v1/tasks/{task_id}/stream")
            if answer.is_success:
                break
            status = self._request(client, "task", "GET", f"/api/v1/tasks/{task_id}")
            if status is None or status["status"] in _ENDED:
                return
            time.sleep(_POLL_S)
        began = time.monotonic()
        try:
            with Viewer.connect(answer.json()["stream_url"], timeout_s=_TIMEOUT_S) as viewer:
                viewer.request_update(incremental=False)
                viewer.read_update(_TIMEOUT_S)
        except Refused as error:
            self._measurements.errors.append(("stream", str(error)))
        except Exception as error:  # reported as what this account saw
            self._measurements.errors.append(("stream", f"{type(error).__name__}: {error}"))
        else:
            self._measurements.add("stream", time.monotonic() - began)

    def _end(self, client: httpx.Client, task_id: str) -> dict[str, Any] | None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            task: dict[str, Any] | None = self._request(
                client, "task", "GET", f"/api/v1/tasks/{task_id}"
            )
            if task is not None and task["status"] in _ENDED:
                if task["output"] == "done":
                    return task
                self._measurements.errors.append(("task", f"ended as {task}"))
                return None
            time.sleep(_POLL_S)
        self._measurements.errors.append(("task", f"{task_id} did not end"))
        return None


class _Receiver(http.server.ThreadingHTTPServer):
    """Receives callbacks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: set[str] = set()
        self.changed = threading.Condition()
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, task_id: str, timeout_s: float) -> bool:
        """Whether the callback of this task has arrived in time."""
        with self.changed:
            return self.changed.wait_for(lambda: task_id in self.received, timeout_s)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.changed:
            self.server.received.add(body["task_id"])
            self.server.changed.notify_all()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""
