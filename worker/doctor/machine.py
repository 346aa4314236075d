"""What the machine, or the container, gives: memory, descriptors, namespaces, a display, a port."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import net
from worker.display import xvfb
from worker.doctor.finding import failure, ok, warning
from worker.errors import PortInUse, SettingError, StartFailed
from worker.linux import own_cgroups
from worker.task import browser, sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.doctor.finding import Finding

MEMORY_MIN_BYTES: Final = 1 << 30  # Chromium with one heavy page, and the display stack
DESCRIPTORS_MIN: Final = 1024
_MB: Final = 1 << 20
_CGROUP: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory.limit_in_bytes")  # cgroup version 2, version 1
_DISPLAY_TIMEOUT_S: Final = 10.0


def shared_memory() -> Iterator[Finding]:
    """The room in /dev/shm."""
    free_bytes = browser.shm_free_bytes()
    what = f"/dev/shm has {free_bytes // _MB} MB"  # noqa: S108 - named, not used
    if free_bytes >= browser.SHM_MIN_BYTES:
        yield ok(what)
    else:
        mend = "Chromium uses slower files in its place; in Docker add --shm-size=1g"
        yield warning(what, mend)


def chromium_sandbox(setting: str) -> Iterator[Finding]:
    """Whether Chromium can sandbox its pages: user namespaces, and seccomp that lets them be.

    Args:
        setting: WORKER_CHROMIUM_SANDBOX.
    """
    refusal = sandbox.refusal()
    if refusal is None:
        yield ok("user namespaces, for Chromium's sandbox")
    elif setting == "on":
        yield failure("Chromium's sandbox must be on and cannot", refusal)
    else:
        yield warning("Chromium runs without its sandbox", refusal)


def descriptors() -> Iterator[Finding]:
    """The limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    shown = "no limit of open files" if soft == infinite else f"{soft} open files"
    if infinite in (soft, hard) or soft >= DESCRIPTORS_MIN:
        yield ok(shown)
    else:
        yield warning(shown, f"heavy pages want more; run `ulimit -n {DESCRIPTORS_MIN}`")


def memory(root: Path = _CGROUP) -> Iterator[Finding]:
    """How much memory there may be used.

    Args:
        root: where cgroups are mounted.
    """
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit_bytes = min(memory_limit_bytes(root) or total_bytes, total_bytes)
    what = f"{limit_bytes // _MB} MB of memory"
    if limit_bytes >= MEMORY_MIN_BYTES:
        yield ok(what)
    else:
        mend = f"heavy pages die for want of it; give it {MEMORY_MIN_BYTES // _MB} MB or more"
        yield warning(what, mend)


def memory_limit_bytes(root: Path) -> int | None:
    """This process's memory limit by cgroup version 2 or 1; None when there is none."""
    found = []
    for folder in (root, root / "memory", *_own_cgroups(root)):
        for name in _LIMITS:
            try:
                found.append(int((folder / name).read_text()))
            except (OSError, ValueError):
                continue  # not this version, not ours to see, or `max`
    return min(found, default=None)


def _own_cgroups(root: Path) -> Iterator[Path]:
    for controllers, path in own_cgroups():
        if controllers in ("", "memory"):
            yield root / controllers / path.lstrip("/")


def folders(artifacts: Path) -> Iterator[Finding]:
    """Where a session writes.

    Args:
        artifacts: where the artifacts go; the nearest folder above it that exists is looked at.
    """
    try:
        yield ok(f"{tempfile.gettempdir()} can be written to")
    except FileNotFoundError:
        mend = "set TMPDIR; with docker --read-only add --tmpfs /tmp"
        yield failure("no temporary folder can be written to", mend)
    place = artifacts.absolute()
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        yield ok(f"artifacts can go to {artifacts}")
    else:
        mend = f"uid {os.geteuid()} must be able to write to {place}, or set WORKER_ARTIFACTS_DIR"
        yield failure(f"artifacts cannot go to {artifacts}", mend)


def display() -> Iterator[Finding]:
    """Whether an X server of ours starts: on a free display number, with its one screen."""
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        authority = Path(folder) / "Xauthority"
        xvfb.write_authority(authority)
        try:
            server = subprocess.Popen(
                xvfb.command(authority),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            yield failure("no display", f"Xvfb cannot be executed: {error.strerror}")
            return
        with server:
            try:
                yield _look_at(server, authority)
            finally:
                server.kill()


def _look_at(server: subprocess.Popen[bytes], authority: Path) -> Finding:
    """What is to be said about a server that was just started."""
    if server.stdout is None:
        raise ValueError("its output is not a pipe")
    said, _, _ = select.select([server.stdout], [], [], _DISPLAY_TIMEOUT_S)
    number = server.stdout.readline().strip().decode() if said else ""
    if not number:
        return failure("no display", "run `Xvfb -displayfd 1` and see why it ends")
    try:
        xvfb.check(f":{number}", authority)
    except StartFailed as error:
        return failure("no display", str(error))
    finally:
        server.terminate()
        server.wait(_DISPLAY_TIMEOUT_S)
    return ok(f"display :{number} was free, and answers")


def port(host: str, number: int) -> Iterator[Finding]:
    """Whether the stream's port is free.

    Args:
        host: WORKER_HOST.
        number: WORKER_PORT.
    """
    try:
        net.listen(host, number).close()
    except SettingError as error:
        yield failure(f"cannot listen on {host}", f"{error}; set WORKER_HOST")
    except PortInUse as error:
        yield failure(
            f"cannot listen on {host} port {number}", f"{error.why}; set WORKER_PORT, or 0"
        )
    else:
        yield ok(f"port {number} of {host} is free")
