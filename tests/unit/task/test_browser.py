"""How the browser is found and launched."""

from __future__ import annotations

import json

import pytest

from worker.display import screen
from worker.errors import ProgramMissing, SettingError
from worker.task import browser


@pytest.fixture
def no_browser(tmp_path, monkeypatch):
    """A PATH and a Playwright folder that are empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    return tmp_path


def executable(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_the_configured_browser_is_used(tmp_path):
    path = executable(tmp_path / "browser")
    assert browser.find(path) == path


@pytest.mark.parametrize("name", ["absent", "folder", "file"])
def test_a_configured_browser_must_be_executable(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch(mode=0o644)
    with pytest.raises(SettingError, match=f"WORKER_CHROMIUM: .*{name} is not an executable file"):
        browser.find(tmp_path / name)


def test_without_any_browser_the_package_is_named(no_browser):
    with pytest.raises(ProgramMissing, match="apt-get install chromium"):
        browser.find(None)


def test_playwrights_own_browser_is_the_last_choice(no_browser):
    own = executable(no_browser / "playwright/chromium-1234/chrome-linux/chrome")
    assert browser.find(None) == own
    on_path = executable(no_browser / "google-chrome")
    assert browser.find(None) == on_path


@pytest.mark.parametrize(
    ("setting", "refusal", "used"),
    [
        ("auto", None, True),
        ("auto", "refused", False),
        ("on", None, True),
        ("off", None, False),
        ("off", "refused", False),
    ],
)
def test_whether_the_sandbox_is_used(setting, refusal, used):
    assert browser.sandboxed(setting, refusal) is used


def test_a_required_sandbox_that_is_refused_is_an_error():
    with pytest.raises(SettingError, match="WORKER_CHROMIUM_SANDBOX=on: refused"):
        browser.sandboxed("on", "refused")


def test_launch_options_are_json_and_leave_signals_to_the_session():
    options = browser.launch_options("/bin/chromium", sandbox=True, shm=True)
    assert json.loads(json.dumps(options)) == options
    assert options["executable_path"] == "/bin/chromium"
    assert options["headless"] is False
    assert [options[f"handle_sig{name}"] for name in ("int", "term", "hup")] == [False] * 3


def test_the_window_is_as_large_as_the_screen():
    options = browser.launch_options("/bin/chromium", sandbox=True, shm=True)
    assert f"--window-size={screen.WIDTH_PX},{screen.HEIGHT_PX}" in options["args"]


@pytest.mark.parametrize("sandbox", [True, False])
def test_without_a_sandbox_no_warning_covers_the_page(sandbox):
    options = browser.launch_options("/bin/chromium", sandbox=sandbox, shm=True)
    assert options["chromium_sandbox"] is sandbox
    assert ("--test-type" in options["args"]) is not sandbox


@pytest.mark.parametrize(("shm", "ignored"), [(True, ["--disable-dev-shm-usage"]), (False, [])])
def test_shared_memory_is_used_where_there_is_enough(shm, ignored):
    options = browser.launch_options("/bin/chromium", sandbox=True, shm=shm)
    assert options["ignore_default_args"] == ignored
