"""Tasks that print more than a pipe has room for, with Playwright's driver beside them."""

import os
import signal
import sys

LINE = "x" * 990


def lines(count):
    for number in range(count):
        print(f"{number:09d}{LINE}", file=(sys.stdout, sys.stderr)[number % 2])


def prints(page, inputs):
    lines(int(inputs["lines"]))


async def prints_async(page, inputs):
    lines(int(inputs["lines"]))


def prints_at_once(page, inputs):
    print(("x" * 999 + "\n") * int(inputs["lines"]), end="")


def raises(page, inputs):
    lines(int(inputs["lines"]))
    raise ValueError("the last line")


def exits(page, inputs):
    lines(int(inputs["lines"]))
    os._exit(3)


def is_killed(page, inputs):
    lines(int(inputs["lines"]))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from playwright.sync_api import sync_playwright

    with sync_playwright():
        lines(int(sys.argv[1]))
