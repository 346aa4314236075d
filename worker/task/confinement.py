"""What a confined task's process may access: Landlock rules, and variables that fit them.

The process, and all that it starts, may read the system's folders, the interpreter's, the browser's
and its own; it may write to its own folders only. It cannot read what belongs to its session, such
as supervisord's config, except the display's cookie, and cannot signal or trace other processes.

What needs no open file, such as chmod(2) by path, is not restricted by Landlock.

Landlock restricts neither network connections nor those to Unix sockets that have a path. Abstract
sockets are not restricted either: X11's libraries connect to the display by one, and do not try the
path after EPERM.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import linux

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HOME: Final = "home"
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys"),
    *("/nix/store", "/gnu/store", "/snap", "/run/current-system"),
    *("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"),  # /etc/resolv.conf
    *("/var/cache/fontconfig", "/var/lib/dbus", "/var/lib/ca-certificates"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - the mount
_BROWSERS: Final = "PLAYWRIGHT_BROWSERS_PATH"
_FOLDERS_OF_THE_USER: Final = (
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """A task's access to files, in addition to the system's.

    Attributes:
        read: files and folders that it may read.
        write: folders that it may write.
        hidden: files and folders that it must not access, even inside of those it may read.
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    hidden: tuple[Path, ...]


def readable(environ: Mapping[str, str]) -> Iterator[Path]:
    """The folders of the interpreter, its packages, the programs on PATH, and Playwright."""
    yield from (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
    here = Path.cwd()  # on the path of `python -m`
    yield from (path for path in map(Path, filter(None, sys.path)) if path.absolute() != here)
    yield from (Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry)
    yield browsers(environ)


def browsers(environ: Mapping[str, str]) -> Path:
    """The folder of Playwright's own browsers."""
    return Path(environ.get(_BROWSERS) or home(environ) / ".cache/ms-playwright")


def home(environ: Mapping[str, str]) -> Path:
    """The user's home folder; a uid without an account has none."""
    return Path(environ.get("HOME") or "/nonexistent")


def environment(environ: Mapping[str, str], tmp: Path) -> dict[str, str]:
    """The environment of a confined task: a home folder of its own, none of the user's folders.

    Args:
        environ: the worker's.
        tmp: the task's temporary folder.
    """
    own = tmp / HOME
    own.mkdir(mode=0o700)
    return {**without_folders_of_the_user(environ), "HOME": str(own)}


def without_folders_of_the_user(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for another home folder; Playwright still finds its own browsers."""
    kept = {name: value for name, value in environ.items() if name not in _FOLDERS_OF_THE_USER}
    return {**kept, _BROWSERS: str(browsers(environ))}


def ruleset(chosen: Confinement, *, own: Iterable[Path], cookie: Path) -> int:
    """The rules, as a descriptor for `worker.linux.confine`.

    Args:
        chosen: what is readable and writable besides the system's folders.
        own: the session's folders that the task may write.
        cookie: the display's cookie, a file.

    Raises:
        OSError: the kernel offers no Landlock.
    """
    return linux.landlock_ruleset(_rules(chosen, (*own, *chosen.write), cookie))


def _rules(
    chosen: Confinement, writable: Iterable[Path], cookie: Path
) -> Iterator[tuple[str, int]]:
    hidden = {Path(os.path.realpath(each)) for each in chosen.hidden}
    for path in {os.path.realpath(each) for each in (*map(Path, _SYSTEM), *chosen.read)}:
        for visible in _without(Path(path), hidden):
            yield str(visible), linux.READ
    yield str(cookie), linux.READ
    for each in writable:
        yield str(each), linux.WRITE
    for device in _DEVICES:
        yield device, linux.USE
    yield _SHARED_MEMORY, linux.CREATE
    # Chromium's sandbox writes /proc/self/uid_map. The files of root, such as those below
    # /proc/sys, would be writable for a process of root.
    yield "/proc", linux.READ if os.geteuid() == 0 else linux.READ | linux.USE


def _without(tree: Path, hidden: set[Path]) -> Iterator[Path]:
    """A tree's parts that do not contain a hidden path; the tree itself, if it contains none.

    A rule cannot exclude a part of what it allows. A path that is itself chosen, inside of a hidden
    one, is visible.
    """
    if tree == Path(tree.anchor) or tree in hidden:
        return
    if not any(tree in path.parents for path in hidden):
        yield tree
        return
    try:
        entries = sorted(tree.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.is_symlink():
            yield from _without(entry, hidden)
