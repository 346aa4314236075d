"""npm packages for tests: installed once, into `.venv` and not the tree, with no lock file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_CACHE = Path(sys.prefix) / "npm"
_TIMEOUT_S = 100


def installed(*packages: str) -> Path:
    """A folder whose `node_modules` holds these packages.

    Skips the test, or in CI fails it, where npm is missing.

    Args:
        packages: each with its version, as in `react@19.3.1`; the same ones share a folder.
    """
    if shutil.which("npm") is None:
        missing = "npm is missing: run `make test`, which installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    name = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:16]
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run side by side
        folder = _CACHE / name
        if not (folder / "installed").exists():
            _install(folder, packages)
    return folder


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    done = subprocess.run(
        ["npm", "install", *options, *packages],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "installed").touch()
