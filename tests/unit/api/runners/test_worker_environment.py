"""What a worker gets of the API's environment follows from the fields of RunSettings."""

from __future__ import annotations

from worker.api.runners import worker_environment
from worker.api.runners.worker_environment import passed_on
from worker.settings.loading import every_class
from worker.settings.run import secret_variables
from worker.settings.shared import variable

ALL = {variable(name): "x" for kind in every_class() for name in kind.model_fields}
EVERY_WORKER = {
    "WORKER_ALLOWED_ORIGINS",
    "WORKER_CHROMIUM_SANDBOX",
    "WORKER_HOLD_S",
    "WORKER_LOG_MAX_BYTES",
    "WORKER_MAX_VIEWERS",
    "WORKER_TRUSTED_PROXIES",
}


def test_a_container_gets_what_holds_for_every_worker():
    assert set(worker_environment.container_environment(ALL)) == EVERY_WORKER


def test_a_process_also_gets_what_holds_for_the_machine():
    machine = {"WORKER_CHROMIUM", "WORKER_HOST", "WORKER_NOVNC_DIR"}
    assert set(passed_on(ALL, same_machine=True)) == EVERY_WORKER | machine


def test_values_are_passed_on_unchanged_and_other_variables_are_not():
    environ = {"WORKER_MAX_VIEWERS": "7", "WORKER_COUNT": "3", "PATH": "/bin"}
    assert passed_on(environ, same_machine=True) == {"WORKER_MAX_VIEWERS": "7"}


def test_no_secret_is_passed_on():
    secrets = secret_variables()
    assert secrets == ["WORKER_STREAM_SECRET", "WORKER_STREAM_KEY"]
    assert not set(secrets) & set(passed_on(ALL, same_machine=True))
