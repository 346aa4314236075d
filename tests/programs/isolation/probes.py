"""One probe for each row of the table "What a task can access" of worker/README.md.

A probe tries an access on targets: on those of the attacker's own task and session, and on those of
the API and of another task.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DENIED = (
    PermissionError,
    FileNotFoundError,
    NotADirectoryError,
    ProcessLookupError,
    ConnectionRefusedError,
)
_READ_ONLY_DISK = 30  # EROFS
_TIMEOUT_S = 10.0
_SHM_RDONLY = 0o10000
_SIZE = 64
_TRACER = """\
import ctypes, sys
libc = ctypes.CDLL(None)
for pid in sys.argv[1:]:
    if libc.ptrace(0x4206, int(pid), None, None) == 0:  # PTRACE_SEIZE
        print(pid)
"""


@dataclass(frozen=True)
class Probe:
    """What is tried for a row of the table.

    Attributes:
        kind: the kind of the targets.
        attempt: raises one of DENIED if the access is denied.
    """

    kind: str
    attempt: Callable[[Any], object]


def allowed(attempt: Callable[[Any], object], target: Any) -> bool:
    """Whether an access is possible."""
    try:
        attempt(target)
    except DENIED:
        return False
    except OSError as error:
        if error.errno == _READ_ONLY_DISK:
            return False
        raise
    return True


# -- files: a target is a path


def read(path: str) -> None:
    """List a folder, or read a file's first byte."""
    if Path(path).is_dir():
        list(Path(path).iterdir())
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.read(descriptor, 1)
        finally:
            os.close(descriptor)


def write(path: str) -> None:
    """Create a file in a folder and remove it, or open a file for appending."""
    if Path(path).is_dir():
        made = Path(path, f"made-by-{os.getpid()}")
        made.touch()
        made.unlink()
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))


def read_or_write(path: str) -> None:
    """Either."""
    if not allowed(read, path):
        write(path)


def change_mode(path: str) -> None:
    """Set a file's mode to what it is."""
    Path(path).chmod(stat.S_IMODE(Path(path).stat().st_mode))


# -- processes: a target is a pid and a part of its command line


def _pid(target: list[Any]) -> int:
    pid, part = target
    if part not in _command_line(pid):
        raise ProcessLookupError  # another process has this id, for example in a container
    return int(pid)


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def send_signal(target: list[Any]) -> None:
    """Send the signal 0, which has no effect."""
    os.kill(_pid(target), 0)


def limit(target: list[Any]) -> None:
    """Set a limit of it to what it is: a process can be ended by its limits."""
    pid = _pid(target)
    resource.prlimit(pid, resource.RLIMIT_CPU, resource.prlimit(pid, resource.RLIMIT_CPU))


def see(target: list[Any]) -> None:
    """Read its command line."""
    _pid(target)


def environment(target: list[Any]) -> None:
    """Read its environment."""
    read(f"/proc/{_pid(target)}/environ")


def memory(target: list[Any]) -> None:
    """Open its memory, which needs the same permission as to trace it."""
    _open(f"/proc/{_pid(target)}/mem")


def key(target: list[Any]) -> None:
    """Read its environment or memory, where it might have the stream key."""
    if not allowed(environment, target):
        memory(target)


def trace(target: list[Any]) -> None:
    """Read or write its memory, follow its links, or trace it by a process that ends at once."""
    pid = _pid(target)
    tracer = [sys.executable, "-I", "-S", "-c", _TRACER, str(pid)]
    files = ("environ", "maps", "mem", "fd/0", "root/", "cwd/")
    granted = [allowed(_open, f"/proc/{pid}/{name}") for name in files]
    granted.append(bool(subprocess.check_output(tracer)))
    _deny_unless(any(granted))


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _deny_unless(granted: object) -> None:
    if not granted:
        raise PermissionError


def configuration(target: list[Any]) -> str:
    """The config in the memory that supervisord has open."""
    pid = _pid(target)
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "memfd:" in str(entry.readlink()):
                return entry.read_text()
    raise FileNotFoundError


# -- sockets


def _unix_socket(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def connect(path: str) -> None:
    """Connect to a Unix socket."""
    _unix_socket(path).close()


def connect_by_number(target: str | int) -> None:
    """Connect to a port of this machine, or to an abstract Unix socket."""
    if isinstance(target, int):
        socket.create_connection(("127.0.0.1", target), _TIMEOUT_S).close()
    else:
        _unix_socket(f"\0{target}").close()


def call_supervisord(target: list[Any]) -> None:
    """Call supervisord, with its password if it can be read. A target: a process and a socket."""
    process, path = target
    password = ""
    with contextlib.suppress(OSError):
        config = configuration(process)
        password = config.partition("password=")[2].partition("\n")[0]
    body = "<methodCall><methodName>supervisor.getState</methodName></methodCall>"
    credentials = base64.b64encode(f"worker:{password}".encode()).decode()
    with _unix_socket(path) as connection:
        connection.sendall(
            f"POST /RPC2 HTTP/1.0\r\nAuthorization: Basic {credentials}\r\n"
            f"Content-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        _deny_unless(b" 200 " in connection.recv(100))


def use_display(target: list[str]) -> None:
    """Connect to an X server with its cookie. A target: the display and the cookie's file."""
    display, authority = target
    _open_display(display, Path(authority).read_bytes()[-16:])


def use_display_without_cookie(target: list[str]) -> None:
    """Connect to an X server without a cookie."""
    _open_display(target[0], b"")


def _open_display(display: str, cookie: bytes) -> None:
    name = b"MIT-MAGIC-COOKIE-1" if cookie else b""
    padded = b"".join(text + bytes(-len(text) % 4) for text in (name, cookie))
    path = f"/tmp/.X11-unix/X{display.removeprefix(':')}"
    try:
        connection = _unix_socket(f"\0{path}")
    except ConnectionRefusedError:
        connection = _unix_socket(path)
    with connection:
        connection.sendall(
            struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + padded
        )
        _deny_unless(connection.recv(1) == b"\1")


# -- shared memory


def attach(target: list[Any]) -> None:
    """Attach a System V segment. A target: its id and content; ids are per IPC namespace."""
    number, content = target
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(number, None, _SHM_RDONLY)
    if address == ctypes.c_void_p(-1).value:
        raise PermissionError(ctypes.get_errno())
    found = ctypes.string_at(address).decode(errors="replace")
    libc.shmdt(ctypes.c_void_p(address))
    _deny_unless(found == content)


def make_segment(content: str) -> int:
    """Create a System V segment, which is removed with its last user, this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    number: int = libc.shmget(0, _SIZE, 0o600)
    address = libc.shmat(number, None, 0)
    ctypes.memmove(address, content.encode() + b"\0", len(content) + 1)
    libc.shmctl(number, 0, None)  # IPC_RMID
    return number


# -- the process itself


def gain_privileges(pid: int) -> None:
    """Have privileges, or be able to gain them by executing a program."""
    status = Path(f"/proc/{pid}/status").read_text()
    _deny_unless("CapEff:\t0000000000000000" not in status or "NoNewPrivs:\t0" in status)


def open_in_browser(path: str) -> None:
    """Replaced by the attacker if it has a browser."""
    read(path)


PROBES = {
    "read the API's master secret": Probe("master_secret", read),
    "read the API's keys and database": Probe("state", read),
    "change the API's keys and database": Probe("state", write),
    "trace the API, or read its memory or environment": Probe("api", trace),
    "signal the API": Probe("api", send_signal),
    "read or change artifacts, `result.json` and log": Probe("artifacts", read_or_write),
    "read or change the current folder and temporary files": Probe("folders", read_or_write),
    "read inputs": Probe("task", environment),
    "write into a worker's events or error output": Probe("events", write),
    "read or change the session's folder": Probe("session", read_or_write),
    "read supervisord's password and config": Probe("supervisord", configuration),
    "start programs through supervisord": Probe("supervisord_socket", call_supervisord),
    "read the stream key": Probe("keys", key),
    "trace a worker, supervisord or stream server": Probe("secret", trace),
    "trace a task's process, Xvfb or x11vnc": Probe("ordinary", trace),
    "signal a worker, or any process below it": Probe("processes", send_signal),
    "change the limits of the API, which can end it": Probe("api", limit),
    "change the limits of a worker, or of any process below it": Probe("processes", limit),
    "see the command lines of processes": Probe("processes", see),
    "connect to x11vnc": Probe("x11vnc", connect),
    "use a display with its cookie": Probe("display", use_display),
    "use a display without its cookie": Probe("display", use_display_without_cookie),
    "connect to Unix sockets in folders": Probe("unix_sockets", connect),
    "connect to abstract Unix sockets and ports of 127.0.0.1": Probe("ports", connect_by_number),
    "attach System V shared memory": Probe("segments", attach),
    "open files in `/dev/shm`, by name": Probe("shm_files", read),
    "change the mode of files, by path": Probe("modes", change_mode),
    "write into other folders of its user": Probe("elsewhere", write),
    "gain privileges": Probe("status", gain_privileges),
    "open files in the browser (`file://`), also by a viewer in control": Probe(
        "browser", open_in_browser
    ),
}
