"""Control and clipboard on the debug page, in real browsers."""

from __future__ import annotations

import pytest
from browser import chromium
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")
PATIENCE_MS = 20000
ELSEWHERE = "\u4f60\u597d gr\u00fc\u00dfe"


@pytest.fixture
def pages(display_programs):
    """Two browsers' pages."""
    with chromium() as browser:
        yield [browser.new_page(viewport={"width": 1440, "height": 900}) for _ in range(2)]


def role(page, name):
    """Wait until the page's live connection has this role."""
    page.wait_for_selector(
        f'html[data-state="connected"][data-role="{name}"]', state="attached", timeout=PATIENCE_MS
    )


def holder(page, words):
    """Wait until the page shows who has control."""
    page.locator("#control-holder", has_text=words).wait_for(timeout=PATIENCE_MS)


def test_switch(run, tmp_path, pages):
    """One page takes control and types; the other is refused, and gets control after a release."""
    worker = run(f"{TASKS}:field", "--input", f"file={tmp_path / 'end'}")
    eventually((tmp_path / "seen").exists, timeout_s=30, what="the page is there")
    for page in pages:
        page.goto(worker.page)
        role(page, "view")
        holder(page, "control is free")
    first, second = pages
    first.click("#control")
    role(first, "control")
    holder(first, "you have control")
    first.keyboard.type("typed")
    eventually(lambda: seen(tmp_path) == "typed", what="the text is in the field")

    second.click("#control")
    second.locator("#notice", has_text="Another viewer has control").wait_for(timeout=PATIENCE_MS)
    holder(second, "another viewer has control")
    role(second, "view")
    second.keyboard.type("ignored")

    first.click("#control")
    role(first, "view")
    second.click("#control")
    role(second, "control")
    second.keyboard.type(", again")
    eventually(lambda: seen(tmp_path) == "typed, again", what="the second one types")


def test_clipboard(run, tmp_path, pages):
    """Text pasted in the panel reaches the task's page; text copied there reaches the panel."""
    worker = run(f"{TASKS}:field", "--input", f"file={tmp_path / 'end'}")
    eventually((tmp_path / "seen").exists, timeout_s=30, what="the page is there")
    controlling, watching = pages
    for page in pages:
        page.goto(worker.page)
        role(page, "view")
    controlling.click("#control")
    role(controlling, "control")
    controlling.click("#clipboard-toggle")
    controlling.fill("#paste-text", ELSEWHERE)
    controlling.click("#paste")
    eventually(lambda: seen(tmp_path) == ELSEWHERE, what="the text was pasted")

    controlling.locator('#stage [data-layer="live"] canvas').focus()
    controlling.keyboard.press("End")
    controlling.keyboard.type("!")
    eventually(lambda: seen(tmp_path) == ELSEWHERE + "!", what="the page has the focus")
    controlling.keyboard.press("Control+a")
    controlling.keyboard.press("Control+c")
    controlling.wait_for_function(
        "text => document.querySelector('#copied-text').value === text",
        arg=ELSEWHERE + "!",
        timeout=PATIENCE_MS,
    )
    assert watching.input_value("#copied-text") == ""


def seen(folder):
    """The text in the field."""
    return (folder / "seen").read_text()
