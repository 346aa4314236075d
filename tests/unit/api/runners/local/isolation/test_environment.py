"""Which variables of the API's environment local tasks get."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import readmes

import worker
from worker.api.runners.local.isolation.environment import PASSED_ON, passed_on
from worker.errors import SettingError
from worker.settings import load
from worker.settings.local import LocalSettings

SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "KUBECONFIG", "DATABASE_URL", "SSH_AUTH_SOCK", "XAUTHORITY"),
    *("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "NODE_OPTIONS", "PLAYWRIGHT_TOKEN"),
    *("PYTHONSTARTUP", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "path", "PATHS", "_", ""),
    *("WORKER_STREAM_SECRET", "WORKER_LOCAL_ENVIRONMENT"),
)


def test_only_listed_variables():
    """A variable that is not listed is not passed on; similar names make no difference."""
    listed = {"PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://p", "HTTPS_PROXY": "http://q"}
    assert passed_on({**listed, **dict.fromkeys(SECRETS, "secret")}) == listed


def test_further_variables():
    """Names, and beginnings followed by `*`; never the API's own."""
    environ = dict.fromkeys(SECRETS, "value")
    assert passed_on(environ, ["KUBECONFIG", "AWS_*"]).keys() == {
        "KUBECONFIG",
        "AWS_SECRET_ACCESS_KEY",
    }
    own = {name for name in SECRETS if name.startswith("WORKER_")}
    assert passed_on(environ, ["*"]).keys() == set(SECRETS) - own


def test_listed_variables_are_documented():
    readme = Path(worker.__file__).parent / "api/README.md"
    text = readmes.section(readme, "variables of local tasks")
    assert text is not None
    names = [name for row in readmes.rows(text) for name in re.findall(r"`(.*?)`", row[0])]
    assert sorted(names) == sorted(PASSED_ON)


@pytest.mark.parametrize("value", ["A B", "A=1", "*A", "A**", "WORKER_A", "WORKER_*"])
def test_refused_names(monkeypatch, value):
    monkeypatch.setenv("WORKER_LOCAL_ENVIRONMENT", f"B,{value}")
    with pytest.raises(SettingError, match="WORKER_LOCAL_ENVIRONMENT"):
        load(LocalSettings, {})


def test_accepted_names(monkeypatch):
    monkeypatch.setenv("WORKER_LOCAL_ENVIRONMENT", "A, AWS_*,*,")
    assert load(LocalSettings, {}).local_environment == ("A", "AWS_*", "*")
