"""Third-party clients: asyncvnc, and noVNC from npm in a real browser."""

from __future__ import annotations

import asyncio
import functools
import http.server
import threading

import asyncvnc
import npm
import pytest
from browser import BLUE, PATIENCE_MS, chromium, wait_for_pixel
from tcp_bridge import TcpBridge
from worker_run import PROGRAMS, eventually
from x_client import Observer

TASKS = str(PROGRAMS / "tasks.py")
NOVNC = "@novnc/novnc@1.7.0"
CANVAS = "#screen canvas"
# The options of the reference page, except `viewOnly`, which the test sets.
PAGE = """<!doctype html><title>noVNC</title>
<div id="screen" style="width: 960px; height: 540px"></div>
<script type="module">
import RFB from "./node_modules/@novnc/novnc/core/rfb.js";
window.events = [];
window.watch = (url, viewOnly) => {
  const element = document.getElementById("screen");
  const rfb = new RFB(element, url, { wsProtocols: ["binary"], credentials: {} });
  rfb.viewOnly = viewOnly;
  rfb.scaleViewport = true;
  rfb.resizeSession = false;
  for (const name of ["connect", "disconnect", "securityfailure", "credentialsrequired"])
    rfb.addEventListener(name, (event) => window.events.push([name, event.detail?.clean ?? null]));
  window.rfb = rfb;
};
window.loaded = true;
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture
def page(tmp_path):
    """A tab that has loaded noVNC."""
    (tmp_path / "node_modules").symlink_to(npm.installed(NOVNC) / "node_modules")
    (tmp_path / "index.html").write_text(PAGE)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with chromium() as browser:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            page.wait_for_function("window.loaded")
            yield page
        server.shutdown()


@pytest.fixture
def field(run, tmp_path):
    """A worker whose page has one text field, and what is in the field."""
    worker = run(f"{TASKS}:field", "--input", f"file={tmp_path / 'end'}")
    seen = tmp_path / "seen"
    eventually(seen.exists, timeout_s=30, what="the page is there")
    return worker, seen.read_text


def input_state(worker):
    """Everything on the display that input could change."""
    with Observer(worker.display, worker.xauthority) as observer:
        return {
            "pointer": observer.pointer_position(),
            "buttons": observer.buttons_down(),
            "keys": observer.keys_down(),
            "screen": observer.screen_size(),
            "clipboard": observer.selection_owner("CLIPBOARD"),
            "primary": observer.selection_owner("PRIMARY"),
            "cut buffer": observer.cut_buffer(),
        }


def test_novnc_watches_to_the_end(field, page, tmp_path):
    """The client connects, shows the task, and disconnects cleanly when the task ends."""
    worker, _ = field
    page.evaluate("url => watch(url, true)", worker.stream_url())
    page.wait_for_function("events.some(([name]) => name === 'connect')")
    wait_for_pixel(page, (960, 900), BLUE, CANVAS)
    (tmp_path / "end").touch()
    page.wait_for_function("events.some(([name]) => name === 'disconnect')")
    assert page.evaluate("events") == [["connect", None], ["disconnect", True]]
    assert worker.wait() == 0


def test_novnc_that_is_not_view_only(field, page):
    """With a view token no input of noVNC changes the display."""
    worker, text = field
    page.evaluate("url => watch(url, false)", worker.stream_url())
    page.wait_for_function("events.some(([name]) => name === 'connect')")
    wait_for_pixel(page, (960, 900), BLUE, CANVAS)
    before = input_state(worker)
    page.click(CANVAS, position={"x": 200, "y": 100})
    page.keyboard.type("typed by a viewer")
    page.keyboard.down("Shift")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.wheel(0, 200)
    page.evaluate("rfb.clipboardPasteFrom('pasted by a viewer')")
    page.evaluate("rfb.sendCtrlAltDel()")
    page.evaluate("rfb.resizeSession = true")
    page.set_viewport_size({"width": 700, "height": 500})
    assert input_state(worker) == before
    page.mouse.up()
    page.keyboard.up("Shift")
    page.evaluate("rfb.disconnect()")
    worker.event("viewer.closed")  # all that it sent has been read
    assert input_state(worker) == before
    assert text() == ""


def test_asyncvnc_watches(field):
    """A screenshot by asyncvnc has the task's pixels."""
    worker, _ = field

    async def screenshot(port):
        async with asyncvnc.connect("127.0.0.1", port) as client:
            return await client.screenshot()

    with TcpBridge(worker.stream_url) as bridge:
        picture = asyncio.run(asyncio.wait_for(screenshot(bridge.port), 30))
    assert picture.shape == (1080, 1920, 4)
    assert tuple(int(value) for value in picture[900, 960][:3]) == BLUE


def test_asyncvnc_types(field):
    """With a control token, text typed by asyncvnc appears in the page's field."""
    worker, text = field

    async def write(port):
        async with asyncvnc.connect("127.0.0.1", port) as client:
            client.mouse.move(500, 200)
            client.mouse.click()
            client.keyboard.write("hello from asyncvnc")
            await client.drain()
            await client.screenshot()  # answered behind what was typed

    with TcpBridge(lambda: worker.stream_url("control")) as bridge:
        asyncio.run(asyncio.wait_for(write(bridge.port), 30))
    eventually(lambda: text() == "hello from asyncvnc", what="the text is in the field")
