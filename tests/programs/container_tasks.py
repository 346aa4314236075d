"""Tasks that look at the container around them; tests/image runs them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

SCRIPTS = {
    "Latin": "Quick brown fox: fünf Żółć ðæ",
    "Chinese": "欢迎光临今天天气很好",
    "Traditional": "歡迎光臨今天天氣很好",
    "Japanese": "ようこそ、いい天気ですね カタカナ",
    "Korean": "환영합니다 오늘은 날씨가 좋네요",
    "Arabic": "مرحبا بكم في المتجر",
    "Emoji": "😀🍵🚀👩‍💻🇯🇵❤️",
}
NO_FONT_HAS = "\U000f0000"  # private use: shows that tofu is found
FORKS = 50
_SAME_AS_NOTDEF = """() => {
  const draw = text => {
    const canvas = new OffscreenCanvas(64, 64), context = canvas.getContext("2d");
    context.font = "40px sans-serif";
    context.fillText(text, 4, 48);
    return context.getImageData(0, 0, 64, 64).data.join();
  };
  const notdef = draw("\\u{E000}");
  return [...document.body.textContent].filter(char => char.trim() && draw(char) === notdef);
}"""


async def sandbox(page):
    """What Chromium says about its sandbox."""
    await page.goto("chrome://sandbox")
    await page.wait_for_function("document.querySelectorAll('#sandbox-status td').length > 4")
    rows = await page.eval_on_selector_all(
        "#sandbox-status tr", "rows => rows.map(row => [...row.children].map(c => c.innerText))"
    )
    return dict(rows)


async def scripts_of_the_world(page):
    """A page in many scripts: the fonts of each, and the characters that no font had."""
    rows = "".join(
        f"<p style='font: 40px sans-serif' id='{name}'>{text}</p>" for name, text in SCRIPTS.items()
    )
    await page.set_content(f"<body>{rows}<p>{NO_FONT_HAS}</p></body>")
    await page.screenshot(path=Path(os.environ["WORKER_ARTIFACTS_DIR"]) / "scripts.png")
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("DOM.enable")
    await devtools.send("CSS.enable")
    root = (await devtools.send("DOM.getDocument"))["root"]["nodeId"]
    fonts = {}
    for name in SCRIPTS:
        query = {"nodeId": root, "selector": f"#{name}"}
        node = (await devtools.send("DOM.querySelector", query))["nodeId"]
        used = await devtools.send("CSS.getPlatformFontsForNode", {"nodeId": node})
        fonts[name] = sorted({font["familyName"] for font in used["fonts"]})
    return {"fonts": fonts, "tofu": await page.evaluate(_SAME_AS_NOTDEF)}


async def file_urls(page, inputs):
    """What the browser shows of local files: the text, or the error."""
    shown = {}
    for url in inputs["urls"]:
        opened = await page.context.new_page()
        try:
            await opened.goto(url)
            shown[url] = await opened.inner_text("body")
        except Exception as error:
            shown[url] = str(error)
    return shown


def forks():
    """Leave 50 grandchildren in sessions of their own that ignore TERM, as their parent does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(FORKS):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.wait()
    print("forked", flush=True)
    time.sleep(600)
