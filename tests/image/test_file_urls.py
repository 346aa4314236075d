"""`file://` URLs in the image's Chromium: blocked by a managed policy, allowed by a setting."""

from __future__ import annotations

import json

from container_run import HARDENED

URLS = [
    "file:///etc/passwd",
    "file:///etc/",
    "view-source:file:///etc/passwd",
    "FILE://localhost/etc/passwd",
]
USER = "--user=12345:12345"


def shown(container, *options):
    """What a task's browser shows of each URL."""
    task = ("container_tasks.py:file_urls", "--inputs", json.dumps({"urls": URLS}))
    run = container(*task, options=(*HARDENED, USER, *options))
    assert run.wait() == 0, run.stderr
    return run.result["output"]


def test_blocked(container):
    """No form of a file's URL shows it."""
    for url, text in shown(container).items():
        assert "ERR_BLOCKED_BY_ADMINISTRATOR" in text, url


def test_allowed(container):
    """With WORKER_ALLOW_FILE_URLS, also in a read-only container, for any user."""
    for url, text in shown(container, "--env=WORKER_ALLOW_FILE_URLS=true").items():
        assert "root:x:0:0" in text or "passwd" in text, url
        assert "ERR_" not in text, url
