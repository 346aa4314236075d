"""The live view of worker/api/README.md, pasted into a page of another origin."""

from __future__ import annotations

import functools
import http.server
import re
import threading

import pytest
from browser import BLUE, PATIENCE_MS, Sockets, chromium, wait_for_pixel
from readmes import ROOT

README = ROOT / "worker/api/README.md"


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers every request with one page."""

    def __init__(self, pages, *arguments):
        self.pages = pages
        super().__init__(*arguments)

    def do_GET(self):
        """Answer with the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.pages[0].encode())

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture
def site():
    """A server's address, and a list whose first item is its page."""
    pages = [""]
    handler = functools.partial(Pages, pages)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", pages
        server.shutdown()


def test_snippet_in_a_page_of_another_origin(serve, site, tmp_path):
    """It shows the task's pixels, reports the outcome, and disconnects when it is removed."""
    address, pages = site
    served = serve({"WORKER_ALLOWED_ORIGINS": address})
    key, file = served.sign_in(), tmp_path / "end"
    tasks = [
        served.start_task(endpoint, input_parameters={"file": str(path)})
        for endpoint, path in (("paint", file), ("wait", tmp_path / "never"))
    ]
    (snippet,) = re.findall(r"```html\n(.*?)```", README.read_text(), re.DOTALL)
    snippet = snippet.replace("http://127.0.0.1:8000", served.url).replace("API_KEY", key)
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        pages[0] = snippet.replace("TASK_ID", tasks[0])
        with page.expect_console_message(lambda said: said.text == "connected null"):
            page.goto(address)
        wait_for_pixel(page, (960, 700), BLUE, '#view [data-layer="live"] canvas')
        with page.expect_console_message(lambda said: said.text == "ended success"):
            file.write_text("end")

        sockets = Sockets(page)
        pages[0] = snippet.replace("TASK_ID", tasks[1])
        with page.expect_console_message(lambda said: said.text == "connected null"):
            page.reload()
        page.evaluate("document.querySelector('#view').remove()")
        assert sockets.closed() == [True]
