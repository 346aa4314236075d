"""The gateway's configuration, in a real nginx: what it forwards, to whom, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import uuid
from pathlib import Path

import pytest
from api_server import read_all, status_of
from dns_server import DnsServer
from required import skip_or_fail
from worker_run import eventually

GATEWAY = Path(__file__).parents[2] / "docker" / "gateway"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
WORKER = "127.61.80.1"  # a loopback address of its own, for the fixed port 6080
WORKER_PORT = 6080
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: binary",
    "Origin: https://dashboard.example",
)
TASK = "053c5863-841d-49af-bbbe-c9b52f2c2fc9"  # in names of tests, which must not change


class Upstream:
    """A server that keeps the heads of requests, and closes after its answer."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server((WORKER, WORKER_PORT))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = connection.recv(65536)
                    if not data:
                        break
                    head += data
                if head == b"":
                    return
                self.heads.append(head)
                connection.sendall(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}")

    def stop(self) -> None:
        socket.create_connection((WORKER, WORKER_PORT)).close()
        self._thread.join()
        self._listener.close()


class Gateway:
    """nginx with the files of docker/gateway; only paths, ports and the resolver are replaced."""

    def __init__(self, folder: Path, dns_port: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        replaced = {
            "/tmp/": f"{folder}/",
            "/etc/nginx/": f"{folder}/",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "worker_processes auto": "worker_processes 1",
            "/dev/stdout": f"{folder}/access.log",
            "resolver 127.0.0.11": f"resolver 127.0.0.1:{dns_port}",
        }
        for source in GATEWAY.glob("*.conf"):
            text = source.read_text()
            for old, new in replaced.items():
                text = text.replace(old, new)
            (folder / source.name).write_text(text)
        folder.chmod(0o777)  # nginx changes its user if it is started by root
        self.log = folder / "access.log"
        command = [NGINX, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self._process = subprocess.Popen(command)
        try:
            eventually(self._listens, what="nginx listens")
        except BaseException:
            self.stop()
            raise

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    def answer(self, data: bytes) -> bytes:
        """Send this, and read until the gateway closes."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            return read_all(connection)

    def get(self, target: str, *headers: str, method: str = "GET") -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway", *HANDSHAKE, *headers]
        lines = [line for line in lines if line != "Connection: Upgrade"] + ["Connection: close"]
        return self.answer("\r\n".join([*lines, "", ""]).encode())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def upstream():
    started = Upstream()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def dns():
    with DnsServer() as server:
        server.names = {TASK: WORKER, "gateway": WORKER, "redis": WORKER, "localhost": WORKER}
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, dns):
    if not Path(NGINX).exists():
        skip_or_fail("nginx", "run `make setup`")
    folder = tmp_path_factory.mktemp("gateway")
    for parent in folder.parents[:2]:  # not /tmp itself
        with contextlib.suppress(PermissionError):
            parent.chmod(0o755)
    started = Gateway(folder, dns.port)
    yield started
    started.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "target",
    [
        f"/tasks/{TASK}/websockify?token=a.b.c",
        f"//tasks/./{TASK}//websockify?token=a.b.c",
        f"/x/../tasks/{TASK}/websockify?token=a.b.c",
        f"/tasks/%{ord(TASK[0]):x}{TASK[1:]}/websockify?token=a.b.c",
        f"/tasks%2f{TASK}/websockify?token=a.b.c",
        f"http://another-host:1/tasks/{TASK}/websockify?token=a.b.c",
    ],
    ids=lambda _: "",
)
def test_what_is_forwarded(gateway, upstream, target):
    """A request for a task reaches its worker with one form of the path and a few headers."""
    answer = gateway.get(target, "Cookie: session=1", "Authorization: Basic x", "X-Api-Key: wk_1")
    assert status_of(answer) == 409
    head = upstream.heads[-1].decode()
    assert head.startswith(f"GET /tasks/{TASK}/websockify?token=a.b.c HTTP/1.1\r\n")
    lines = head.split("\r\n")[1:]
    assert set(HANDSHAKE[2:]) <= set(lines)
    assert {"Upgrade: websocket", "Connection: upgrade", "X-Forwarded-For: 127.0.0.1"} <= set(lines)
    names = {line.partition(":")[0].lower() for line in lines}
    assert not names & {"cookie", "authorization", "x-api-key"}


def test_forwarded_for_is_not_the_clients_own(gateway, upstream):
    gateway.get(f"/tasks/{TASK}/websockify", "X-Forwarded-For: 6.6.6.6")
    assert upstream.heads[-1].count(b"X-Forwarded-For: 127.0.0.1\r\n") == 1
    assert b"6.6.6.6" not in upstream.heads[-1]


@pytest.mark.parametrize(
    "name",
    [
        "gateway",
        "redis",
        "localhost",
        "127.61.80.1",
        "2130706433",
        "example.com",
        f"{TASK}.example.com",
        f"{TASK}.",
        f"{TASK}:22",
        f"{TASK}@redis",
        f"{TASK}%40redis",
        f"{TASK}%3a22",
        f"{TASK}%23",
        f"{TASK}%00",
        f"{TASK}%0a",
        f"{TASK}%0d%0aX:%20y",
        f"{TASK}%252f",
        f"{TASK}%20",
        f"%25{TASK}",
        TASK.replace("-", ""),
        TASK[:-1],
        TASK + "0",
        "[::1]",
        "",
    ],
)
def test_only_names_of_workers_are_resolved(gateway, upstream, dns, name):
    """Nothing else is reachable through it, by any form of the path."""
    before = len(upstream.heads)
    dns.asked.clear()
    answer = gateway.get(f"/tasks/{name}/websockify?token=a.b.c")
    assert status_of(answer) in {400, 404}
    assert dns.asked == set()
    assert len(upstream.heads) == before


def test_a_task_that_is_over(gateway, dns):
    """A name that does not resolve is 404."""
    gone = str(uuid.uuid4())
    answer = gateway.get(f"/tasks/{gone}/websockify")
    assert status_of(answer) == 404
    assert answer.endswith(json.dumps({"detail": f"Task {gone} not found"}).encode())
    assert gone in dns.asked


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "FOO"])
def test_only_get_is_forwarded(gateway, upstream, method):
    before = len(upstream.heads)
    answer = gateway.get(f"/tasks/{TASK}/websockify", method=method)
    assert status_of(answer) in {400, 405}
    assert method == "HEAD" or json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
    assert len(upstream.heads) == before


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/healthz", 200),
        ("/", 404),
        ("/tasks/", 404),
        ("/metrics", 404),
        ("/readyz", 404),
        ("/refusal/400", 404),
    ],
)
def test_other_paths(gateway, target, status):
    answer = gateway.get(target)
    assert status_of(answer) == status
    assert json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"Cookie: " + b"x" * 16 * 1024 + b"\r\n\r\n", 409),
        (b"Cookie: " + b"x" * 33 * 1024 + b"\r\n\r\n", 431),
        (b"a: b\r\n" * 8000 + b"\r\n", 431),
        (b"Content-Length: 2\r\n\r\nab", 413),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 413),
        (b"a\0: b\r\n\r\n", 400),
        (b"Host: y\r\n\r\n", 400),
    ],
    ids=lambda _: "",
)
def test_limits(gateway, upstream, data, status):
    """They are those of the workers' port, and each refusal is a JSON answer."""
    line = f"GET /tasks/{TASK}/websockify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = gateway.answer(line.encode() + data)
    assert status_of(answer) == status
    if status != 409:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]


def test_log_holds_no_query(gateway):
    gateway.get(f"/tasks/{TASK}/websockify?token=secret")
    eventually(lambda: TASK in gateway.log.read_text())
    assert "secret" not in gateway.log.read_text()
