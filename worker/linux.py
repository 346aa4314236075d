"""Linux system calls that Python does not offer, and /proc: the only module that uses ctypes.

It imports the standard library alone: the stream server, the task's process and `worker run` load
it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_IPC_RMID: Final = 0  # linux/ipc.h
_CAP_SYS_PTRACE: Final = 19  # linux/capability.h
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers.h
_CLONE_NEWUSER: Final = 0x1000_0000  # linux/sched.h
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_CLONE_CALLS: Final = {"x86_64": 56, "aarch64": 220}  # asm/unistd.h
CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))

_PROC: Final = Path("/proc")
_PARENT_FIELD: Final = 1  # of /proc/<pid>/stat, counted after the command's `)` (proc(5))
_START_TICKS_FIELD: Final = 19
_STAT_MAX_BYTES: Final = 4096
_PID_MAX: Final = 2**22

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


# -- this process


def hide_from_peers() -> None:
    """Prevent other processes of the same user from reading this one's memory and environment.

    prctl(2), PR_SET_DUMPABLE: /proc/<pid>/environ and mem become root's.
    """
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def scrub_environment(name: str) -> None:
    """Remove a variable from `os.environ`, and its bytes from /proc/<pid>/environ (proc(5))."""
    _LIBC.getenv.restype = ctypes.c_void_p
    address = _LIBC.getenv(name.encode())
    if address:
        ctypes.memset(address, 0, len(os.environ.get(name, "").encode()))
    os.environ.pop(name, None)


def set_death_signal(number: int) -> None:
    """Let the kernel signal this process when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def own_cgroups() -> list[tuple[str, str]]:
    """The cgroups of this process, each as its controllers (empty: version 2) and its path."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    return [(controllers, path) for _, controllers, path in (line.split(":", 2) for line in lines)]


def cgroup2_mount() -> str | None:
    """Where cgroup version 2 is mounted with its root; None if it is not."""
    for mount in _mounts():
        if mount.kind == "cgroup2" and mount.root == "/":
            return mount.point
    return None


# -- other processes


def proc_is_partial() -> bool:
    """Whether /proc may hide processes from this one (proc(5), hidepid)."""
    proc = [mount for mount in _mounts() if mount.point == str(_PROC)]
    return not proc or ("hidepid=" in proc[-1].options and not _may_trace())


def _may_trace() -> bool:
    """Whether the process has CAP_SYS_PTRACE, with which /proc hides nothing from it."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return bool(effective >> _CAP_SYS_PTRACE & 1)


def pid_max() -> int:
    """Process ids are less than this."""
    try:
        return int((_PROC / "sys/kernel/pid_max").read_bytes())
    except (OSError, ValueError):
        return _PID_MAX


def parent_pid(pid: int) -> int | None:
    """A process's parent; None if there is no such process."""
    return _stat(pid, _PARENT_FIELD)


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a Unix socket: it connected, or it listens (unix(7)).

    It may have ended, and passed its end of the connection on to another process.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(raw)[0]
    return pid


def start_ticks(pid: int) -> int | None:
    """A process's start in clock ticks since boot; None if there is no such process.

    Together with the pid it identifies the process: a pid is reused, with a later start.
    """
    return _stat(pid, _START_TICKS_FIELD)


def has_ended(pid: int) -> bool:
    """Whether there is no such process any more, or only a zombie."""
    fields = _stat_fields(str(pid))
    return fields is None or fields[0] == b"Z"


class _Mount(NamedTuple):
    root: str
    point: str
    kind: str
    options: str


def _mounts() -> Iterator[_Mount]:
    """The mounts of this process's namespace (proc(5), mountinfo)."""
    try:
        lines = (_PROC / "self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        mount, _, system = line.partition(" - ")
        with contextlib.suppress(ValueError):
            _, _, _, root, point, *_ = mount.split(" ")
            kind, _, options = system.split(" ", 2)
            yield _Mount(root, point, kind, options)


def _stat(pid: int, field: int) -> int | None:
    fields = _stat_fields(str(pid))
    return None if fields is None else int(fields[field])


def _stat_fields(name: str) -> list[bytes] | None:
    try:
        descriptor = os.open(f"{_PROC}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(descriptor, _STAT_MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return stat.rpartition(b")")[2].split()


def processes() -> Iterator[tuple[int, int, str]]:
    """The processes that /proc shows: pid, parent, and state (proc(5): `Z` is a zombie)."""
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - twice as fast, while processes are ended
    except OSError:
        return
    for name in names:
        if name.isdigit() and (fields := _stat_fields(name)) is not None:
            yield int(name), int(fields[_PARENT_FIELD]), fields[0].decode()


def newest_pid() -> int:
    """The process id that was assigned last in this PID namespace; 0 if it is unknown."""
    try:
        return int((_PROC / "loadavg").read_bytes().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


def command_name(pid: int) -> str | None:
    """A process's name (proc(5), comm), at most 15 bytes; None if it cannot be read."""
    try:
        return (_PROC / str(pid) / "comm").read_bytes().decode(errors="replace").rstrip("\n")
    except OSError:
        return None


def pids_with_arguments(*arguments: str) -> Iterator[int]:
    """The processes that have these arguments, one after the other, in their command lines."""
    part = "".join(f"\0{argument}" for argument in arguments).encode() + b"\0"
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if part in (entry / "cmdline").read_bytes():
                    yield int(entry.name)


def pids_with_variable(variable: bytes, uid: int) -> Iterator[int]:
    """The processes of a user that were started with this variable (`NAME=value`) set."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid and has_variable(int(entry.name), variable):
                    yield int(entry.name)


def has_variable(pid: int, variable: bytes) -> bool:
    """Whether a process was started with this variable (`NAME=value`) set."""
    try:
        return variable in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


# -- the kernel's objects


def shared_memory_segments() -> Iterator[dict[str, int]]:
    """The System V shared memory segments, with the fields of /proc/sysvipc/shm (sysvipc(7))."""
    try:
        header, *lines = (_PROC / "sysvipc/shm").read_text().splitlines()
    except (OSError, ValueError):
        return  # a kernel without System V shared memory
    names = header.split()
    for line in lines:
        yield dict(zip(names, map(int, line.split()), strict=False))


def remove_segment(shmid: int) -> None:
    """Remove a shared memory segment with its last user; a removed one is ignored."""
    _LIBC.shmctl(shmid, _IPC_RMID, None)


def drop_connections(listener: socket.socket) -> None:
    """Let the kernel drop new connections to a TCP listener; those in its queue are not affected.

    Clients get no answer, and retransmit, until the listener is closed.
    """
    drop_all = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0, "accept no byte"
    program = ctypes.create_string_buffer(drop_all)
    sock_fprog = struct.pack("HL", 1, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)


def peer_cpu_clock(connection: socket.socket) -> int:
    """The clock, for `time.clock_gettime`, of the CPU time of a Unix socket's other end.

    unix(7), SO_PEERCRED: for a connection it is the process that listened. The clock's number is
    that of clock_getcpuclockid(3).
    """
    credentials = struct.Struct("3i")  # pid, uid, gid
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    pid, _, _ = credentials.unpack(raw)
    return ~int(pid) << 3 | _CPUCLOCK_SCHED


def unacknowledged_bytes(connection: socket.socket) -> int:
    """How much of what was sent has not been acknowledged by the peer (tcp(7), SIOCOUTQ)."""
    raw = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(raw, sys.byteorder)


def sandbox_errno() -> int:
    """The error that Chromium's sandbox would get from the kernel; 0 if it would work.

    A child that ends at once does what Chromium's zygote does (Chromium:
    sandbox/linux/services/namespace_sandbox.cc). The chroot fails if the user namespace exists
    but gives no capabilities (AppArmor, on Ubuntu).
    """
    call = _CLONE_CALLS.get(os.uname().machine)
    if call is None:
        return 0  # the call's number is unknown; Chromium itself reports the error
    flags = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET | signal.SIGCHLD
    pid = _LIBC.syscall(ctypes.c_long(call), ctypes.c_long(flags), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0 if _LIBC.chroot(b"/") == 0 else ctypes.get_errno())
    if pid < 0:
        return ctypes.get_errno()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
