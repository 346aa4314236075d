"""Checks of the machine or container: memory, descriptors, namespaces, folders, display, port."""

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
from worker.surroundings import temporary
from worker.task import browser, sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.doctor.finding import Finding

MEMORY_MIN_BYTES: Final = 1 << 30  # Chromium with one heavy page, plus the display stack
DESCRIPTORS_MIN: Final = 1024
_MB: Final = 1 << 20
_CGROUP: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory.limit_in_bytes")  # cgroup version 2, version 1
_DISPLAY_TIMEOUT_S: Final = 10.0


def shared_memory() -> Iterator[Finding]:
    """Free space in /dev/shm."""
    free_bytes = browser.shm_free_bytes()
    what = f"/dev/shm has {free_bytes // _MB} MB"  # noqa: S108 - named, not used
    if free_bytes >= browser.SHM_MIN_BYTES:
        yield ok(what)
    else:
        remedy = "Chromium uses slower files instead; in Docker, add --shm-size=1g"
        yield warning(what, remedy)


def chromium_sandbox(setting: str) -> Iterator[Finding]:
    """Whether Chromium's sandbox works: it needs user namespaces, which seccomp may refuse.

    Args:
        setting: WORKER_CHROMIUM_SANDBOX.
    """
    refusal = sandbox.refusal()
    if refusal is None:
        yield ok("user namespaces work, for Chromium's sandbox")
    elif setting == "on":
        yield failure("WORKER_CHROMIUM_SANDBOX is on, but the sandbox does not work", refusal)
    else:
        yield warning("Chromium runs without its sandbox", refusal)


def descriptors() -> Iterator[Finding]:
    """The limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    what = "no limit of open files" if soft == infinite else f"limit of {soft} open files"
    if infinite in (soft, hard) or soft >= DESCRIPTORS_MIN:
        yield ok(what)
    else:
        yield warning(what, f"heavy pages may need more; run `ulimit -n {DESCRIPTORS_MIN}`")


def memory(root: Path = _CGROUP) -> Iterator[Finding]:
    """The memory that may be used: the machine's, or the cgroup's limit.

    Args:
        root: the mount point of the cgroup file system.
    """
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit_bytes = min(memory_limit_bytes(root) or total_bytes, total_bytes)
    what = f"{limit_bytes // _MB} MB of memory"
    if limit_bytes >= MEMORY_MIN_BYTES:
        yield ok(what)
    else:
        remedy = (
            f"heavy pages may crash with less than {MEMORY_MIN_BYTES // _MB} MB; raise the limit"
        )
        yield warning(what, remedy)


def memory_limit_bytes(root: Path) -> int | None:
    """This process's memory limit, of cgroup version 2 or 1; None if there is none."""
    found = []
    for folder in (root, root / "memory", *_own_cgroups(root)):
        for name in _LIMITS:
            try:
                found.append(int((folder / name).read_text()))
            except (OSError, ValueError):
                continue  # the other version, unreadable, or `max`
    return min(found, default=None)


def _own_cgroups(root: Path) -> Iterator[Path]:
    for controllers, path in own_cgroups():
        if controllers in ("", "memory"):
            yield root / controllers / path.lstrip("/")


def folders(artifacts: Path) -> Iterator[Finding]:
    """Whether the temporary folder and the artifacts folder can be written to.

    Args:
        artifacts: the artifacts folder; if it does not exist, its nearest existing parent counts.
    """
    try:
        yield ok(f"{temporary.parent(os.environ)} can be written to")
    except SettingError as error:
        yield failure("no temporary folder can be written to", str(error))
    place = artifacts.absolute()
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        yield ok(f"artifacts can go to {artifacts}")
    else:
        remedy = f"let uid {os.geteuid()} write to {place}, or set WORKER_ARTIFACTS_DIR"
        yield failure(f"artifacts cannot go to {artifacts}", remedy)


def display() -> Iterator[Finding]:
    """Whether Xvfb starts, on a free display number and with the right screen."""
    try:
        place = temporary.parent(os.environ)
    except SettingError:
        return  # reported by the check of the folders
    with tempfile.TemporaryDirectory(prefix=temporary.PREFIX, dir=place) as folder:
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
            remedy = f"Xvfb cannot be executed ({error.strerror}); run `apt-get install xvfb`"
            yield failure("no display", remedy)
            return
        with server:
            try:
                yield _check_display(server, authority)
            finally:
                server.kill()


def _check_display(server: subprocess.Popen[bytes], authority: Path) -> Finding:
    if server.stdout is None:
        raise ValueError("the server's output is not a pipe")
    readable, _, _ = select.select([server.stdout], [], [], _DISPLAY_TIMEOUT_S)
    number = server.stdout.readline().strip().decode() if readable else ""
    if not number:
        return failure("no display", "Xvfb does not start; run `Xvfb -displayfd 1` to see why")
    try:
        xvfb.check(f":{number}", authority)
    except StartFailed as error:
        return failure("no display", str(error))
    finally:
        server.terminate()
        server.wait(_DISPLAY_TIMEOUT_S)
    return ok(f"Xvfb starts (display :{number})")


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
        yield ok(f"{host} port {number} is free")
