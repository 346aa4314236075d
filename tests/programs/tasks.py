"""Tasks that the tests run."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLL_S = 0.02  # a call of the page would take time of three processes


async def titled(page):
    await page.set_content("<title>Hello</title>")
    return {"title": await page.title()}


def titled_sync(page, inputs):
    page.set_content(f"<title>{inputs['title']}</title>")
    return {"title": page.title()}


def plain(inputs):
    print("out")
    print("err", file=sys.stderr)
    return inputs


def fails():
    raise LookupError("nothing there")


def sleeps():
    time.sleep(600)


async def sleeps_async():
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up")


async def sleeps_with_page(page):
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up at", await page.evaluate("location.href"))


def temporary():
    return tempfile.gettempdir()


def ignores_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        subprocess.Popen(
            ["sh", "-c", "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600"]
        )
    time.sleep(600)


def not_json():
    return {"when": object()}


def until(inputs):
    """Wait for a file, then succeed, or fail if it contains "fail"."""
    file = Path(inputs["file"])
    while not (file.exists() and (word := file.read_text())):
        time.sleep(0.005)
    if word == "fail":
        raise RuntimeError("failure requested")
    return "end requested"


async def until_with_page(page, inputs):
    """The same, with a page in one colour."""
    await page.set_content(
        f"<body style='background: {inputs.get('colour', 'rgb(20, 120, 220)')}'>"
    )
    file = Path(inputs["file"])
    while not (file.exists() and (word := file.read_text())):
        await page.wait_for_timeout(50)  # fails once the browser has ended
    if word == "fail":
        raise RuntimeError("failure requested")
    return await page.evaluate("[outerWidth, outerHeight, screen.width, screen.height]")


async def until_with_animation(page, inputs):
    """The same, with a page that changes all the time."""
    await page.set_content(
        """<canvas width=200 height=200></canvas><script>
        const context = document.querySelector("canvas").getContext("2d");
        const draw = (now) => {
            for (let y = 0; y < 200; y += 10) {
                context.fillStyle = `hsl(${(now / 5 + 7 * y) % 360} 90% 50%)`;
                context.fillRect(0, y, 200, 10);
            }
            requestAnimationFrame(draw);
        };
        requestAnimationFrame(draw);
        </script>"""
    )
    file = Path(inputs["file"])
    while not file.exists():
        await asyncio.sleep(POLL_S)
    return "end requested"


async def field(page, inputs):
    """A text field that has the focus; when end requested, what is in it."""
    await page.set_content(
        "<body style='margin: 0; background: rgb(20, 120, 220)'>"
        "<textarea autofocus style='width: 1900px; height: 500px; font: 40px monospace'></textarea>"
    )
    text = page.locator("textarea")
    await text.click()
    file, seen = Path(inputs["file"]), Path(inputs["file"]).with_name("seen")
    while not file.exists():
        seen.with_name("draft").write_text(await text.input_value())
        seen.with_name("draft").replace(seen)
        await asyncio.sleep(2 * POLL_S)
    return await text.input_value()


async def recoloured(page, inputs):
    """Paint blue, then the colour that the file names, and return once it is painted."""
    await page.set_content("<body style='background: rgb(20, 120, 220)'>")
    file = Path(inputs["file"])
    while not (file.exists() and (colour := file.read_text())):
        await asyncio.sleep(POLL_S)
    painted = "c => { document.body.style.background = c; return new Promise(r => "
    painted += "requestAnimationFrame(() => requestAnimationFrame(r))); }"
    await page.evaluate(painted, colour)


async def windows(page, inputs):
    """A second tab and a second window, all as large as the screen."""
    sizes = []
    measure = "[outerWidth, outerHeight]"
    await page.set_content("<body style='background: rgb(200, 30, 30)'>")
    sizes.append(await page.evaluate(measure))
    tab = await page.context.new_page()
    sizes.append(await tab.evaluate(measure))
    async with page.expect_popup() as opened:
        await page.evaluate("window.open('about:blank', 'w', 'popup,width=500,height=400')")
    popup = await opened.value
    await popup.wait_for_function("outerWidth === 1920 && outerHeight === 1080", timeout=5000)
    sizes.append(await popup.evaluate(measure))
    file = Path(inputs["file"])
    await popup.set_content("<body style='margin:0; background: rgb(30, 200, 30)'>")
    while not file.exists():
        await asyncio.sleep(POLL_S)
    return sizes


def environment():
    return dict(os.environ)


decorated = (lambda function: function)(plain)


def wants_more(page, browser):
    del page, browser


async def works(page, inputs):
    """Use the browser for a while, and write output."""
    for step in range(int(inputs.get("steps", 60))):
        await page.evaluate("step => document.body.textContent = step", step)
        print("step", step)
        await asyncio.sleep(0.02)
    return "worked"


async def fills_artifacts(page):
    """Write to the artifacts folder and the output until no space is left."""
    folder = Path(os.environ["WORKER_ARTIFACTS_DIR"])
    try:
        with (folder / "large").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    except OSError:
        print("no space")
    print("x" * 10_000)
    return await page.evaluate("1 + 1")
