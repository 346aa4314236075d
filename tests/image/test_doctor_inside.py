"""`worker doctor` in the container."""

from __future__ import annotations

from container_run import HARDENED, docker


def test_hardened(image):
    """In the hardened container everything is ok."""
    options = (*HARDENED, "--user=12345:12345", "--tmpfs=/artifacts:mode=1777")
    lines = docker("run", "--rm", *options, image, "doctor").splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []


def test_defaults(image):
    """Under Docker's defaults a task can run; what is worse is said, with what to do."""
    lines = docker("run", "--rm", image, "doctor").splitlines()
    worse = "\n".join(line for line in lines if not line.startswith("ok "))
    assert "warn  /dev/shm has 64 MB" in worse
    assert "--shm-size=1g" in worse
    assert "--security-opt seccomp=" in worse
    assert "FAIL" not in worse


def test_nowhere_to_write(image):
    """Read-only without a tmpfs and a volume: a line for each, and it does not end well."""
    said = docker("run", "--rm", "--read-only", image, "doctor", check=False)
    assert "FAIL  no temporary folder can be written to: " in said
    assert "--tmpfs /tmp" in said
    assert "FAIL  artifacts cannot go to /artifacts: " in said
