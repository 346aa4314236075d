"""An endpoint: POST {"endpoint_name": "title", "input_parameters": {"url": "https://example.com"}}."""


async def run(page, inputs):
    """Return the title of the page at `inputs["url"]`."""
    await page.goto(inputs["url"])
    return {"title": await page.title()}
