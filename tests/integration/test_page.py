"""The noVNC page for local debugging, in a real browser."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request

import pytest
from browser import BLUE, ORANGE, chromium, wait_for_pixel
from worker_run import PROGRAMS

TASKS = str(PROGRAMS / "tasks.py")


@pytest.fixture(scope="module")
def browser():
    """One browser for the module."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def browser_page(browser, display_programs):
    """A page in headless Chromium."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    yield page
    page.close()


def state(page, name, **attributes):
    """Wait until the page is in this state."""
    wanted = "".join(f'[data-{key}="{value}"]' for key, value in attributes.items())
    page.wait_for_selector(f'html[data-state="{name}"]{wanted}', state="attached", timeout=20000)


@pytest.mark.parametrize(
    ("task", "said", "outcome", "code"),
    [("until_with_page", "end", "success", 0), ("until", "fail", "failed", 1)],
)
def test_watch_to_the_end(run, tmp_path, browser_page, task, said, outcome, code):
    """The page shows the task's pixels, then "Stream ended" with the outcome."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:{task}", "--input", f"file={file}")
    browser_page.goto(worker.page)
    state(browser_page, "connected")
    if task == "until_with_page":
        wait_for_pixel(browser_page, (960, 700), BLUE)
    file.write_text(said)
    state(browser_page, "ended", outcome=outcome)
    assert browser_page.locator("#status-title").inner_text().lower() == "stream ended"
    assert f"1000 task {outcome}" in browser_page.locator("#status-raw").inner_text()
    assert worker.wait() == code


def test_reconnect(run, tmp_path, browser_page):
    """After x11vnc is killed the page shows that it reconnects, and then the task again."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={file}")
    browser_page.goto(worker.page)
    state(browser_page, "connected")
    seen = browser_page.evaluate_handle(
        """() => { const seen = []; const title = document.querySelector("#status-title");
        new MutationObserver(() => seen.push(title.textContent.toLowerCase()))
          .observe(title, {childList: true, characterData: true, subtree: true}); return seen; }"""
    )
    os.kill(worker.pid("x11vnc -display"), signal.SIGKILL)
    worker.event("x11vnc.restarted")
    worker.event("viewer.connected", count=2)
    state(browser_page, "connected")
    wait_for_pixel(browser_page, (960, 700), BLUE)
    assert "connection lost, reconnecting" in seen.json_value()
    file.write_text("end")
    state(browser_page, "ended", outcome="success")
    assert worker.wait() == 0


def test_next_task(run, tmp_path, browser_page):
    """A page that stays open connects to the next task on the same port."""
    first = run(f"{TASKS}:until", "--input", f"file={tmp_path / 'a'}")
    browser_page.goto(first.page)
    state(browser_page, "connected")
    (tmp_path / "a").write_text("end")
    state(browser_page, "ended")
    assert first.wait() == 0
    second = run(
        f"{TASKS}:until_with_page",
        *("--input", f"file={tmp_path / 'b'}", "--input", "colour=rgb(240, 140, 20)"),
        *("--port", str(first.port)),
    )
    state(browser_page, "connected")
    wait_for_pixel(browser_page, (960, 700), ORANGE)
    (tmp_path / "b").write_text("end")
    state(browser_page, "ended", outcome="success")
    assert second.wait() == 0


def get(url, **headers):
    """An HTTP answer: status, body."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_debug_page_is_for_loopback_names_and_its_own_origin(run):
    """Other host names and other origins get no debug page and no stream URL."""
    worker = run("--", "sleep", "600")
    page, port = worker.page, worker.port
    assert get(page)[0] == 200
    assert get(f"{page}page/debug-page.js")[0] == 200
    assert get(f"{page}novnc/core/rfb.js")[0] == 200
    assert get(page, Host=f"evil.example:{port}")[0] == 403
    assert get(f"{page}debug/stream-url", Host=f"evil.example:{port}")[0] == 403
    assert get(f"{page}debug/stream-url", Origin="http://evil.example")[0] == 403
    assert get(f"{page}debug/stream-url", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert get(f"{page}debug/stream-url", Origin=page.rstrip("/"))[0] == 200
    assert get(f"{page}novnc/vnc.html")[0] == 404
    assert get(f"{page}novnc/../../../../etc/passwd")[0] == 404
    assert get(f"{page}novnc/%2e%2e/%2e%2e/%2e%2e/etc/passwd")[0] == 404
    assert get(f"{page}nothing")[0] == 404


def test_no_debug_page(run):
    """Without debug mode there is no page and no stream URL, but there is health."""
    worker = run("--", "sleep", "600", env={"WORKER_DEBUG_PAGE": "false"})
    base = f"http://127.0.0.1:{worker.port}"
    assert get(f"{base}/") == (404, b'{"detail": "Not found"}')
    assert get(f"{base}/debug/stream-url")[0] == 404
    assert json.loads(get(f"{base}/healthz")[1]) == {"status": "ok"}
    assert get(f"{base}/readyz")[0] == 200
