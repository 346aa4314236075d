"""The attackers: processes of low priority, since real ones do not share the machine's CPU."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
from rfb_client import Ended, Lost, Refused, Viewer

if TYPE_CHECKING:
    from worker_serve import WorkerServe

ACCOUNT: Final = "mallory"
_HOST: Final = "127.0.0.1"
_NICE: Final = 19
_JOIN_S: Final = 30.0
_TIMEOUT_S: Final = 10.0
_WATCHED_S: Final = 3.0
_REQUESTS_PER_S: Final = 2000
_SLOW_CONNECTIONS: Final = 1024
_HEAD_FLOOD_BYTES: Final = 64 * 2**20
_RESULTS: Final = (
    *("nested", "infinite", "surrogate", "year_1", "error_type", "empty"),
    *("fifo", "link", "folder", "sparse", "deep", "many"),
)
_PROCESSES: Final = (
    *("forks", "stops_worker", "ignores_signals", "prints", "raises"),
    *("forges_events", "reads_state", "returns_much"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is attacked: the API's port, its URL, and the hostile account's key."""

    url: str
    port: int
    key: str


Attacker = Callable[[Target, Event], Counter[str]]


@contextlib.contextmanager
def attack(api: WorkerServe, only: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Run the attackers; what each of them did, by its name, is complete after the end."""
    reports = dict.fromkeys(only or ATTACKERS, "")
    target = Target(
        url=api.url, port=urlsplit(api.url).port or 0, key=api.key(ACCOUNT, "--control")
    )
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=_run, name=name, args=(name, target, over, answers), daemon=True)
        for name in reports
    ]
    for process in processes:
        process.start()
    try:
        yield reports
    finally:
        over.set()
        for process in processes:
            process.join(_JOIN_S)
            if process.is_alive():
                process.kill()
        while not answers.empty():
            name, done = answers.get()
            reports[name] = done


def _run(name: str, target: Target, over: Event, answers: Any) -> None:
    _yield_cpu()
    done = ATTACKERS[name](target, over)
    answers.put((name, ", ".join(f"{what} {count}" for what, count in sorted(done.items()))))


def _yield_cpu() -> None:
    """Leave the CPU to others; with autogroups it is shared out by session (sched(7))."""
    os.setsid()
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE), encoding="ascii")


# -- as an account


def account_tasks(target: Target, over: Event) -> Counter[str]:
    """Fill the queue with hostile tasks whose callbacks are never accepted."""
    done: Counter[str] = Counter()
    kinds = itertools.cycle(
        [("hostile_result", kind) for kind in _RESULTS]
        + [("hostile_process", kind) for kind in _PROCESSES]
    )
    with _hanging_receiver() as receiver, _client(target) as client:
        for endpoint, kind in kinds:
            if over.wait(0.2):
                return done
            body = {
                "endpoint_name": endpoint,
                "input_parameters": {"kind": kind},
                "callback_url": receiver,
                "timeout_s": 10,
            }
            done[_status(client, "POST", "/api/v1/inference", json=body)] += 1
    return done


def account_requests(target: Target, over: Event) -> Counter[str]:
    """Read everything of the hostile tasks, with odd names, cursors and bodies."""
    done: Counter[str] = Counter()
    chance = random.Random(1)  # noqa: S311 - chooses requests
    with _client(target) as client:
        while not over.wait(0.05):
            found = _tasks(client, "limit=100")
            for task in chance.sample(found, min(5, len(found))):
                path = f"/api/v1/tasks/{task['task_id']}"
                if over.is_set():  # a round can take longer than the end is waited for
                    return done
                for tail in (
                    "",
                    "/artifacts",
                    "/artifacts/task.log",
                    "/stream",
                    "/artifacts/%2e%2e",
                ):
                    done[_status(client, "GET", path + tail)] += 1
            done[_status(client, "GET", "/api/v1/tasks?cursor=%ff&limit=-1")] += 1
            odd = b'{"endpoint_name": "victim", "input_parameters": ' + b"[" * 100_000
            done[_status(client, "POST", "/api/v1/inference", content=odd)] += 1
    return done


def viewer(target: Target, over: Event) -> Counter[str]:
    """Watch a task of the account with hostile RFB messages."""
    done: Counter[str] = Counter()
    chance = random.Random(2)  # noqa: S311 - chooses messages
    with _client(target) as client:
        while not over.wait(0.2):
            found = _tasks(client, "status=running")
            for task in found:
                path = f"/api/v1/tasks/{task['task_id']}/stream?role=control"
                answer = _json(client, path)
                if answer and "stream_url" in answer:
                    done[_hostile_viewer(answer["stream_url"], chance, over)] += 1
    return done


def _hostile_viewer(url: str, chance: random.Random, over: Event) -> str:
    try:
        with Viewer.connect(url, timeout_s=_TIMEOUT_S) as watcher:
            watcher.set_encodings(*[6, 16, 7, 5, 0, -247, -32, *range(-300, -200)])
            for _ in range(500):
                width, height = chance.choice([(0, 0), (0, 5), (65535, 65535), (1920, 1080)])
                watcher.raw(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
                watcher.raw(struct.pack(">BBHI", 4, 1, 0, chance.randrange(2**32)))
                if over.is_set():
                    break
            return f"closed {watcher.wait_closed(_WATCHED_S).code}"
    except TimeoutError:
        return "watched"
    except (Ended, Lost, Refused) as error:
        return type(error).__name__


# -- without an account


def header_flood(target: Target, over: Event) -> Counter[str]:
    """Send header lines without end."""
    done: Counter[str] = Counter()
    line = b"x-flood: " + b"a" * 1000 + b"\r\n"
    while not over.wait(0.1):
        with _connected(target) as connection, contextlib.suppress(OSError):
            connection.sendall(b"GET /api/v1/tasks HTTP/1.1\r\nhost: a\r\n")
            for _ in range(_HEAD_FLOOD_BYTES // len(line)):
                connection.sendall(line)
        done["connections"] += 1
    return done


def slow_connections(target: Target, over: Event) -> Counter[str]:
    """Keep many connections open whose requests do not end."""
    done: Counter[str] = Counter()
    held: list[socket.socket] = []
    while not over.wait(0.01):
        try:
            connection = socket.create_connection((_HOST, target.port), _TIMEOUT_S)
            connection.sendall(
                b"POST /api/v1/inference HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n"
            )
            held.append(connection)
            done["connections"] += 1
        except OSError:
            done["failed"] += 1
        if len(held) > _SLOW_CONNECTIONS:
            held.pop(0).close()
    for connection in held:
        connection.close()
    return done


def request_flood(target: Target, over: Event) -> Counter[str]:
    """Send complete requests that are refused, at a fixed rate, to the API and to a stream."""
    done: Counter[str] = Counter()
    ports = _Ports(target, over)
    step_s, per_step = 0.05, int(_REQUESTS_PER_S * 0.05)
    due = time.monotonic()
    while not over.is_set():
        due = max(due + step_s, time.monotonic() - step_s)
        for number in range(per_step):
            port = ports.stream if number % 2 and ports.stream else target.port
            request = b"GET /tasks/a/websockify?token=b HTTP/1.1\r\nhost: a\r\n\r\n"
            try:
                with socket.create_connection((_HOST, port), 1) as connection:
                    connection.sendall(request)
                done["requests"] += 1
            except OSError:
                done["failed"] += 1
        over.wait(max(0.0, due - time.monotonic()))
    return done


class _Ports:
    """The port of a running task's stream, looked up from time to time."""

    def __init__(self, target: Target, over: Event) -> None:
        self.stream: int | None = None
        self._target = target
        self._over = over
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        with _client(self._target) as client:
            while not self._over.wait(0.5):
                found = _tasks(client, "status=running")
                for task in found:
                    path = f"/api/v1/tasks/{task['task_id']}/stream"
                    answer = _json(client, path)
                    if answer and "stream_url" in answer:
                        self.stream = urlsplit(answer["stream_url"]).port


ATTACKERS: Final[dict[str, Attacker]] = {
    each.__name__: each
    for each in (
        *(account_tasks, account_requests, viewer),
        *(header_flood, slow_connections, request_flood),
    )
}


# -- helpers


def _client(target: Target) -> httpx.Client:
    return httpx.Client(base_url=target.url, headers={"x-api-key": target.key}, timeout=_TIMEOUT_S)


def _status(client: httpx.Client, method: str, path: str, **more: Any) -> str:
    """The status of the answer, or the error's name."""
    try:
        return str(client.request(method, path, **more).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _json(client: httpx.Client, path: str) -> Any:
    try:
        answer = client.get(path)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _tasks(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    page = _json(client, f"/api/v1/tasks?{query}")
    tasks: list[dict[str, Any]] = page["tasks"] if page else []
    return tasks


@contextlib.contextmanager
def _connected(target: Target) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        while True:
            try:
                connection = socket.create_connection((_HOST, target.port), _TIMEOUT_S)
                break
            except OSError:
                time.sleep(0.1)
        yield stack.enter_context(connection)


@contextlib.contextmanager
def _hanging_receiver() -> Iterator[str]:
    """A URL whose server accepts connections and never answers."""
    with socket.create_server((_HOST, 0), backlog=256) as listener:
        yield f"http://{_HOST}:{listener.getsockname()[1]}/"
