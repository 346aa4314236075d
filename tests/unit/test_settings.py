"""Settings: read once, checked, and the tables of the READMEs are made of them."""

from __future__ import annotations

import pytest
import readmes

from worker import settings
from worker.errors import SettingError


def test_readmes_have_every_setting():
    """Each row that the fields' descriptions give is in a README."""
    shown = "".join(file.read_text() for file in readmes.FILES).splitlines()
    assert [row for row in settings.table().splitlines() if row not in shown] == []


def test_options_outrank_variables(monkeypatch):
    """An option outranks its variable."""
    monkeypatch.setenv("WORKER_PORT", "1")
    assert settings.load({}).port == 1
    assert settings.load({"port": "2"}).port == 2


def test_debug_page_follows_the_host():
    """The debug page is on by default only where the host is loopback."""
    assert settings.load({}, {}).serves_debug_page
    assert not settings.load({"host": "0.0.0.0"}, {}).serves_debug_page


def test_a_secret_is_never_in_an_error():
    """A secret that is too short is not quoted."""
    with pytest.raises(SettingError) as refused:
        settings.load({"stream_secret": "hunter2"}, {})
    assert "hunter2" not in str(refused.value)


def test_trusted_proxies():
    """Addresses and networks, of both families; anything else is said by name."""
    options = {"trusted_proxies": " 10.0.0.7, 10.1.2.3/8,fd00::/8 "}
    assert settings.load(options, {}).trusted_proxies == ("10.0.0.7", "10.1.2.3/8", "fd00::/8")
    with pytest.raises(SettingError, match=r"'10\.0\.0\.0/33' is neither an address nor a network"):
        settings.load({"trusted_proxies": "::1,10.0.0.0/33"}, {})


@pytest.mark.parametrize("name", ["WORKER_STREAM_SECERT", "worker_stream_secret"])
def test_unknown_variable(name):
    """An unknown variable is refused with the nearest name, another case's too."""
    with pytest.raises(SettingError, match=f"unknown variable {name}; .* WORKER_STREAM_SECRET"):
        settings.load({}, {name: "s" * 32})


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1"])
def test_retention_is_a_time_that_can_be_reckoned_with(seconds):
    """What no calendar holds is refused here, not where the queue is looked at."""
    with pytest.raises(SettingError, match="--retention-s"):
        settings.load({"retention_s": seconds}, {})
