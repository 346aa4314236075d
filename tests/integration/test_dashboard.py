"""The dashboard in a real browser, with the real API and its local runner."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from browser import BLUE, ORANGE, PATIENCE_MS, Sockets, chromium, wait_for_pixel
from playwright.sync_api import expect
from worker_run import marked_processes
from worker_serve import WorkerServe

MIDDLE = (960, 700)
POLL_MAX_MS = 10_000  # the page requests the list again in less
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    """One browser for the module."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def idle(display_programs, tmp_path_factory):
    """An API shared by the tests that start no task."""
    served = WorkerServe(tmp_path_factory.mktemp("idle"))
    yield served.start()
    served.end()


@pytest.fixture(scope="module")
def shared(shared_serve):
    """An API shared by the tests that start tasks and need no other setting."""
    return shared_serve({"WORKER_MAX_RUNNING": "2"})


@pytest.fixture
def served(shared):
    """The shared API, without a running task before and after the test."""
    yield shared
    shared.cancel_all()


@pytest.fixture
def page(browser):
    """A tab; after the test its console must hold no error of the page."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "console",
        lambda message: said.append(message.text) if _is_error_of_the_page(message) else None,
    )
    yield page
    context.close()
    assert said == []


def _is_error_of_the_page(message):
    """Whether a console message is an error of the page's code or policy.

    The browser itself logs each 4xx, and each request that it aborts because the machine's network
    changes, which the page repeats. noVNC logs data that arrives after the view has disconnected.
    """
    others = ("Failed to load resource", "net::ERR_NETWORK_CHANGED", "Got data while disconnected")
    return message.type == "error" and not any(each in message.text for each in others)


def sign_in(page, served, *, control=False):
    """Open the dashboard as a new account."""
    page.goto(served.url)
    page.fill("#key", served.key("alice", *(["--control"] if control else [])))
    page.keyboard.press("Enter")
    expect(page.locator("#rows")).to_have_attribute("aria-busy", "false")


def start(page, endpoint, **inputs):
    """Start a task with the form; return its id."""
    page.click("#to-start")
    page.fill("#endpoint", endpoint)
    for place, (name, value) in enumerate(inputs.items()):
        if place:
            page.click("#add")
        page.locator(".parameter-name").nth(place).fill(name)
        page.locator(".parameter-value").nth(place).fill(str(value))
    page.click("#submit")
    page.wait_for_selector("#task-id[data-task-id]")
    return page.get_attribute("#task-id", "data-task-id")


def watching(page, state, **more):
    """Wait until the live view is in this state."""
    also = "".join(f'[data-{name}="{value}"]' for name, value in more.items())
    page.wait_for_selector(f'#watch[data-state="{state}"]{also}', state="attached")


@pytest.mark.parametrize(
    ("word", "outcome", "code"), [("end", "success", 0), ("fail", "failed", 1)]
)
def test_start_watch_end(served, page, readable, word, outcome, code):
    """A task started from the dashboard is watched to "Stream ended", outcome and result."""
    sign_in(page, served)
    file = readable / "end"
    task_id = start(page, "paint", file=file)
    watching(page, "connected")
    wait_for_pixel(page, MIDDLE, BLUE)
    file.write_text(word)
    watching(page, "ended", outcome=outcome)
    assert page.inner_text("#status-title") == "Stream ended"
    assert page.inner_text("#status-raw") == f"1000 task {outcome}"
    page.wait_for_selector(f'#task[data-status="{outcome}"]')
    expect(page.locator("#times")).to_contain_text(f"Exit code\n{code}", use_inner_text=True)
    if word == "end":
        assert json.loads(page.inner_text("#output")) == {"word": "end"}
    else:
        expect(page.locator("#failure")).to_have_text("RuntimeError: failure requested")
    expect(page.locator(f'#rows [data-key="{task_id}"]')).to_have_attribute("data-status", outcome)


def test_reconnect(served, page, readable):
    """After the stream server is killed the page shows that it reconnects, and then the task."""
    sign_in(page, served)
    file = readable / "end"
    start(page, "paint", file=file)
    watching(page, "connected")
    seen = page.evaluate_handle(
        """() => { const seen = []; const watch = document.querySelector("#watch");
        new MutationObserver(() => seen.push(watch.dataset.state))
          .observe(watch, {attributeFilter: ["data-state"]}); return seen; }"""
    )
    os.kill(min(marked_processes(served.mark, "worker.stream")), signal.SIGKILL)
    page.wait_for_selector('#watch:not([data-state="connected"])', state="attached")
    watching(page, "connected")
    wait_for_pixel(page, MIDDLE, BLUE)
    assert "reconnecting" in seen.json_value()
    file.write_text("end")
    watching(page, "ended", outcome="success")


def test_two_viewers(served, page, readable):
    """Two tabs watch one task, the second through a deep link; both show its end."""
    sign_in(page, served)
    file = readable / "end"
    task_id = start(page, "paint", file=file)
    watching(page, "connected")
    with page.expect_popup() as opened:  # a tab of this one has its session storage
        page.evaluate("id => { window.open(`#/tasks/${id}`) }", task_id)
    other = opened.value
    for tab in (page, other):
        watching(tab, "connected")
        wait_for_pixel(tab, MIDDLE, BLUE)
    file.write_text("end")
    for tab in (page, other):
        watching(tab, "ended", outcome="success")


def test_end_without_close(served, page, readable):
    """If the stream breaks off after the API reported the end, the view shows "Stream ended"."""
    sign_in(page, served)
    task_id = start(page, "wait", file=readable / "never")
    watching(page, "connected")
    page.route(f"**/api/v1/tasks/{task_id}", lambda route: route.fulfill(json=_task(task_id)))
    page.wait_for_selector('#task[data-status="failed"]')
    watching(page, "connected")
    os.kill(min(marked_processes(served.mark, "worker.stream")), signal.SIGKILL)
    watching(page, "ended", outcome="failed")
    assert page.inner_text("#status-title") == "Stream ended"


def test_wrong_key(idle, page):
    """A wrong key is refused and not stored; signing out removes the stored key."""
    page.goto(idle.url)
    page.fill("#key", "wk_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-error")).to_have_text("Invalid or missing API key")
    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()
    sign_in(page, idle)
    expect(page.locator("#list-empty")).to_contain_text("No task yet")
    page.reload()
    page.click("#sign-out")
    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
        0,
        0,
        "",
    ]


def test_key_revoked(idle, page):
    """When the key is revoked the page returns to sign-in and shows the API's detail."""
    page.clock.install()
    sign_in(page, idle)
    refusal = {"detail": "Invalid or missing API key"}
    page.route("**/api/v1/tasks?*", lambda route: route.fulfill(status=401, json=refusal))
    page.clock.run_for(POLL_MAX_MS)
    expect(page.locator("#sign-in-error")).to_have_text("Invalid or missing API key")
    expect(page.locator("#desk")).to_be_hidden()


def test_queued(serve, page, tmp_path):
    """A queued task's view waits and connects when the task runs."""
    sign_in(page, serve({"WORKER_MAX_RUNNING": "1"}))
    first, second = tmp_path / "first", tmp_path / "second"
    start(page, "wait", file=first)
    watching(page, "connected")
    page.goto(page.url.partition("#")[0] + "#/")
    start(page, "paint", file=second, colour="rgb(240, 140, 20)")
    watching(page, "waiting")
    assert page.inner_text("#task-status") == "Queued"
    first.write_text("end")
    watching(page, "connected")
    wait_for_pixel(page, MIDDLE, ORANGE)
    second.write_text("end")
    watching(page, "ended", outcome="success")


def test_cancel(serve, page, tmp_path):
    """The button cancels running and queued tasks, and the page shows it."""
    sign_in(page, serve({"WORKER_MAX_RUNNING": "1"}))
    running = start(page, "wait", file=tmp_path / "never")
    watching(page, "connected")
    page.goto(page.url.partition("#")[0] + "#/")
    start(page, "wait", file=tmp_path / "never")
    watching(page, "waiting")
    page.click("#cancel")
    page.wait_for_selector('#task[data-status="cancelled"]')
    watching(page, "ended", outcome="cancelled")
    page.click(f'#rows [data-key="{running}"] a')
    watching(page, "connected")
    page.click("#cancel")
    watching(page, "ended", outcome="cancelled")
    assert page.inner_text("#status-raw") == "1000 task cancelled"
    page.wait_for_selector('#task[data-status="cancelled"]')


def test_artifacts(served, page, readable):
    """A task's files are listed and can be downloaded, with the key sent in a header."""
    sign_in(page, served)
    file = readable / "end"
    file.write_text("end")
    start(page, "wait", file=file)
    note = page.locator("#artifacts button", has_text="note.txt")
    with page.expect_download() as downloading:
        note.click()
    assert downloading.value.suggested_filename == "note.txt"
    assert downloading.value.path().read_text() == "a note of the task's"


def test_control(served, page, readable):
    """Control needs a key that allows it; a refusal is shown with the API's detail."""
    sign_in(page, served)
    file = readable / "end"
    task_id = start(page, "wait", file=file)
    watching(page, "connected", role="view")
    page.click("#control")
    expect(page.locator("#notice")).to_contain_text("allows viewing only")
    watching(page, "connected", role="view")
    page.click("#sign-out")
    page.evaluate("location.hash = '#/'")
    sign_in(page, served, control=True)
    page.click(f'#rows [data-key="{task_id}"] a')
    watching(page, "connected", role="view")
    page.click("#control")
    watching(page, "connected", role="control")
    page.click("#control")
    watching(page, "connected", role="view")
    file.write_text("end")
    watching(page, "ended", outcome="success")


def test_form(idle, page):
    """The API's errors are shown at their fields; rows and JSON hold the same inputs."""
    sign_in(page, idle)
    page.click("#to-start")
    page.click("#submit")
    expect(page.locator("#endpoint-error")).to_have_text("Enter an endpoint.")
    page.fill("#endpoint", "nothing-of-this-name")
    page.click("#submit")
    expect(page.locator("#endpoint-error")).to_have_text("Endpoint nothing-of-this-name not found")
    expect(page.locator("#endpoint")).to_be_focused()
    page.fill("#endpoint", "paint")
    page.fill(".parameter-name", "n" * 101)
    page.click("#submit")
    expect(page.locator("#parameters-error")).to_contain_text("100 characters")
    page.fill(".parameter-name", "a")
    page.fill(".parameter-value", "1")
    page.check('[value="json"]')
    assert json.loads(page.input_value("#json")) == {"a": "1"}
    page.fill("#json", '{"a": ["1", "2"]}')
    page.check('[value="rows"]')
    values = page.locator(".parameter-value").evaluate_all("boxes => boxes.map(box => box.value)")
    assert values == ["1", "2"]
    page.check('[value="json"]')
    page.fill("#json", "[")
    page.click("#submit")
    expect(page.locator("#parameters-error")).to_contain_text("Invalid JSON")
    page.fill("#json", "{}")
    page.click("summary")
    page.fill("#timeout", "1e9")
    page.click("#submit")
    expect(page.locator("#timeout-error")).to_contain_text("86400")


def test_queue_full(idle, page):
    """A full queue is shown with the time after which to retry."""
    sign_in(page, idle)
    page.route(
        "**/api/v1/inference",
        lambda route: route.fulfill(
            status=429, headers={"retry-after": "7"}, json={"detail": "The queue is full"}
        ),
    )
    page.click("#to-start")
    page.fill("#endpoint", "paint")
    page.click("#submit")
    expect(page.locator("#start-error")).to_have_text("The queue is full. Try again in 7 s.")


def test_api_unreachable(idle, page):
    """The page shows that the API does not answer, and removes the message afterwards."""
    page.clock.install()
    sign_in(page, idle)
    page.route("**/api/v1/tasks?*", lambda route: route.abort())
    page.clock.run_for(POLL_MAX_MS)
    expect(page.locator("#trouble")).to_have_text("The API does not answer. Retrying.")
    page.unroute("**/api/v1/tasks?*")
    page.clock.run_for(POLL_MAX_MS)
    expect(page.locator("#trouble")).to_have_text("")
    page.route("**/api/v1/tasks?*", lambda route: route.fulfill(body="<h1>A proxy's page</h1>"))
    page.clock.run_for(POLL_MAX_MS)
    expect(page.locator("#trouble")).to_contain_text("could not be read")
    page.unroute("**/api/v1/tasks?*")
    page.clock.run_for(POLL_MAX_MS)
    expect(page.locator("#trouble")).to_have_text("")


def test_docs(idle, page):
    """`/docs` renders under its content security policy, which forbids frames."""
    answer = page.goto(f"{idle.url}/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_pages_and_filter(idle, page):
    """The list is shown page by page, filtered by status on request."""
    page.clock.install()
    sign_in(page, idle)
    asked = []

    def answer(route):
        url = route.request.url
        asked.append(url)
        first = "cursor=" not in url
        place = 0 if first else 25
        tasks = [_task(f"{n:08d}", status="success") for n in range(place, place + 25)]
        route.fulfill(json={"tasks": tasks, "next_cursor": "c=&?" if first else None})

    page.route("**/api/v1/tasks?*", answer)
    page.clock.run_for(POLL_MAX_MS)
    page.wait_for_selector('#rows [data-key="00000000"]')
    page.click("#older")
    page.wait_for_selector('#rows [data-key="00000025"]')
    assert page.inner_text("#page-number") == "Page 2"
    assert page.is_disabled("#older")
    page.click("#newer")
    page.wait_for_selector('#rows [data-key="00000000"]')
    page.select_option("#filter", "success")
    expect(page.locator("#rows")).to_have_attribute("aria-busy", "false")
    assert "status=success" in asked[-1]
    assert "cursor=c%3D%26%3F" in "".join(asked)


def _task(task_id, **more):
    return {
        "task_id": task_id,
        "endpoint_name": "paint",
        "status": "failed",
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
        "exit_code": 1,
        **more,
    }


def test_text_stays_text(idle, page):
    """Text from a task, even its id, is shown literally and never becomes markup."""
    page.clock.install()
    sign_in(page, idle)
    evil = _task(
        EVIL,
        endpoint_name=EVIL,
        input_parameters={EVIL: EVIL},
        output={EVIL: EVIL},
        error={"type": EVIL, "message": EVIL, "traceback": EVIL},
        status="failed",
    )
    artifacts = {"artifacts": [{"name": EVIL, "size_bytes": 1}]}
    page.route(
        "**/api/v1/tasks?*",
        lambda route: route.fulfill(json={"tasks": [evil], "next_cursor": None}),
    )
    page.route("**/api/v1/tasks/*", lambda route: route.fulfill(json=evil))
    page.route("**/api/v1/tasks/*/artifacts", lambda route: route.fulfill(json=artifacts))
    page.clock.run_for(POLL_MAX_MS)
    page.click("#rows a")
    expect(page.locator("#artifacts .name")).to_have_text(EVIL)
    for place in ("#task-title", "#task-id", "#rows .name"):
        expect(page.locator(place)).to_have_text(EVIL)
    for place in ("#failure", "#output", "#inputs", "#traceback"):
        expect(page.locator(place)).to_contain_text("<img src=x onerror=")
    page.route("**/api/v1/tasks/*", lambda route: route.fulfill(status=404, json={"detail": EVIL}))
    page.evaluate("location.hash = '#/tasks/other'")
    expect(page.locator("#missing-text")).to_have_text(EVIL)
    assert page.locator("body img, body script").count() == 0
    assert page.title() != "owned"


def drop(page, pattern, *, times):
    """Abort the next requests; return the list of aborted ones."""
    dropped: list[str] = []

    def answer(route):
        if len(dropped) < times:
            dropped.append(route.request.url)
            route.abort("connectionaborted")
        else:
            route.continue_()

    page.route(pattern, answer)
    return dropped


@pytest.mark.parametrize("file", ["live/view-panel.js", "page/dashboard.js", "page/dashboard.css"])
def test_loads_again(idle, page, file):
    """A file whose request fails twice is requested again, and the page is complete."""
    dropped = drop(page, f"**/{file}", times=2)
    page.goto(idle.url)
    page.wait_for_function(
        "() => !sessionStorage['worker.tries'] && document.styleSheets.length > 1"
    )
    page.wait_for_selector("html[data-page=sign-in] #key")
    assert len(dropped) == 2


def test_gives_up_loading(idle, page):
    """After 9 attempts the page stops reloading and shows what to do."""
    page.clock.install()
    page.route("**/page/dashboard.js", lambda route: route.abort("connectionaborted"))
    loads = []
    page.on("domcontentloaded", lambda _: loads.append(1))
    page.goto(idle.url)
    for tries in range(1, 9):
        expect(page.locator("#trouble")).to_have_text("The page did not load completely. Retrying.")
        with page.expect_event("domcontentloaded"):
            page.clock.run_for(30_000)
        assert len(loads) == tries + 1
    said = "The page did not load completely. Reload it to retry."
    expect(page.locator("#trouble")).to_have_text(said)
    page.clock.run_for(600_000)
    assert len(loads) == 9


def test_novnc_loads_again(served, page, readable):
    """A file of noVNC whose request fails is requested again."""
    dropped = drop(page, "**/novnc/core/websock.js", times=1)
    sign_in(page, served)
    file = readable / "end"
    start(page, "wait", file=file)
    watching(page, "connected")
    assert dropped
    file.write_text("end")
    watching(page, "ended", outcome="success")


def test_output_left_out(idle, page):
    """An output that was too large to be stored is distinguished from no output."""
    sign_in(page, idle)
    ended: dict[str, Any] = {
        "status": "success",
        "error": None,
        "input_parameters": {},
        "output": None,
    }
    task = _task("large", **ended, output_omitted=True)
    page.route("**/api/v1/tasks/*", lambda route: route.fulfill(json=task))
    page.evaluate("location.hash = '#/tasks/large'")
    expect(page.locator("#output")).to_contain_text("larger than the size that is kept")


def test_no_such_task(idle, page):
    """A deep link to an unknown task shows that it was not found."""
    sign_in(page, idle)
    page.evaluate("location.hash = '#/tasks/nothing'")
    expect(page.locator("#missing-text")).to_have_text("Task nothing not found")
    page.evaluate("location.hash = '#/tasks/..'")
    expect(page.locator("#missing-text")).to_have_text(".. not found")


def test_without_novnc(serve, page, tmp_path):
    """Without noVNC the dashboard works, and the view shows what to install."""
    sign_in(page, serve({"WORKER_NOVNC_DIR": str(tmp_path)}))
    start(page, "wait", file=tmp_path / "never")
    watching(page, "error")
    expect(page.locator("#status-raw")).to_contain_text("apt-get install novnc")
    page.click("#cancel")
    page.wait_for_selector('#task[data-status="cancelled"]')


def test_removed_view_disconnects(served, page, readable):
    """A view disconnects when its element is removed from the page."""
    sign_in(page, served)
    sockets = Sockets(page)
    start(page, "wait", file=readable / "never")
    watching(page, "connected")
    page.evaluate("document.querySelector('#stage').remove()")
    assert sockets.closed() == [True]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow(idle, page, width):
    """On a narrow screen nothing is wider than it, and the list is a separate page."""
    page.set_viewport_size({"width": width, "height": 700})
    sign_in(page, idle)
    for address in ("#/", "#/start"):
        page.evaluate("address => { location.hash = address }", address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 760:
        expect(page.locator("#list")).to_be_hidden()
        page.click("#start .back")
        expect(page.locator("#list")).to_be_visible()


def test_keyboard(idle, page):
    """The focus moves through list and form in their order, so a keyboard is sufficient."""
    sign_in(page, idle)
    page.locator("#filter").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#to-start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#endpoint")).to_be_focused()
    page.keyboard.type("nothing-here")
    page.keyboard.press("Enter")
    expect(page.locator("#endpoint")).to_have_attribute("aria-invalid", "true")


def test_hidden(idle, page):
    """A hidden page sends no request; when it is visible again it sends one at once."""
    page.clock.install()
    sign_in(page, idle)
    page.evaluate(
        """() => { window.seen = "hidden";
        Object.defineProperty(document, "visibilityState", { get: () => window.seen }); }"""
    )
    with page.expect_response("**/api/v1/tasks?*"):  # the one that was due already
        page.clock.run_for(5_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    with page.expect_request("**/api/v1/tasks?*"):
        page.evaluate(
            """() => { window.seen = "visible";
            document.dispatchEvent(new Event("visibilitychange")); }"""
        )
