"""`worker serve` as root or as another user, and what its tasks could access of each other."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import psutil
from required import skip_or_fail
from security_tables import ENDPOINTS
from worker_run import PROGRAMS, eventually, marked_processes
from worker_serve import WorkerServe

USER = 64_999
PRIVATE = "the-private-text-of-another-account"
_STATE = ("api-keys.json", "tasks.sqlite3", "api.lock")


class IsolatedApi(WorkerServe):
    """One that runs as root, or as another user, with task files of its own user."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None, *, as_user: bool) -> None:
        self.endpoints = folder / "endpoints"
        super().__init__(folder, {"WORKER_ENDPOINTS_DIR": str(self.endpoints)} | (env or {}))
        shutil.copytree(ENDPOINTS, self.endpoints, ignore=shutil.ignore_patterns("__pycache__"))
        if as_user:
            self.python = python_for_every_user(folder)
            self.user = {"user": USER, "group": USER, "extra_groups": ()}
            self.environ["HOME"] = str(folder)
            for path in (folder, self.tmpdir, self.endpoints, *self.endpoints.iterdir()):
                os.chown(path, USER, USER)

    def end(self) -> None:
        """Also remove what tasks of its user have left in /dev/shm."""
        super().end()
        for path in Path("/dev/shm").glob(f"*{self.mark}*"):
            path.unlink()

    def start_victim(self, account: str = "bob", *options: str) -> Victim:
        """Start a task of an account, and wait until everything that it leaves exists."""
        self.sign_in(account, *options)
        task = self.start_task("victim", input_parameters={"private": PRIVATE})
        self.wait_for_status(task, "running")
        folder = self.state / "tasks" / task
        eventually((folder / "artifacts/targets.json").exists, timeout_s=20, what="its files")
        return Victim(self, task, folder)


class Victim:
    """A running task that others try to access.

    Attributes:
        targets: what they try to access, by kind; see `probes.py`.
    """

    def __init__(self, api: IsolatedApi, task_id: str, folder: Path) -> None:
        self.api, self.task_id, self.folder = api, task_id, folder
        self.left = json.loads((folder / "artifacts/targets.json").read_text())
        events = (folder / "events.jsonl").read_text()
        self._session = Path(json.loads(events.partition("\n")[0])["folder"])
        self.targets = self._targets()

    def _targets(self) -> dict[str, list[Any]]:
        state = self.api.state
        api = [self.api.process.pid, "worker.cli"]
        worker, task, supervisord, xvfb, x11vnc, server = self._processes()
        secret = [worker, supervisord, server]
        artifacts = self.folder / "artifacts"
        seen = [f"/proc/{worker[0]}/root", f"/proc/{task[0]}/root", ""]
        sessions = [f"{root}{self._session}" for root in seen]
        private = [str(artifacts / "private.txt"), str(self.folder / "home/private.txt")]
        temporary = [f"{root}{self.left['tmp']}" for root in seen]
        temporary += [f"{each}/private.txt" for each in temporary]
        return {
            "master_secret": [str(state / "stream-secret")],
            "state": [str(path) for path in (state, state / "tasks", *(state / n for n in _STATE))],
            "api": [api],
            "artifacts": [str(artifacts), private[0], str(artifacts / "task.log")],
            "folders": [str(self.folder / "home"), private[1], *temporary],
            "task": [task, worker],
            "events": [str(self.folder / name) for name in ("events.jsonl", "lock", "stderr")],
            "session": [f"{each}{name}" for each in sessions for name in ("", "/Xauthority")],
            "supervisord": [supervisord],
            "supervisord_socket": [[supervisord, f"{each}/supervisor.sock"] for each in sessions],
            "keys": [*secret, api],
            "secret": secret,
            "ordinary": [task, xvfb, x11vnc],
            "processes": [*secret, task, xvfb, x11vnc],
            "x11vnc": [f"{each}/x11vnc.sock" for each in sessions],
            "display": [[self.left["display"], f"{each}/Xauthority"] for each in sessions],
            "unix_sockets": [f"{root}{self.left['unix_socket']}" for root in seen],
            "ports": [self.left["abstract"], self.left["port"]],
            "segments": [[self.left["segment"], PRIVATE]],
            "shm_files": [f"{root}{self.left['shm_file']}" for root in seen],
            "modes": [str(state / "tasks.sqlite3"), *private],
            "elsewhere": [str(self.api.endpoints), str(self.api.endpoints / "victim.py")],
            "browser": [str(state / "stream-secret"), private[0]],
        }  # fmt: skip

    def _processes(self) -> list[list[Any]]:
        """The worker and what runs below it: a pid, and a part of the command line."""
        [worker] = [
            pid
            for pid in marked_processes(self.api.mark, "worker.cli run")
            if self.task_id in " ".join(psutil.Process(pid).cmdline())
        ]
        below = psutil.Process(worker).children(recursive=True)
        found: list[list[Any]] = [[worker, self.task_id]]
        for part in ("worker.task.child", "supervisor.supervisord", "Xvfb", "x11vnc",
                     "worker.stream.server"):  # fmt: skip
            pids = [each.pid for each in below if part in " ".join(each.cmdline())]
            found.append([min(pids), part])
        return found


def python_for_every_user(folder: Path) -> str:
    """This interpreter with its packages, or Debian's of the same version, if it is below /root."""
    found = Path(sys.executable).resolve()
    if all(parent.stat().st_mode & 0o001 for parent in found.parents):
        return sys.executable
    debian = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if not debian.exists():
        skip_or_fail("a Python that every user can execute", f"install {debian.name}")
    packages = folder / f"venv/lib/{debian.name}/site-packages"
    packages.mkdir(parents=True)
    (packages / "paths.pth").write_text(f"{sysconfig.get_path('purelib')}\n{PROGRAMS.parents[1]}\n")
    (folder / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "venv/bin").mkdir()
    (folder / "venv/bin/python").symlink_to(debian)
    return str(folder / "venv/bin/python")
