"""Settings are read from options and variables, and checked with one clear line per mistake."""

from __future__ import annotations

import pytest

from worker.errors import SettingError
from worker.settings import load, load_serve, unknown_variables
from worker.settings.docker import DockerSettings
from worker.settings.kubernetes import KubernetesSettings
from worker.settings.local import LocalSettings
from worker.settings.run import RunSettings
from worker.settings.serve import ServeSettings


def test_an_option_overrides_its_variable(monkeypatch):
    monkeypatch.setenv("WORKER_PORT", "1")
    assert load(RunSettings, {}).port == 1
    assert load(RunSettings, {"port": "2"}).port == 2


def test_debug_page_is_on_by_default_for_a_loopback_host_only():
    assert load(RunSettings, {}, {}).serves_debug_page
    assert not load(RunSettings, {"host": "0.0.0.0"}, {}).serves_debug_page


@pytest.mark.parametrize("kind", [RunSettings, ServeSettings])
def test_a_short_secret_is_rejected_without_quoting_it(kind):
    with pytest.raises(SettingError, match="at least 32 bytes") as refused:
        load(kind, {"stream_secret": "hunter2"}, {})
    assert "hunter2" not in str(refused.value)


def test_stream_key_must_be_hex():
    assert load(RunSettings, {"stream_key": "ab" * 32}, {}).stream_key is not None
    with pytest.raises(SettingError, match="64 hex digits"):
        load(RunSettings, {"stream_key": "xy" * 32}, {})


def test_trusted_proxies_are_addresses_and_networks_of_both_families():
    options = {"trusted_proxies": " 10.0.0.7, 10.1.2.3/8,fd00::/8 "}
    chosen = load(RunSettings, options, {})
    assert chosen.trusted_proxies == ("10.0.0.7", "10.1.2.3/8", "fd00::/8")
    with pytest.raises(SettingError, match=r"'10\.0\.0\.0/33' is neither an address nor a network"):
        load(RunSettings, {"trusted_proxies": "::1,10.0.0.0/33"}, {})


def test_inputs_that_are_not_json_are_rejected_without_quoting_them(monkeypatch):
    monkeypatch.setenv("WORKER_INPUTS", "{hunter2")
    with pytest.raises(SettingError, match="WORKER_INPUTS: must be a JSON object") as refused:
        load(RunSettings, {})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1"])
def test_retention_must_fit_a_calendar(seconds, monkeypatch):
    monkeypatch.setenv("WORKER_RETENTION_S", seconds)
    with pytest.raises(SettingError, match="WORKER_RETENTION_S: "):
        load(ServeSettings, {})


def test_an_error_names_the_option_if_the_value_came_from_it(monkeypatch):
    with pytest.raises(SettingError, match=r"^--port: "):
        load(ServeSettings, {"api_port": "x"}, {})
    monkeypatch.setenv("WORKER_API_PORT", "x")
    with pytest.raises(SettingError, match=r"^WORKER_API_PORT: "):
        load(ServeSettings, {})


@pytest.mark.parametrize(
    ("runner", "kind"),
    [("local", LocalSettings), ("docker", DockerSettings), ("kubernetes", KubernetesSettings)],
)
def test_serve_reads_the_settings_of_the_selected_runner(runner, kind):
    assert type(load_serve({"runner": runner}, {})) is kind


def test_serve_validates_what_its_workers_get(monkeypatch):
    monkeypatch.setenv("WORKER_MAX_VIEWERS", "0")
    with pytest.raises(SettingError, match="WORKER_MAX_VIEWERS: "):
        load_serve({})


def test_only_the_selected_runner_s_settings_are_validated(monkeypatch):
    monkeypatch.setenv("WORKER_MEMORY_BYTES", "much")
    load_serve({"runner": "local"})
    with pytest.raises(SettingError, match="WORKER_MEMORY_BYTES: "):
        load_serve({"runner": "docker"})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("WORKER_STREAM_SECERT", "WORKER_STREAM_SECRET"),
        ("worker_stream_secret", "WORKER_STREAM_SECRET"),
        ("WORKER_TIMEOUT", "WORKER_TIMEOUT_S"),
        ("WORKER_TIMOUT_S", "WORKER_TIMEOUT_S"),
        ("WORKER_TASKID", "WORKER_TASK_ID"),
        ("WORKER_PROT", "WORKER_PORT"),
        ("WORKER_HOTS", "WORKER_HOST"),
        ("WORKER_MAX_VIEWER", "WORKER_MAX_VIEWERS"),
        ("WORKER_INPUT", "WORKER_INPUTS"),
        ("WORKER_CHROME_SANDBOX", "WORKER_CHROMIUM_SANDBOX"),
        ("WORKER_ENDPOINT_DIR", "WORKER_ENDPOINTS_DIR"),
        ("WORKER_QUEUE_MAXX", "WORKER_QUEUE_MAX"),
        ("WORKER_ORIGINS", "WORKER_ALLOWED_ORIGINS"),
        ("WORKER_TIMEOUT_SECONDS", "WORKER_TIMEOUT_S"),
        ("WORKER_VIEWERS", "WORKER_MAX_VIEWERS"),
        ("WORKER_SANDBOX", "WORKER_CHROMIUM_SANDBOX"),
        ("WORKER_PROXIES_TRUSTED", "WORKER_TRUSTED_PROXIES"),
        ("WORKER_NETWROK", "WORKER_NETWORK"),
    ],
)
@pytest.mark.parametrize("kind", [RunSettings, ServeSettings])
def test_a_near_miss_of_any_program_s_variable_is_an_error(name, nearest, kind):
    with pytest.raises(SettingError, match=f"^unknown variable {name}; did you mean {nearest}\\?$"):
        load(kind, {}, {name: "s" * 32})


@pytest.mark.parametrize(
    "endings",
    [
        "CLASS CONNECTIONS GROUP MAX_REQUESTS MODE PROCESSES THREADS TMP_DIR",  # process managers
        "CONCURRENCY COUNT ID INDEX MAX_JOBS MAX_TASKS POOL QUEUE QUEUES",  # job queues
        "CPUS HOSTNAME MEMORY MEMORY_LIMIT NODE NODES POD_NAME REGION REPLICAS SIZE",  # clouds
        "ENV IDLE_TIMEOUT LOG_LEVEL NAME ROLE SECRET TAG TOKEN TYPE URL VERSION",
        "PORT_6080_TCP PORT_6080_TCP_ADDR PORT_6080_TCP_PORT SERVICE_HOST SERVICE_PORT",
        "API_PORT_8000_TCP API_SERVICE_HOST STREAM_SERVICE_HOST STREAM_SERVICE_PORT",
    ],
)
def test_a_platform_s_variable_is_no_error(endings):
    """The last two are service links, which Kubernetes sets for Services of such names."""
    names = [f"WORKER_{ending}" for ending in endings.split()]
    environ = dict.fromkeys(names, "1")
    load(RunSettings, {}, environ)
    assert unknown_variables(RunSettings, environ) == sorted(names)


def test_another_program_s_variable_is_neither_error_nor_unknown():
    environ = {"WORKER_NETWORK": "x", "WORKER_STATE_DIR": "y", "WORKER_PORT": "1", "PATH": "z"}
    assert unknown_variables(RunSettings, environ) == []
    assert unknown_variables(ServeSettings, environ) == []


def test_unknown_variables_are_sorted():
    environ = {"WORKER_B": "", "OTHER": "", "WORKER_A": ""}
    assert unknown_variables(ServeSettings, environ) == ["WORKER_A", "WORKER_B"]
