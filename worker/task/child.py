"""Inside the task's process: `python -m worker.task.child FD` runs one function.

It loads Playwright while the display starts, launches the browser as soon as there is a display,
and calls the function when the session sends Go. After the function's end it keeps the browser open
until Quit, so that the viewers' last frame is the task's. FD is a socket to the session, which
carries the messages of `worker.task.messages`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.outcome import TaskError
from worker.task import browser, error_report, loading
from worker.task import output as task_output
from worker.task.messages import (
    ERROR_TEXT_MAX_CHARS,
    BrowserFailed,
    Quit,
    Raised,
    Returned,
    Run,
)
from worker.task.session_connection import SessionConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_MS: Final = 100
_COMPILE_CACHE: Final = "NODE_COMPILE_CACHE"
_STOPPED: Final = Raised(error=TaskError(type="Stopped", message="the task was stopped"))


class Stopped(BaseException):
    """SIGTERM arrived while a function that is not async was running."""


def main() -> None:
    """Run the function that the session sends."""
    session = SessionConnection(int(sys.argv[1]))
    run = session.receive(Run)
    function = None
    if run.is_async is None:  # only loading the file shows it, which needs display and stream
        session.wait_for_display()
        session.wait_for_go()
        function = _load_early(session, run)
        if function is None:
            return
        run = dataclasses.replace(
            run,
            is_async=inspect.iscoroutinefunction(function),
            parameters=loading.parameters(function),
        )
    try:
        if run.is_async:
            asyncio.run(_run_async(session, run, function))
        else:
            _run_sync(session, run, function)
    except BaseException as error:  # by a callback of the event loop, for example
        if not session.task_is_running:
            raise
        _report_error(session, error)


def _load_early(session: SessionConnection, run: Run) -> Callable[..., Any] | None:
    """Load the function; None if that raised, which has been reported then."""
    signal.signal(signal.SIGTERM, _raise_stopped)
    session.report_started()
    return _report_errors(session, lambda: loading.load(run))  # type: ignore[no-any-return]


# -- an async function. The two ways differ in little but `await`: Playwright has two APIs.


async def _run_async(
    session: SessionConnection, run: Run, function: Callable[..., Any] | None
) -> None:
    playwright = None
    if _takes_page(run):
        from playwright.async_api import async_playwright  # noqa: PLC0415 - slow to import

        with _driver_compile_cache():
            playwright = await async_playwright().start()
    session.wait_for_display()
    page = None
    if playwright is not None:
        try:
            chromium = await playwright.chromium.launch(env=dict(os.environ), **run.launch_options)
            with _ended_when_disconnected(session, chromium):
                context = await chromium.new_context(**browser.CONTEXT_OPTIONS)
                page = await context.new_page()
        except Exception as error:
            _report_browser_failed(session, error)
            return
    session.wait_for_go()
    await _call_async(session, run, function, page)
    await session.wait_for_quit()
    if playwright is not None:
        await chromium.close()
        await playwright.stop()


async def _call_async(
    session: SessionConnection, run: Run, function: Callable[..., Any] | None, page: Any
) -> None:
    current = asyncio.current_task()
    if current is None:
        return
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        current.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    session.report_started()
    try:
        output = await (function or loading.load(run))(**_arguments(run, page))
        _send_output(session, output)
    except asyncio.CancelledError as error:
        if stopped.is_set():
            current.uncancel()
            session.send(_STOPPED)
        elif current.cancelling():
            raise  # the event loop is ending, by an error in a callback, which `main` reports
        else:
            _report_error(session, error)
    except BaseException as error:
        _report_error(session, error)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


# -- a function that is not async


def _run_sync(session: SessionConnection, run: Run, function: Callable[..., Any] | None) -> None:
    playwright = None
    if _takes_page(run):
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - slow to import

        with _driver_compile_cache():
            playwright = sync_playwright().start()
    session.wait_for_display()
    page = None
    if playwright is not None:
        try:
            chromium = playwright.chromium.launch(env=dict(os.environ), **run.launch_options)
            with _ended_when_disconnected(session, chromium):
                page = chromium.new_context(**browser.CONTEXT_OPTIONS).new_page()
        except Exception as error:
            _report_browser_failed(session, error)
            return
    session.wait_for_go()
    _call_sync(session, run, function, page)
    _serve_page_until_quit(session, page)
    if playwright is not None:
        chromium.close()
        playwright.stop()


def _call_sync(
    session: SessionConnection, run: Run, function: Callable[..., Any] | None, page: Any
) -> None:
    signal.signal(signal.SIGTERM, _raise_stopped)
    session.report_started()
    outputs = _report_errors(
        session, lambda: [(function or loading.load(run))(**_arguments(run, page))]
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if outputs is not None:
        _report_errors(session, lambda: _send_output(session, outputs[0]))


def _raise_stopped(*_: object) -> None:
    raise Stopped


def _serve_page_until_quit(session: SessionConnection, page: Any) -> None:
    """Wait for Quit; meanwhile run the page's routes and handlers, which need this thread."""
    try:
        while page is not None and not session.quit_is_pending():
            page.wait_for_timeout(_POLL_MS)
    except Exception:  # noqa: S110 - the task or a viewer closed the page: nothing to serve
        pass
    session.receive(Quit)


# -- both


def _takes_page(run: Run) -> bool:
    return "page" in (run.parameters or ())


@contextlib.contextmanager
def _driver_compile_cache() -> Iterator[None]:
    """Let Playwright's driver keep its compiled code beside the Python packages, if it can.

    With it the driver starts in 0.21 s instead of 0.28 s (Node.js, "Module compile cache"). The
    variable is set for the driver's start only: browser and task do not get it.
    """
    if _COMPILE_CACHE in os.environ:
        yield
        return
    os.environ[_COMPILE_CACHE] = str(Path(sys.prefix, "var", "cache", "playwright-driver"))
    try:
        yield
    finally:
        os.environ.pop(_COMPILE_CACHE, None)


@contextlib.contextmanager
def _ended_when_disconnected(session: SessionConnection, chromium: Any) -> Iterator[None]:
    """Report a browser that ends meanwhile, and end this process.

    Playwright's `new_page` may never return then. The task's code is not loaded yet.
    """

    def end(*_: object) -> None:
        _report_browser_failed(session, RuntimeError("it ended while its first page was opened"))
        os._exit(1)

    chromium.on("disconnected", end)
    yield
    chromium.remove_listener("disconnected", end)


def _arguments(run: Run, page: Any) -> dict[str, Any]:
    available = {"page": page, "inputs": run.inputs}
    return {name: available[name] for name in run.parameters or ()}


def _report_errors(session: SessionConnection, step: Callable[[], Any]) -> Any:
    """Run a step and return its result; None if it raised, which has been reported then."""
    try:
        return step()
    except Stopped:
        session.send(_STOPPED)
    except BaseException as error:
        _report_error(session, error)
    return None


def _send_output(session: SessionConnection, output: Any) -> None:
    # As it was checked: objects of the task's own classes may have another form the next time.
    session.send(Returned(output=json.loads(task_output.check(output))))


def _report_error(session: SessionConnection, error: BaseException) -> None:
    """Send what the task raised to the session, and write it to the task's log."""
    if error_report.is_normal_exit(error):
        session.send(Returned(output=None))
        return
    report = error_report.of(error)
    # stderr may be closed, or anything that the task has put in its place.
    with contextlib.suppress(BaseException):
        print(report.traceback, file=sys.stderr, flush=True)  # noqa: T201 - the task's own log
    session.send(Raised(error=report))


def _report_browser_failed(session: SessionConnection, error: Exception) -> None:
    session.send(BrowserFailed(message=str(error)[:ERROR_TEXT_MAX_CHARS]))


if __name__ == "__main__":
    main()
