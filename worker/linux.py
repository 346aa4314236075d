"""Linux system calls that Python does not offer, and /proc: the only module that uses ctypes.

It imports the standard library alone: the stream server, the task's process and `worker run` load
it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_IPC_RMID: Final = 0  # linux/ipc.h
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_MMAP_THRESHOLD_BYTES: Final = 256 * 1024
_ARENAS: Final = 2
_CAP_SYS_PTRACE: Final = 19  # linux/capability.h
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SO_DETACH_FILTER: Final = 27
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers.h
_CLONE_NEWUSER: Final = 0x1000_0000  # linux/sched.h
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_CLONE_CALLS: Final = {"x86_64": 56, "aarch64": 220}  # asm/unistd.h
_KEYCTL_CALLS: Final = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING, _KEYCTL_CLEAR, _KEYCTL_GET_PERSISTENT = 1, 7, 22  # linux/keyctl.h
_KEY_SPEC_SESSION_KEYRING, _KEY_SPEC_USER_KEYRING = -3, -4
_KEY_SPEC_USER_SESSION_KEYRING: Final = -5
_PR_SET_NO_NEW_PRIVS: Final = 38
_FALLOC_FL_KEEP_SIZE: Final = 1  # linux/falloc.h
_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_MS_NOSUID_NODEV: Final = 0x2 | 0x4  # linux/mount.h
_MS_BIND_RECURSIVE: Final = 0x1000 | 0x4000
_MS_RECURSIVE_PRIVATE: Final = 0x4000 | 0x4_0000
_CAPABILITY_VERSION_3: Final = 0x2008_0522  # linux/capability.h

# linux/landlock.h, and the calls' numbers, which are the same on every architecture since 5.13.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
_LANDLOCK_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RIGHTS_SINCE: Final = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_SCOPE_SIGNALS: Final = 1 << 1

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h. By machine: the number of seccomp(2), and the
# architectures and numbers of prlimit(2), since a 64-bit kernel also executes 32-bit programs.
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO = 0x7FFF_0000, 0x0005_0000
_SECCOMP_CALLS: Final = {"x86_64": 317, "aarch64": 277}
_PRLIMIT_CALLS: Final = {
    "x86_64": ((0xC000_003E, 302), (0xC000_003E, 302 | 0x4000_0000), (0x4000_0003, 340)),
    "aarch64": ((0xC000_00B7, 261), (0x4000_0028, 369)),
}
_BPF_LOAD, _BPF_JUMP_IF_EQUAL, _BPF_RETURN = 0x20, 0x15, 0x06
_CALL_FIELD, _ARCHITECTURE_FIELD, _FIRST_ARGUMENT_FIELD = 0, 4, 16  # of struct seccomp_data

SIGNALS_ABI: Final = 6
"""From this version on, Landlock also denies signals to processes that it does not restrict."""
READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
"""Landlock rights: read, list and execute."""
USE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
"""Landlock rights: open existing files, devices among them, for reading and writing."""
WRITE: Final = (1 << 16) - 1
"""Landlock rights: everything, such as to create and remove files."""
CREATE: Final = WRITE & ~_READ_DIR
"""Landlock rights: everything except to list a directory."""
CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))

_PROC: Final = Path("/proc")
_PARENT_FIELD: Final = 1  # of /proc/<pid>/stat, counted after the command's `)` (proc(5))
_START_TICKS_FIELD: Final = 19
_STAT_MAX_BYTES: Final = 4096
_STATUS_MAX_BYTES: Final = 4096
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


def return_memory() -> None:
    """Have the C library return large blocks of memory to the system as soon as they are freed.

    mallopt(3): otherwise it would begin to keep them, once some were freed, in one heap for every
    few threads.
    """
    with contextlib.suppress(AttributeError):  # a C library without it
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        _LIBC.mallopt(_M_ARENA_MAX, _ARENAS)


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


def cgroup1_mount(controller: str) -> str | None:
    """Where version 1 of a cgroup controller is mounted with its root; None if it is not."""
    for mount in _mounts():
        if mount.kind == "cgroup" and mount.root == "/" and controller in mount.options.split(","):
            return mount.point
    return None


class CpuCgroup(NamedTuple):
    """A cgroup in the hierarchy that shares out CPU time.

    Attributes:
        path: its folder.
        is_root: whether it is the root, in which processes may be next to groups.
        unified: whether it is of version 2.
    """

    path: Path
    is_root: bool
    unified: bool

    def share_out(self) -> None:
        """Have the kernel share out CPU time among the groups in this one.

        Raises:
            OSError: that is not permitted.
        """
        control = self.path / "cgroup.subtree_control"
        if self.unified and "cpu" not in control.read_text().split():
            control.write_text("+cpu")


def cpu_cgroup() -> CpuCgroup | None:
    """This process's own; None if there is no such hierarchy."""
    for controllers, own in own_cgroups():
        unified = not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        mount = cgroup2_mount() if unified else cgroup1_mount("cpu")
        if mount is None:
            continue
        found = CpuCgroup(Path(mount, own.lstrip("/")), is_root=own == "/", unified=unified)
        with contextlib.suppress(OSError):
            if not unified or "cpu" in (found.path / "cgroup.controllers").read_text().split():
                return found
    return None


def drop_capabilities() -> None:
    """Give up every capability (capset(2)); with no_new_privs, executing a program returns none."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_LIBC.capset(header, bytes(6 * 4)))


def forbid_new_privileges() -> None:
    """Let no program that is executed get more privileges, by set-user-ID for example."""
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def forbid_precedence() -> None:
    """Let this process raise neither its priority nor its scheduling policy (setrlimit(2))."""
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))


def forget_keys() -> None:
    """Leave the inherited session keyring, and empty those of the user (keyrings(7)).

    A session keyring is inherited, even by a process of another uid; an earlier process of the
    same uid may have left keys in the user's. Without effect where the calls are not permitted: nor
    are they then to what this process starts.
    """
    call = _KEYCTL_CALLS.get(os.uname().machine)
    if call is None:
        return

    def keyctl(*arguments: int | None) -> int:
        numbers = (ctypes.c_long(each) if each is not None else None for each in arguments)
        result: int = _LIBC.syscall(ctypes.c_long(call), *numbers)
        return result

    keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None)
    persistent = keyctl(_KEYCTL_GET_PERSISTENT, -1, _KEY_SPEC_SESSION_KEYRING)
    users = (_KEY_SPEC_USER_KEYRING, _KEY_SPEC_USER_SESSION_KEYRING)
    for keyring in (*users, *([persistent] if persistent > 0 else [])):
        keyctl(_KEYCTL_CLEAR, keyring)
    keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None)


def leave_session_keyring() -> None:
    """Leave the inherited session keyring, as `forget_keys`; the user's keyrings are kept."""
    call = _KEYCTL_CALLS.get(os.uname().machine)
    if call is not None:
        join = ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING)
        _LIBC.syscall(ctypes.c_long(call), join, None)


def _check(result: int) -> int:
    """Raise OSError for a call's result of -1."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# -- starting a program

_POSIX_SPAWN_SETSIGDEF: Final = 0x04  # spawn.h
_POSIX_SPAWN_SETSIGMASK: Final = 0x08
_POSIX_SPAWN_SETSID: Final = 0x80
_SPAWN_OBJECT_BYTES: Final = 1024
"""More than posix_spawnattr_t and posix_spawn_file_actions_t have in glibc and musl."""
_SIGSET_BYTES: Final = 128


def posix_spawn(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    descriptors: Mapping[int, int],
    folder: str | None = None,
    new_session: bool = False,
) -> int:
    """Start a program; returns its pid. It waits in the kernel, without the interpreter's lock.

    Other threads of this process go on meanwhile. With `subprocess` and `os.posix_spawn` they wait
    until the kernel has executed the program: on a busy machine for 200 ms. The program blocks and
    ignores no signal.

    Args:
        argv: the program, found by PATH, and its arguments.
        environ: its whole environment.
        descriptors: what it inherits: the number there, and the one here.
        folder: its working directory; default: this process's.
        new_session: whether it leads a session of its own.

    Raises:
        OSError: it cannot be executed.
    """
    actions, attributes, defaults = (
        ctypes.create_string_buffer(size)
        for size in (_SPAWN_OBJECT_BYTES, _SPAWN_OBJECT_BYTES, _SIGSET_BYTES)
    )
    pid = ctypes.c_int(0)
    flags = _POSIX_SPAWN_SETSIGDEF | _POSIX_SPAWN_SETSIGMASK  # to an empty mask
    flags |= _POSIX_SPAWN_SETSID if new_session else 0
    strings = [each.encode(errors="surrogateescape") for each in argv]
    variables = [
        f"{name}={value}".encode(errors="surrogateescape") for name, value in environ.items()
    ]
    _spawned(_LIBC.posix_spawn_file_actions_init(actions))
    _spawned(_LIBC.posix_spawnattr_init(attributes))
    try:
        _LIBC.sigfillset(defaults)
        _spawned(_LIBC.posix_spawnattr_setsigdefault(attributes, defaults))
        _spawned(_LIBC.posix_spawnattr_setflags(attributes, ctypes.c_short(flags)))
        for there, here in descriptors.items():  # the same number: it is inherited then
            _spawned(_LIBC.posix_spawn_file_actions_adddup2(actions, here, there))
        if folder is not None:
            name = os.fsencode(folder)
            _spawned(_LIBC.posix_spawn_file_actions_addchdir_np(actions, name))
        _spawned(
            _LIBC.posix_spawnp(
                ctypes.byref(pid),
                strings[0],
                actions,
                attributes,
                (ctypes.c_char_p * (len(strings) + 1))(*strings),
                (ctypes.c_char_p * (len(variables) + 1))(*variables),
            )
        )
    finally:
        _LIBC.posix_spawn_file_actions_destroy(actions)
        _LIBC.posix_spawnattr_destroy(attributes)
    return pid.value


def _spawned(number: int) -> None:
    """Raise OSError for the errno that a function of spawn.h returns."""
    if number:
        raise OSError(number, os.strerror(number))


# -- namespaces


def unshare_mounts_and_ipc() -> None:
    """Give this process mounts and System V IPC objects of its own (unshare(2)).

    Raises:
        OSError: it lacks CAP_SYS_ADMIN.
    """
    _check(_LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWIPC))
    _check(_LIBC.mount(None, b"/", None, ctypes.c_ulong(_MS_RECURSIVE_PRIVATE), None))


def mounts_errno() -> int:
    """The error of `unshare_mounts_and_ipc`, which a child that ends at once tries; 0: none."""
    pid = os.fork()
    if pid == 0:
        try:
            unshare_mounts_and_ipc()
        except OSError as error:
            os._exit(error.errno or errno.EIO)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def mount_tmpfs(target: str, options: str) -> None:
    """Mount an empty file system in memory (tmpfs(5)).

    Raises:
        OSError: it cannot be mounted.
    """
    flags = ctypes.c_ulong(_MS_NOSUID_NODEV)
    _check(_LIBC.mount(b"tmpfs", os.fsencode(target), b"tmpfs", flags, os.fsencode(options)))


def bind_mount(source: str, target: str) -> None:
    """Make a file or directory appear at another path, too, with the mounts below it.

    Raises:
        OSError: it cannot be mounted.
    """
    flags = ctypes.c_ulong(_MS_BIND_RECURSIVE)
    _check(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, flags, None))


def mount_proc() -> None:
    """Mount a /proc that hides no process (proc(5), hidepid) over the present one.

    Raises:
        OSError: it cannot be mounted.
    """
    flags = ctypes.c_ulong(_MS_NOSUID_NODEV)
    _check(_LIBC.mount(b"proc", os.fsencode(_PROC), b"proc", flags, None))


# -- restricting access to files: Landlock, see landlock(7)


def landlock_abi() -> int:
    """The version of Landlock that the kernel offers; 0 if it offers or permits none."""
    version = _landlock(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    return max(0, version)


def landlock_ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Make a set of rules, which allow accesses; every other access to files is denied.

    From ABI 6 on, it also denies signals to processes that are not restricted by it. It never
    denies a network connection.

    Args:
        rules: paths, each with the rights (READ, USE, WRITE, CREATE) below it; missing paths are
            ignored.

    Returns:
        a descriptor for `landlock_restrict`.

    Raises:
        OSError: the kernel offers no Landlock.
    """
    abi = landlock_abi()
    handled = sum(rights for since, rights in _RIGHTS_SINCE.items() if since <= abi)
    scoped = _SCOPE_SIGNALS if abi >= SIGNALS_ABI else 0
    attributes = struct.pack("QQQ", handled, 0, scoped)
    ruleset = _check(_landlock(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0))
    for path, rights in rules:
        try:
            below = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            allowed = rights & handled
            if not stat.S_ISDIR(os.fstat(below).st_mode):
                allowed &= _FILE_RIGHTS
            rule = struct.pack("=Qi", allowed, below)
            _check(_landlock(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0))
        finally:
            os.close(below)
    return ruleset


def landlock_restrict(ruleset: int) -> None:
    """Restrict this thread, and all that it starts, by a set of rules; for good.

    Raises:
        OSError: the kernel refuses it.
    """
    forbid_new_privileges()
    _check(_landlock(_LANDLOCK_RESTRICT_SELF, ruleset, 0))


def forbid_limits_of_others() -> None:
    """Deny this thread, and all that it starts, the limits of other processes (prlimit(2)).

    Landlock denies it signals, but a limit of CPU time ends a process, too. Only 0, the caller
    itself, is accepted as the process. Machines whose system calls are unknown are not restricted.

    Raises:
        OSError: the kernel refuses it.
    """
    machine = os.uname().machine
    if machine not in _SECCOMP_CALLS:
        return
    forbid_new_privileges()
    code = [each for call in _PRLIMIT_CALLS[machine] for each in _deny_unless_0(*call)]
    code.append((_BPF_RETURN, 0, 0, _SECCOMP_RET_ALLOW))
    raw = b"".join(struct.pack("=HBBI", *each) for each in code)
    program = ctypes.create_string_buffer(raw, len(raw))
    sock_fprog = struct.pack("HP", len(code), ctypes.addressof(program))
    call = ctypes.c_long(_SECCOMP_CALLS[machine])
    flags = _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    _check(_LIBC.syscall(call, _SECCOMP_SET_MODE_FILTER, flags, sock_fprog))


def _deny_unless_0(architecture: int, number: int) -> list[tuple[int, int, int, int]]:
    """A part of a filter: it denies a call if its first argument, an int, is not 0."""
    return [
        (_BPF_LOAD, 0, 0, _ARCHITECTURE_FIELD),
        (_BPF_JUMP_IF_EQUAL, 0, 5, architecture),  # else to the end of this part
        (_BPF_LOAD, 0, 0, _CALL_FIELD),
        (_BPF_JUMP_IF_EQUAL, 0, 3, number),
        (_BPF_LOAD, 0, 0, _FIRST_ARGUMENT_FIELD),
        (_BPF_JUMP_IF_EQUAL, 1, 0, 0),
        (_BPF_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EPERM),
    ]


def confine(ruleset: int) -> None:
    """Restrict this process by a set of rules; it gives up all other privileges, too.

    Raises:
        OSError: the kernel refuses it.
    """
    forbid_limits_of_others()
    landlock_restrict(ruleset)
    leave_session_keyring()
    forbid_precedence()
    drop_capabilities()


def _landlock(number: int, *arguments: object) -> int:
    call: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    return call


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
    stat = _content(f"{name}/stat", _STAT_MAX_BYTES)
    return None if stat is None else stat.rpartition(b")")[2].split()


def _content(name: str, max_bytes: int) -> bytes | None:
    """What a file in /proc contains; None if it cannot be read."""
    try:
        descriptor = os.open(f"{_PROC}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, max_bytes)
        finally:
            os.close(descriptor)
    except OSError:
        return None


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


class ProcessStatus(NamedTuple):
    """What /proc/<pid>/status states of a process.

    Attributes:
        uids: real, effective, saved, and of files.
        runs: whether one of its threads has not ended; its first one may have (then it is `Z`).
    """

    uids: tuple[int, ...]
    runs: bool


def status_of(pid: int) -> ProcessStatus | None:
    """A process's users and state; None if there is no such process."""
    text = _content(f"{pid}/status", _STATUS_MAX_BYTES)
    if text is None:
        return None
    # The name, which the process chooses, contains no line break (proc(5)).
    fields = dict(line.split(b":\t", 1) for line in text.split(b"\n") if b":\t" in line)
    ended = fields[b"State"][:1] in b"ZX" and int(fields[b"Threads"]) <= 1
    return ProcessStatus(uids=tuple(map(int, fields[b"Uid"].split())), runs=not ended)


def pids() -> list[int]:
    """The processes that /proc shows."""
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - faster


def running_processes_of(uid: int) -> list[int]:
    """The processes of a user, by any of their uids, except zombies."""
    found = ((pid, status_of(pid)) for pid in pids())
    return [pid for pid, each in found if each is not None and each.runs and uid in each.uids]


def is_process_of(pid: int, *users: int) -> bool:
    """Whether a process exists and its real uid is one of these."""
    status = status_of(pid)
    return status is not None and status.uids[0] in users


def uids_in_use() -> set[int]:
    """The users of all processes."""
    found = (status_of(pid) for pid in pids())
    return {uid for status in found if status is not None for uid in status.uids}


def user_has_processes(uid: int) -> bool:
    """Whether a process, or a zombie, has this real uid; needs no /proc.

    The kernel walks its list of tasks, to whose end new ones are added: one that forks and ends
    again and again cannot be missed.
    """
    try:
        os.getpriority(os.PRIO_USER, ctypes.c_int(uid).value)  # the call takes an int
    except ProcessLookupError:
        return False
    return True


# -- files


def reserve(descriptor: int, size_bytes: int) -> None:
    """Reserve room on the disk for the first bytes of a file, whose size does not change.

    Without effect on a file system that cannot do so.

    Raises:
        OSError: there is not enough room.
    """
    size = ctypes.c_int64(size_bytes)
    try:
        _check(_LIBC.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), size))
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise


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


def undrop_connections(listener: socket.socket) -> None:
    """Revert `drop_connections`, if it was called."""
    with contextlib.suppress(FileNotFoundError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


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
