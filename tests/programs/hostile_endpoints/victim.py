"""An ordinary task: shows a page for a moment."""


async def run(page):
    await page.set_content("<h1>An ordinary task</h1>")
    for step in range(20):
        await page.evaluate("step => document.body.textContent = step", step)
        await page.wait_for_timeout(50)
    return "done"
