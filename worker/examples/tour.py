"""Example task: orders tea in a small shop, which it serves itself, without network access.

    worker run worker/examples/tour.py --input name=Ada --input pace=1

Inputs (all optional): `name`, `email`, `cups` (the number of teas to order) and `pace` (the factor
of all pauses: 1 for viewers, 0 for no pauses).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from playwright.async_api import Page, Route

SHOP: Final = "http://tea.example"
PAGES: Final = Path(__file__).parent / "pages"
KEY_DELAY_MS: Final = 70
PAUSE_MS: Final = 1200


async def run(page: Page, inputs: dict[str, Any]) -> dict[str, Any]:
    """Choose teas, fill in the order form, and read the receipt in a second tab.

    Args:
        page: a Playwright page, as large as the display.
        inputs: see above.

    Returns:
        The task's output: any JSON value.
    """
    pace = float(inputs.get("pace", 1))
    name = str(inputs.get("name", "Ada Lovelace"))
    await page.context.route(f"{SHOP}/**", serve)

    async def pause(factor: float = 1) -> None:
        await page.wait_for_timeout(PAUSE_MS * factor * pace)

    await page.goto(f"{SHOP}/shop.html")
    await pause(2)
    chosen = await choose(page, int(inputs.get("cups", 4)), pause)
    await page.get_by_role("link", name="To the checkout").click()
    await fill(page, {"Name": name, "E-mail": str(inputs.get("email", "ada@example.org"))}, pace)
    await page.get_by_label("Delivery").select_option("bicycle")
    await pause()
    await page.get_by_label("A card with it").check()
    await page.get_by_label("What it says").press_sequentially(
        "Enjoy every cup!", delay=KEY_DELAY_MS * pace
    )
    await pause()
    async with page.context.expect_page() as opened:
        await page.get_by_role("button", name="Order").click()
    receipt = await opened.value  # a second tab
    number = await receipt.locator("#number").inner_text()
    total = await receipt.locator("#total").inner_text()
    await receipt.wait_for_timeout(4 * PAUSE_MS * pace)
    return {"title": await receipt.title(), "order": number, "teas": chosen, "total": total}


async def choose(page: Page, cups: int, pause: Callable[..., Awaitable[None]]) -> list[str]:
    """Scroll through the shop and put teas into the basket; return their names."""
    teas = page.locator(".tea")
    chosen = []
    step = max(1, await teas.count() // max(1, cups))
    for index in range(0, step * cups, step):
        tea = teas.nth(index)
        await tea.evaluate("e => e.scrollIntoView({behavior: 'smooth', block: 'center'})")
        await pause()
        await tea.get_by_role("button").click()
        chosen.append(await tea.locator("h2").inner_text())
        await pause(0.5)
    return chosen


async def fill(page: Page, fields: dict[str, str], pace: float) -> None:
    """Type into the form, key by key."""
    for label, text in fields.items():
        await page.get_by_label(label).click()
        await page.get_by_label(label).press_sequentially(text, delay=KEY_DELAY_MS * pace)


async def serve(route: Route) -> None:
    """Answer the shop's requests from files."""
    name = route.request.url.removeprefix(f"{SHOP}/").partition("?")[0] or "shop.html"
    file = PAGES / Path(name).name
    if file.is_file():
        await route.fulfill(path=file)
    else:
        await route.fulfill(status=404, body="")
