"""Waits for its cancellation; needs nothing but its browser."""


async def run(page, inputs):
    await page.wait_for_timeout(600_000)
