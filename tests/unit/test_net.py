"""Listeners are bound in one place, and URLs spell their addresses in one way."""

from __future__ import annotations

import socket

import pytest

from worker import net
from worker.errors import PortInUse, SettingError


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1:80"), ("localhost", "localhost:80"), ("fd00::1", "[fd00::1]:80")],
)
def test_netloc(host, shown):
    assert net.netloc(host, 80) == shown


def test_listen_on_a_free_port():
    with net.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_name_of_both_families_is_ipv4():
    with net.listen("localhost", 0) as listener:
        assert listener.family == socket.AF_INET


def test_a_port_in_use_is_an_error_with_the_reason():
    with net.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port}: Address already in use"):
            net.listen("127.0.0.1", port)


def test_another_machine_s_address_cannot_be_listened_on():
    with pytest.raises(PortInUse, match=r"203\.0\.113\.1"):
        net.listen("203.0.113.1", 0)


@pytest.mark.parametrize("host", ["host.invalid", "a" * 64 + ".invalid"])
def test_a_host_that_cannot_be_resolved_is_an_error(host):
    with pytest.raises(SettingError, match="--host: cannot resolve"):
        net.listen(host, 0)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("unix:///var/run/docker.sock", True),
        ("http+unix://%2Fdocker.sock", True),
        ("tcp://127.0.0.1:2375", True),
        ("https://127.0.0.53:6443", True),
        ("https://[::1]:6443", True),
        ("https://localhost:6443", True),
        ("tcp://192.0.2.1:2375", False),
        ("https://localhost.example.com", False),
        ("", False),
    ],
)
def test_a_proxy_cannot_reach_this_machine(url, is_local):
    assert net.is_on_this_machine(url) is is_local
