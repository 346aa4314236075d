"""Inside the task's process: `python -m worker.task.child FD` runs one function.

It loads Playwright while the display comes up, launches the browser as soon as there is one, and
calls the function when the session says so. Then it keeps the browser open until the session has
told the viewers, so that their last picture is the task's.

Messages are lines of JSON over the socket FD:

    session → host   job {…} | display {display, xauthority} | go | quit
    host → session   ready | started | result {output} | error {type, message, traceback}
                     | broken {message}: the browser could not be launched
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.task import browser
from worker.task.target import PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

OUTPUT_MAX_BYTES: Final = 16 * 1024 * 1024
_PUMP_MS: Final = 100
_COMPILE_CACHE: Final = "NODE_COMPILE_CACHE"
_MODULE_NAME: Final = "worker_task"


class Stopped(BaseException):
    """SIGTERM, in a function that is not async."""


class Session:
    """The session's end of the socket."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")

    def say(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        self._socket.sendall(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    def hear(self, kind: str) -> dict[str, Any]:
        """Wait for a message of this kind; end this process when the session wants no more."""
        line = self._lines.readline()
        message: dict[str, Any] = json.loads(line) if line else {"kind": "quit"}
        if message["kind"] != kind:
            raise SystemExit(0)
        return message

    async def quit_wanted(self) -> None:
        """Wait for `quit`, or the session's death, while the event loop goes on."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        await readable.wait()
        loop.remove_reader(self._socket)

    def quit_is_wanted(self) -> bool:
        """Whether `quit` is there."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self._socket.setblocking(True)
        return True


def main() -> None:
    """Run the job that the session sends."""
    session = Session(int(sys.argv[1]))
    job = session.hear("job")["job"]
    call = None
    if job["is_async"] is None:  # only its file can tell, and that runs on the ready display
        _use_display(session.hear("display"))
        session.say("ready")
        session.hear("go")
        signal.signal(signal.SIGTERM, _stop)
        session.say("started")
        call = _guarded(session, lambda: _load(job))
        if call is None:
            return
        job |= {"is_async": inspect.iscoroutinefunction(call), "wants": _wants(call)}
    if job["is_async"]:
        asyncio.run(_run_async(session, job, call))
    else:
        _run_sync(session, job, call)


# -- an async function


async def _run_async(
    session: Session, job: dict[str, Any], call: Callable[..., Any] | None
) -> None:
    playwright = None
    if "page" in job["wants"]:
        from playwright.async_api import async_playwright  # noqa: PLC0415 - only if it is wanted

        with _compiled_driver():
            playwright = await async_playwright().start()
    if call is None:
        _use_display(session.hear("display"))
    page = None
    if playwright is not None:
        try:
            chromium = await playwright.chromium.launch(env=dict(os.environ), **job["launch"])
            context = await chromium.new_context(**browser.CONTEXT_OPTIONS)
            page = await context.new_page()
        except Exception as error:
            session.say("broken", message=str(error))
            return
    if call is None:
        session.say("ready")
        session.hear("go")
    await _call_async(session, job, call, page)
    await session.quit_wanted()
    if playwright is not None:
        await chromium.close()
        await playwright.stop()


async def _call_async(
    session: Session, job: dict[str, Any], call: Callable[..., Any] | None, page: Any
) -> None:
    current = asyncio.current_task()
    if current is None:
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, current.cancel)
    if call is None:
        session.say("started")
    try:
        output = await (call or _load(job))(**_arguments(job, page))
        _deliver(session, output)
    except asyncio.CancelledError:
        current.uncancel()
        session.say("error", type="Stopped", message="the task was stopped", traceback=None)
    except BaseException as error:
        _report(session, error)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


# -- a function that is not async


def _run_sync(session: Session, job: dict[str, Any], call: Callable[..., Any] | None) -> None:
    playwright = None
    if "page" in job["wants"]:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only if it is wanted

        with _compiled_driver():
            playwright = sync_playwright().start()
    if call is None:
        _use_display(session.hear("display"))
    page = None
    if playwright is not None:
        try:
            chromium = playwright.chromium.launch(env=dict(os.environ), **job["launch"])
            page = chromium.new_context(**browser.CONTEXT_OPTIONS).new_page()
        except Exception as error:
            session.say("broken", message=str(error))
            return
    if call is None:
        session.say("ready")
        session.hear("go")
        signal.signal(signal.SIGTERM, _stop)
        session.say("started")
    result = _guarded(session, lambda: [(call or _load(job))(**_arguments(job, page))])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if result is not None:
        _guarded(session, lambda: _deliver(session, result[0]))
    _stay(session, page)
    if playwright is not None:
        chromium.close()
        playwright.stop()


def _stop(*_: object) -> None:
    raise Stopped


def _stay(session: Session, page: Any) -> None:
    """Keep the page alive (its routes and handlers run in this thread) until `quit`."""
    try:
        while page is not None and not session.quit_is_wanted():
            page.wait_for_timeout(_PUMP_MS)
    except Exception:  # noqa: S110 - the page was closed, by the task or a viewer: only wait
        pass
    session.hear("quit")


# -- both


@contextlib.contextmanager
def _compiled_driver() -> Iterator[None]:
    """Let Playwright's driver keep its compiled code beside the Python packages, if it can.

    It starts in 0.21 s instead of 0.28 s then. Only the driver is told (Node.js, "Module compile
    cache"), not the browser and not the task.
    """
    if _COMPILE_CACHE in os.environ:
        yield
        return
    os.environ[_COMPILE_CACHE] = str(Path(sys.prefix, "var", "cache", "playwright-driver"))
    try:
        yield
    finally:
        os.environ.pop(_COMPILE_CACHE, None)


def _use_display(message: dict[str, Any]) -> None:
    os.environ["DISPLAY"] = message["display"]
    os.environ["XAUTHORITY"] = message["xauthority"]


def _load(job: dict[str, Any]) -> Callable[..., Any]:
    """Import the target and return its function."""
    file = Path(job["file"])
    if job["module"] is None:
        sys.path.insert(0, str(file.parent))
        spec = importlib.util.spec_from_file_location(_MODULE_NAME, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot import {file}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE_NAME] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, str(Path.cwd()))
        module = importlib.import_module(job["module"])
    call = getattr(module, job["name"])
    if not callable(call):
        raise TypeError(f"{job['name']} is not a function")
    return call  # type: ignore[no-any-return]  # it is callable; more cannot be known


def _wants(call: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(call).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return sorted(PARAMETERS)
    return sorted(PARAMETERS & set(parameters))


def _arguments(job: dict[str, Any], page: Any) -> dict[str, Any]:
    available = {"page": page, "inputs": job["inputs"]}
    return {name: available[name] for name in job["wants"]}


def _guarded(session: Session, step: Callable[[], Any]) -> Any:
    """The step's result; None when it raised, which the session was then told."""
    try:
        return step()
    except Stopped:
        session.say("error", type="Stopped", message="the task was stopped", traceback=None)
    except BaseException as error:
        _report(session, error)
    return None


def _deliver(session: Session, output: Any) -> None:
    try:
        text = json.dumps(output, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = (
            f"the task's return value is not JSON: {error}; return dicts, lists, strings, "
            "finite numbers, booleans or None"
        )
        raise TypeError(message) from None
    if len(text) > OUTPUT_MAX_BYTES:
        raise ValueError(
            f"the task's return value is larger than {OUTPUT_MAX_BYTES} bytes; write it to a "
            "file in WORKER_ARTIFACTS_DIR instead"
        )
    session.say("result", output=output)


def _report(session: Session, error: BaseException) -> None:
    """Tell the session what the task raised, and the task's log too."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        session.say("result", output=None)
        return
    frames = "".join(traceback.format_exception(type(error), error, _own_frames(error)))
    print(frames, file=sys.stderr, flush=True)  # noqa: T201 - the task's own log
    message = str(error)
    session.say("error", type=type(error).__name__, message=message, traceback=frames)


def _own_frames(error: BaseException) -> TracebackType | None:
    """The traceback from the task's first frame on, without this file's."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename in (__file__, *_IMPORT_FILES):
        frame = frame.tb_next
    return frame


_IMPORT_FILES: Final = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


if __name__ == "__main__":
    main()
