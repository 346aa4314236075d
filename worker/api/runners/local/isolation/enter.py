"""Executes a worker as another user, in a view of the machine that contains nothing of the others.

    python -I -S enter.py VIEW PROGRAM [ARG]...        VIEW: the fields of `View`, as JSON

It is executed by its path, as root, and needs only the standard library: it becomes the program.

The view is a mount namespace. Folders that other users cannot list, such as /root, are covered by
empty ones, in which only what the worker needs is mounted. /tmp, /var/tmp and /dev/shm are the
task's own, and System V shared memory too: nothing in them is left when its processes have ended.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[5]))

from worker import linux
from worker.api.runners.local.isolation import cpu_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROCESSES_MAX: Final = 4096
"""Of a uid, threads included; a browser with 20 pages has about 500."""
_OWN_TMP: Final = ("/tmp", "/var/tmp")  # noqa: S108 - mount points
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a mount point
_X11_SOCKETS: Final = ".X11-unix"  # Xvfb cannot give it the sticky bit unless it is root
_LISTABLE: Final = stat.S_IROTH | stat.S_IXOTH
_EMPTY: Final = "mode=0755,size=4m"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a worker sees of the machine.

    Attributes:
        uid: its user and group.
        group: its cgroup; empty: that of the API.
        home: its current folder.
        tmp: what it sees as /tmp.
        needed: the files and folders that it must reach, by their paths.
    """

    uid: int
    group: str
    home: str
    tmp: str
    needed: list[str]


def main() -> None:
    """Become the program."""
    view = View(**json.loads(sys.argv[1]))
    cpu_shares.join(view.group)
    linux.unshare_mounts_and_ipc()
    os.umask(0o022)  # the worker's user must be able to enter the folders of its view
    _arrange(view)
    _become(view.uid)
    os.umask(0o077)
    linux.forbid_new_privileges()
    os.chdir(view.home)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted


def _become(uid: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = PROCESSES_MAX if most == resource.RLIM_INFINITY else min(PROCESSES_MAX, most)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    linux.forbid_precedence()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    linux.drop_capabilities()  # of which securebits, or an ambient set, may have kept some
    linux.forget_keys()


def _arrange(view: View) -> None:
    names = {name for each in view.needed for name in (each, os.path.realpath(each))}
    needed = sorted(part for name in names for part in _parts(name, view.uid))
    opened = {name: os.open(name, os.O_PATH) for name in needed}
    covered = sorted({*_closed(opened), *filter(os.path.isdir, _OWN_TMP)}, key=len)
    sockets = Path(view.tmp, _X11_SOCKETS)
    sockets.mkdir(exist_ok=True)
    sockets.chmod(0o1777)
    tmp = os.open(view.tmp, os.O_PATH)
    if Path(_SHARED_MEMORY).is_dir():
        linux.mount_tmpfs(_SHARED_MEMORY, "mode=1777")
    for cover in covered:
        if cover in _OWN_TMP:
            linux.bind_mount(f"/proc/self/fd/{tmp}", cover)
        elif not _is_below(cover, covered):
            linux.mount_tmpfs(cover, _EMPTY)
    for name, descriptor in opened.items():  # sorted: what contains another comes first
        if _is_below(name, covered) and not _is_at(descriptor, name):
            _mount(descriptor, Path(name))


def _parts(name: str, uid: int) -> Iterator[str]:
    """A path, if it exists; its entries, if it is a folder that other users cannot list."""
    path = Path(name)
    if not path.exists():
        return
    status = path.stat()
    listed = status.st_uid == uid or status.st_mode & _LISTABLE == _LISTABLE
    if listed or not path.is_dir():
        yield name
    else:
        yield from (str(entry) for entry in path.iterdir() if entry.exists())


def _closed(paths: Iterable[str]) -> Iterator[str]:
    """The outermost folder above each path that other users cannot list."""
    for path in paths:
        for parent in reversed(Path(path).parents):
            if parent.stat().st_mode & _LISTABLE != _LISTABLE:
                yield str(parent)
                break


def _is_below(path: str, covers: Iterable[str]) -> bool:
    return any(path.startswith(cover + "/") for cover in covers)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an opened file or folder is still at its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), Path(path).stat())
    except FileNotFoundError:
        return False


def _mount(descriptor: int, target: Path) -> None:
    """Make an opened file or folder appear at its path in an empty folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    linux.bind_mount(f"/proc/self/fd/{descriptor}", str(target))


if __name__ == "__main__":
    main()
