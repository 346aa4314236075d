"""podman with a configuration, a store and networks of its own, none of the machine's."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

_CONTAINERS = """\
[containers]
default_ulimits = ["nofile={nofile}", "nproc={nproc}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
_HARD_LIMIT_MAX = 1 << 14


class Podman:
    """A private podman.

    Attributes:
        folder: its files.
        env: the environment that makes it so.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="p-", dir="/tmp"))  # short: sockets are below
        values = {
            "folder": self.folder,
            # Podman's own defaults may exceed the limits of this machine.
            "nofile": _hard_limit(resource.RLIMIT_NOFILE),
            "nproc": _hard_limit(resource.RLIMIT_NPROC),
        }
        (self.folder / "containers.conf").write_text(_CONTAINERS.format(**values))
        (self.folder / "storage.conf").write_text(_STORAGE.format(**values))
        self.env = os.environ | {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run a podman command; what it printed on stdout."""
        done = subprocess.run(
            ["podman", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=self.env,
            input=stdin,
        )
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    @property
    def version(self) -> tuple[int, ...]:
        """Its version's first two numbers."""
        return tuple(map(int, self("version", "--format", "{{.Client.Version}}").split(".")[:2]))

    def take(self, image: str) -> str:
        """Copy an image of Docker's; its name here."""
        saved = subprocess.Popen(["docker", "save", f"{image}:latest"], stdout=subprocess.PIPE)
        with saved:
            subprocess.run(
                ["podman", "load"],
                check=True,
                capture_output=True,
                env=self.env,
                stdin=saved.stdout,
            )
        return f"localhost/{image}:latest"

    def remove(self) -> None:
        """Remove it, with all that it holds."""
        self("pod", "rm", "--all", "--force")
        self("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", self.folder / "store/overlay"], check=False, capture_output=True)
        shutil.rmtree(self.folder)


def _hard_limit(kind: int) -> str:
    _, hard = resource.getrlimit(kind)
    limit = _HARD_LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, _HARD_LIMIT_MAX)
    return f"{limit}:{limit}"
