"""A Docker engine for tests: the part of the Engine API 1.41 that the docker runner uses, in HTTP.

Containers start no process: the test sets their logs, files and ends. `requests` has one entry for
each request, for example `GET /containers/{id}/json`.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import re
import struct
import tarfile
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

NO_TIME = "0001-01-01T00:00:00Z"
ADDRESS = "172.18.0.5"
_STDOUT, _STDERR = 1, 2
_ARCHIVES_WAIT_S = 20


@dataclass
class FakeContainer:
    """A container; `files` are below /artifacts: see `tar_of`."""

    id: str
    name: str
    config: dict[str, Any]
    created: str
    state: str = "created"
    started_at: str = NO_TIME
    finished_at: str = NO_TIME
    exit_code: int = 0
    error: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    ignores_sigterm: bool = False
    files: dict[str, bytes | str | None] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "State": self.state,
            "Labels": self.config["Labels"],
            "NetworkSettings": self._network_settings(),
        }

    def details(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Created": self.created,
            "Config": {
                "Env": self.config["Env"],
                "Labels": self.config["Labels"],
                "Tty": False,
            },
            "State": {
                "Status": self.state,
                "StartedAt": self.started_at,
                "FinishedAt": self.finished_at,
                "ExitCode": self.exit_code,
                "Error": self.error,
                "OOMKilled": False,
            },
            "NetworkSettings": self._network_settings(),
        }

    def _network_settings(self) -> dict[str, Any]:
        address = ADDRESS if self.state == "running" else ""
        names = self.config["NetworkingConfig"]["EndpointsConfig"]
        return {"Networks": {name: {"IPAddress": address} for name in names}}

    def end(self, exit_code: int) -> None:
        """The container's process ends."""
        self.state, self.exit_code, self.finished_at = "exited", exit_code, now()


class FakeEngine(http.server.ThreadingHTTPServer):
    """Has every image and network; containers are created by requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.containers: dict[str, FakeContainer] = {}
        self.requests: list[str] = []
        self.failures = 0  # the number of further requests about containers that get a 500
        self.fail_archives = False  # whether requests for files get a 500
        self.fail_inspections = 0  # the number of further inspections that get a 500
        self.images = 200  # the status of requests about images
        self.start_error = ""  # if set, containers cannot be started
        self.start_status = 400  # the status of that answer
        self.archives = threading.Event()  # set while archives are sent
        self.archives.set()
        self.kills = "answered"  # or "lost": no answer; or "refused": 409 while it is stopping
        self.lock = threading.RLock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        """Answer no further request."""
        self.shutdown()
        self.server_close()

    def find(self, name: str) -> FakeContainer | None:
        """A container by its id, its name, or its task's id."""
        with self.lock:
            for each in self.containers.values():
                labels = each.config.get("Labels") or {}
                if name in (each.id, each.name, labels.get("worker.task-id")):
                    return each
        return None

    def of_task(self, task_id: str) -> FakeContainer:
        """A task's container."""
        found = self.find(task_id)
        assert found is not None
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeEngine

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        self.close_connection = True
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = re.sub(r"^/v[0-9.]+", "", url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.endswith("/version"):
            self._json(200, {"ApiVersion": "1.41"})
        elif path == "/_ping":
            self._answer(200, b"OK", "text/plain")
        elif path.startswith("/images/"):
            self._json(self.server.images, {"message": "No such image"})
        elif path.startswith("/containers/"):
            if path.endswith("/archive"):
                self.server.requests.append("GET /containers/{id}/archive")
                self.server.archives.wait(_ARCHIVES_WAIT_S)
            with self.server.lock:
                self._containers(path, query, body)
        else:
            self._json(200, {})

    def _containers(self, path: str, query: dict[str, str], body: bytes) -> None:
        _, _, name, *rest = path.split("/")
        shown = name if name in ("json", "create") else "{id}"
        if rest != ["archive"]:  # noted when it arrived
            self.server.requests.append(f"{self.command} /containers/{'/'.join([shown, *rest])}")
        if self.server.failures > 0:
            self.server.failures -= 1
            self._json(500, {"message": "busy"})
        elif name == "json":
            self._json(200, self._listed(json.loads(query.get("filters", "{}"))))
        elif name == "create":
            self._create(query["name"], json.loads(body))
        elif (container := self._named(name)) is None:
            self._json(404, {"message": f"No such container: {name}"})
        elif self.command == "DELETE":
            del self.server.containers[container.id]
            self._json(204, None)
        else:
            {
                "json": self._inspect,
                "start": self._start,
                "kill": self._kill,
                "stop": self._stop,
                "rename": self._rename,
                "logs": self._logs,
                "archive": self._archive,
            }[rest[0]](container, query)

    def _named(self, name: str) -> FakeContainer | None:
        for each in self.server.containers.values():
            if name in (each.id, each.name):
                return each
        return None

    def _listed(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        for each in self.server.containers.values():
            labels = each.config.get("Labels") or {}
            pairs = [label.partition("=") for label in filters.get("label", [])]
            if all(
                name in labels and (not equals or labels[name] == value)
                for name, equals, value in pairs
            ):
                found.append(each.summary())
        return found

    def _create(self, name: str, config: dict[str, Any]) -> None:
        if self._named(name) is not None:
            self._json(409, {"message": f"the name {name} is in use"})
            return
        made = FakeContainer(id=uuid.uuid4().hex, name=name, config=config, created=now())
        self.server.containers[made.id] = made
        self._json(201, {"Id": made.id, "Warnings": []})

    def _inspect(self, container: FakeContainer, _: dict[str, str]) -> None:
        if self.server.fail_inspections > 0:
            self.server.fail_inspections -= 1
            self._json(500, {"message": "busy"})
            return
        self._json(200, container.details())

    def _start(self, container: FakeContainer, _: dict[str, str]) -> None:
        if self.server.start_error:
            container.error = self.server.start_error
            self._json(self.server.start_status, {"message": self.server.start_error})
            return
        container.state, container.started_at = "running", now()
        self._json(204, None)

    def _kill(self, container: FakeContainer, _: dict[str, str]) -> None:
        if container.state != "running":
            self._json(409, {"message": "is not running"})
            return
        if not container.ignores_sigterm:
            container.end(143)
        if self.server.kills == "refused":
            self._json(409, {"message": "container is in state stopping"})
        elif self.server.kills == "answered":
            self._json(204, None)

    def _stop(self, container: FakeContainer, _: dict[str, str]) -> None:
        if container.state == "running":
            container.end(137)
            self._json(204, None)
        else:
            self._json(304, None)

    def _rename(self, container: FakeContainer, query: dict[str, str]) -> None:
        container.name = query["name"]
        self._json(204, None)

    def _logs(self, container: FakeContainer, query: dict[str, str]) -> None:
        frames = b""
        for kind, name, content in (
            (_STDOUT, "stdout", container.stdout),
            (_STDERR, "stderr", container.stderr),
        ):
            if query.get(name) in ("1", "True", "true") and content:
                frames += struct.pack(">BxxxL", kind, len(content)) + content
        self._answer(200, frames, "application/octet-stream")

    def _archive(self, container: FakeContainer, query: dict[str, str]) -> None:
        if self.server.fail_archives:
            self._json(500, {"message": "cannot read"})
            return
        path = query["path"].removeprefix("/artifacts").strip("/")
        members = {f"artifacts/{name}": content for name, content in container.files.items()}
        if path:
            above = path.rpartition("/")[0]
            members = {
                name.removeprefix(f"{above}/"): content
                for name, content in container.files.items()
                if name == path or name.startswith(f"{path}/")
            }
            if not members:
                self._json(404, {"message": f"Could not find the file {path}"})
                return
        stat = base64.b64encode(json.dumps({"name": path}).encode()).decode()
        self._answer(
            200, tar_of(members), "application/x-tar", {"X-Docker-Container-Path-Stat": stat}
        )

    def _json(self, status: int, body: Any) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self._answer(status, content, "application/json")

    def _answer(
        self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def tar_of(members: dict[str, bytes | str | None]) -> bytes:
    """A tar file; bytes make a regular file, text a symbolic link, None a FIFO."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            elif content is None:
                info.type = tarfile.FIFOTYPE
            else:
                info.size = len(content)
            made.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def now() -> str:
    """As the engine writes times."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
