"""A React page with npm's noVNC, written after the reference, works with the API unchanged."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading

import npm
import pytest
from browser import BLUE, PATIENCE_MS, Sockets, chromium, wait_for_pixel
from worker_run import PROGRAMS

PACKAGES = ("react@19.3.1", "react-dom@19.3.1", "@novnc/novnc@1.7.0", "esbuild@0.28.2")
RECORD_STATES = """
window.states = [];
new MutationObserver(() => {
  const now = document.querySelector("[data-state]")?.dataset.state;
  if (now && now !== window.states.at(-1)) window.states.push(now);
}).observe(document, {subtree: true, childList: true, attributes: true});
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Address of the bundled page, on an origin other than the API's."""
    modules = npm.installed(*PACKAGES)
    folder = tmp_path_factory.mktemp("react")
    shutil.copy(PROGRAMS / "react" / "page.jsx", folder)
    (folder / "node_modules").symlink_to(modules / "node_modules")
    command = ["page.jsx", "--bundle", "--jsx=automatic", "--format=esm", "--outfile=page.js"]
    esbuild = modules / "node_modules" / ".bin" / "esbuild"
    subprocess.run([esbuild, *command, "--log-level=warning"], cwd=folder, check=True, timeout=60)
    (folder / "index.html").write_text(
        "<!doctype html><title>React</title><div id=root></div>"
        '<script type="module" src="page.js"></script>'
    )
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """One browser for the module."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def page(browser):
    """A tab that records each state that it shows."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(RECORD_STATES)
    yield page
    page.close()


@pytest.fixture(scope="module")
def shared(shared_serve, site):
    """An API for all tests, whose answers the page's origin may read."""
    return shared_serve({"WORKER_ALLOWED_ORIGINS": site, "WORKER_MAX_RUNNING": "1"})


@pytest.fixture
def served(shared):
    """The API, without a running task before and after the test."""
    yield shared
    shared.cancel_all()


def start(served, endpoint="wait", **inputs):
    """A task of an account; its address and a new key of the account."""
    key = served.sign_in()
    task_id = served.start_task(endpoint, input_parameters=inputs)
    return f"{served.url}/api/v1/tasks/{task_id}", key


def show(page, site, task, key):
    """Open the page on a task."""
    page.goto(f"{site}/#task={task}&key={key}")


def reached(page, state):
    """Wait for a state; return all states so far and the page's text."""
    page.wait_for_selector(f'[data-state="{state}"]', state="attached")
    return page.evaluate("states"), page.inner_text("section p")


def corrupt_token(route):
    """Make the token of a stream URL invalid."""
    answer = route.fetch()
    body = answer.json()
    if "stream_url" in body:
        body["stream_url"] += "x"
    route.fulfill(response=answer, json=body)


def test_watch_to_the_end(served, site, page, readable):
    """Loading, connecting, connected with the task's pixels, and "Stream ended"."""
    file = readable / "end"
    show(page, site, *start(served, "paint", file=str(file)))
    reached(page, "connected")
    wait_for_pixel(page, (960, 700), BLUE, "canvas")
    file.write_text("end")
    assert reached(page, "disconnected") == (
        ["loading", "connecting", "connected", "disconnected"],
        "Stream ended",
    )


def test_queued(served, site, page, readable):
    """A page that is opened while the task is queued shows it once it runs."""
    first, second = readable / "first", readable / "second"
    start(served, file=str(first))
    show(page, site, *start(served, file=str(second)))
    reached(page, "loading")
    first.write_text("end")
    reached(page, "connected")
    second.write_text("end")
    assert reached(page, "disconnected")[1] == "Stream ended"


def test_errors(served, site, page, readable):
    """Each refusal is shown with the API's `detail`; an invalid token is a failed connection."""
    task, key = start(served, file=str(readable / "never"))
    unknown = "00000000-0000-4000-8000-000000000000"
    for address, given, reason in (
        (task, "wrong", "Invalid or missing API key"),
        (task.rpartition("/")[0] + f"/{unknown}", key, f"Task {unknown} not found"),
    ):
        page.goto("about:blank")
        show(page, site, address, given)
        assert reached(page, "error") == (["loading", "error"], reason)

    page.goto("about:blank")
    page.route("**/stream", corrupt_token)
    show(page, site, task, key)
    assert reached(page, "error") == (["loading", "connecting", "error"], "The connection failed")


def test_ended_task(served, site, page, readable):
    """For a task that has ended the page shows the API's 409."""
    file = readable / "end"
    file.write_text("end")
    task, key = start(served, file=str(file))
    served.wait_for_status(task.rpartition("/")[2], "success")
    show(page, site, task, key)
    assert reached(page, "error")[1] == "Stream not available: task is not running"


def test_unmount(served, site, page, readable):
    """On unmount the page disconnects."""
    sockets = Sockets(page)
    show(page, site, *start(served, file=str(readable / "never")))
    reached(page, "connected")
    page.click("#unmount")
    assert sockets.closed() == [True]
