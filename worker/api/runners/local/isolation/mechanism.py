"""Which mechanisms isolate the tasks of the local runner, and what they do to a worker.

uids        as root: each worker has a uid of its own, and its own view of the machine's folders
landlock    each task's process is restricted to its own folders by Landlock
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import linux
from worker.api import programs
from worker.api.runners.local.isolation import cpu_shares, enter, kill_all
from worker.api.runners.local.isolation.cpu_shares import CpuShares
from worker.api.runners.local.isolation.enter import View
from worker.api.runners.local.isolation.uids import NoFreeUid, Uid, Uids
from worker.settings import PREFIX
from worker.surroundings import interpreter
from worker.task import confinement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from worker.api.runners.local.task_folder import TaskFolder

_TRIAL_LIMIT_S: Final = 30.0
_KILL_LIMIT_S: Final = kill_all.LIMIT_S + 5.0
_TRIAL: Final = """\
import os, sys
import worker.session.preflight, worker.session.prelaunch, playwright
for name in sys.argv[1:]:
    with open(name, "rb"):
        pass
"""
_TMP: Final = "/tmp"  # noqa: S108 - the task's own, in its view


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How workers are isolated.

    Attributes:
        uids: the uids of the configured range; None: the API is not root.
        assigns_uids: whether each worker gets one of them; otherwise workers are the API's user.
        abi: the version of Landlock that restricts the tasks; 0: none.
        why: why not all mechanisms are used; empty: they are, or that was configured.
        readable: files and folders that tasks may read in addition.
        hidden: files and folders of the API.
        cpu: the cgroups of the workers that have uids of their own.
    """

    uids: Uids | None = None
    assigns_uids: bool = False
    abi: int = 0
    why: str = ""
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    cpu: CpuShares = field(default_factory=CpuShares)

    @property
    def mechanism(self) -> str:
        """`uids+landlock`, `uids`, `landlock` or `none`."""
        names = [*(["uids"] if self.assigns_uids else []), *(["landlock"] if self.abi else [])]
        return "+".join(names) or "none"

    @property
    def notice(self) -> tuple[str, dict[str, Any]]:
        """The event that reports it: its name and fields."""
        why = {"why": self.why} if self.why else {}
        if self.mechanism == "none":
            remedy = "run the API as root, or enable Landlock; else one account only"
            return "isolation.missing", {**why, "remedy": remedy}
        return "isolation.enabled", {"mechanism": self.mechanism, "abi": self.abi, **why}

    def take_uid(self, stored: Collection[int]) -> Uid:
        """Choose a free uid; see `Uids.take`."""
        if self.uids is None:
            raise NoFreeUid
        return self.uids.take(stored)

    def release(self, uid: int) -> None:
        """Make a uid available again; see `Uids.release`."""
        if self.uids is not None:
            self.uids.release(uid)

    def prepare(self, folder: TaskFolder, uid: int | None) -> None:
        """Create the folders that the task may write, owned by its user.

        Raises:
            OSError: they cannot be created.
        """
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for own in folder.writable:
            own.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                os.chown(own, uid, uid, follow_symlinks=False)

    def command(
        self, argv: Sequence[str], folder: TaskFolder, uid: int | None, file: Path
    ) -> list[str]:
        """The command line that starts a worker as its user.

        Args:
            argv: the worker's own.
            folder: the task's.
            uid: the task's user; None: the API's.
            file: the task's file.
        """
        if uid is None:
            return list(argv)
        needed = [*self.readable, file.parent, file]
        return _enter(uid, folder, needed, argv, group=self.cpu.create(uid))

    def environment(
        self, environ: Mapping[str, str], folder: TaskFolder, uid: int | None
    ) -> dict[str, str]:
        """A worker's environment, from the one that all have in common."""
        made = dict(environ)
        if uid is not None:
            made = confinement.without_folders_of_the_user(made)
            made |= {"HOME": str(folder.home), "TMPDIR": _TMP}
            made |= dict.fromkeys(("USER", "LOGNAME"), f"worker-{uid}")
        if self.abi:
            made |= {
                f"{PREFIX}CONFINE": "true",
                f"{PREFIX}CONFINE_READ": _joined(self.readable),
                f"{PREFIX}CONFINE_WRITE": _joined([folder.home]),
                f"{PREFIX}CONFINE_HIDE": _joined(self.hidden),
            }
        return made

    def clean_up(self, folder: TaskFolder, uid: int) -> bool:
        """Kill what is left of a user, and take over its files; blocks.

        Returns:
            whether the uid may be used again.
        """
        if self.uids is not None and self.uids.hold(uid) is not None:
            kill = [*_python(kill_all), str(uid)]
            try:
                returncode, _ = programs.run(kill, limit_s=_KILL_LIMIT_S)
            except programs.TookTooLong:
                return False
            if returncode:
                return False
        # coreutils handle trees of any depth, and follow no link.
        owner = f"{os.geteuid()}:{os.getegid()}"
        take = ["chown", "--recursive", "--no-dereference", "-P", f"--from={uid}", owner, "--"]
        commands = [["rm", "-rf", "--one-file-system", "--", str(folder.home), str(folder.tmp)]]
        if os.path.lexists(folder.artifacts):  # it is missing if the worker was never started
            commands.append([*take, str(folder.artifacts)])
        for argv in commands:
            if programs.run(argv)[0]:
                return False
        self.cpu.remove(uid)
        self.release(uid)
        return True


def detect(
    chosen: str,
    numbers: range,
    *,
    folder: TaskFolder,
    environ: Mapping[str, str],
    readable: tuple[Path, ...],
    hidden: tuple[Path, ...],
    endpoints: Path,
) -> Isolation:
    """Find out which mechanisms work here; blocks for some tenths of a second.

    Args:
        chosen: WORKER_LOCAL_ISOLATION.
        numbers: the range of uids.
        folder: of a task that does not exist, for a trial.
        environ: the environment that every worker's is based on.
        readable: files and folders that tasks may read in addition.
        hidden: files and folders of the API.
        endpoints: the folder of the task files.

    Raises:
        SettingError: the range of uids contains a user of the machine.
    """
    if chosen == "off":
        return Isolation(why="WORKER_LOCAL_ISOLATION is off")
    abi = linux.landlock_abi()
    lacking = [] if abi else ["the kernel offers no Landlock, or a seccomp profile forbids it"]
    uids, assigns = None, False
    try:
        uids = Uids(numbers) if os.geteuid() == 0 else None
        if uids is not None and chosen == "auto":
            _try(uids, folder, environ, readable, endpoints)
            assigns = True
    except (OSError, _TrialFailed) as error:
        lacking.append(f"tasks cannot have uids of their own: {error}")
    if uids is None and not abi:
        lacking.append("uids of their own need root")
    return Isolation(
        uids=uids,
        assigns_uids=assigns,
        abi=abi,
        why="; ".join(lacking),
        readable=readable,
        hidden=hidden,
        cpu=cpu_shares.detect() if assigns else CpuShares(),
    )


class _TrialFailed(Exception):
    pass


def _try(
    uids: Uids,
    folder: TaskFolder,
    environ: Mapping[str, str],
    readable: tuple[Path, ...],
    endpoints: Path,
) -> None:
    """Load a worker's modules, and open the endpoints' files, as the first free uid."""
    uid = uids.take(())
    trial = Isolation(uids=uids, assigns_uids=True, readable=readable)
    files = [str(file) for file in endpoints.glob("*.py")]
    argv = [sys.executable, *interpreter.OPTIONS, "-c", _TRIAL, *files]
    try:
        trial.prepare(folder, uid.number)
        done = subprocess.run(
            _enter(uid.number, folder, [*readable, endpoints], argv),
            env=trial.environment(environ, folder, uid.number),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TRIAL_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise _TrialFailed(f"a trial took longer than {_TRIAL_LIMIT_S:g} s") from None
    finally:
        trial.clean_up(folder, uid.number)
        shutil.rmtree(folder.path, ignore_errors=True)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _TrialFailed(lines[-1] if lines else f"a trial ended with {done.returncode}")


def _enter(
    uid: int, folder: TaskFolder, needed: Sequence[Path], argv: Sequence[str], *, group: str = ""
) -> list[str]:
    paths = [*_needed(), folder.home, folder.artifacts, *needed]
    view = View(
        uid=uid,
        group=group,
        home=str(folder.home),
        tmp=str(folder.tmp),
        needed=[str(path) for path in paths],
    )
    return [*_python(enter), json.dumps(asdict(view)), *argv]


def _needed() -> Iterator[Path]:
    yield from confinement.readable(os.environ)
    if chromium := os.environ.get(f"{PREFIX}CHROMIUM"):
        yield Path(chromium).resolve().parent


def _python(module: Any) -> list[str]:
    """A program of ours that needs the standard library only, by its path."""
    return [sys.executable, *interpreter.OPTIONS, "-S", str(module.__file__)]


def _joined(paths: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, paths))
