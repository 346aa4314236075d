"""What a confined task may access."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker import linux
from worker.task import confinement
from worker.task.confinement import Confinement


@pytest.fixture
def rules(monkeypatch):
    """The rules that the kernel would get, by path."""
    made = {}
    monkeypatch.setattr(linux, "landlock_ruleset", lambda given: made.update(given) or 0)
    return made


def make(read=(), write=(), hidden=()):
    chosen = Confinement(read=tuple(read), write=tuple(write), hidden=tuple(hidden))
    confinement.ruleset(chosen, own=(Path("/own"),), cookie=Path("/cookie"))


def test_rules(rules):
    make(read=[Path("/data")], write=[Path("/out")])
    assert (rules["/own"], rules["/out"]) == (linux.WRITE, linux.WRITE)
    assert (rules["/data"], rules["/usr"], rules["/cookie"]) == (linux.READ,) * 3
    assert rules["/dev/shm"] & linux.READ == linux.READ & ~(1 << 3)  # everything but listing
    assert "/" not in rules


@pytest.mark.parametrize(("uid", "writable"), [(0, False), (1000, True)])
def test_proc_is_not_writable_for_root(rules, monkeypatch, uid, writable):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    make()
    assert (rules["/proc"] != linux.READ) == writable


def test_hidden_inside_of_readable(rules, tmp_path):
    """Its siblings, and those of each folder above it, are readable; nothing else is."""
    tree = tmp_path / "tree"
    for name in ("a", "b/c", "b/state/secret"):
        (tree / name).mkdir(parents=True)
    (tree / "file").write_text("x")
    (tree / "link").symlink_to(tree / "b/state")
    make(read=[tree], hidden=[tree / "b/state"])
    seen = {Path(path) for path in rules if path.startswith(str(tmp_path))}
    assert seen == {tree / "a", tree / "b/c", tree / "file"}


@pytest.mark.parametrize("readable", ["/", "hidden", "link"])
def test_never_readable(rules, tmp_path, readable):
    """The root of all files, a hidden folder, and a link to it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (tmp_path / "link").symlink_to(hidden)
    before = (make(hidden=[hidden]), set(rules))[1]
    rules.clear()
    make(read=[tmp_path / readable], hidden=[hidden])
    assert set(rules) == before


def test_chosen_inside_of_hidden(rules, tmp_path):
    """A task's file in the temporary folder is readable, the rest of that folder is not."""
    task = tmp_path / "task"
    task.mkdir()
    make(read=[task], hidden=[tmp_path])
    assert rules[str(task)] == linux.READ
    assert str(tmp_path) not in rules


def test_environment(tmp_path):
    """A home of its own, nothing of the user's; Playwright finds the browsers of the user."""
    environ = {"HOME": "/home/user", "XDG_CACHE_HOME": "/home/user/.c", "SSH_AUTH_SOCK": "/s"}
    made = confinement.environment(environ, tmp_path)
    assert made == {
        "HOME": str(tmp_path / "home"),
        "PLAYWRIGHT_BROWSERS_PATH": "/home/user/.cache/ms-playwright",
    }
    assert (tmp_path / "home").is_dir()
