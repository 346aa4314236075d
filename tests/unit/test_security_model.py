"""The security model of worker/README.md: every row of its tables has a test."""

from __future__ import annotations

import ast
from typing import Final

import pytest
import readmes
import security_tables
import viewer_access

TASK: Final = "access of a task"
VIEWERS: Final = "access of viewers and accounts"
RUN_BY: Final = {
    "uids": "integration/test_security_model.py::test_isolated_task",
    "Landlock": "integration/test_security_model.py::test_isolated_task",
    "root": "integration/test_security_model.py::test_task_that_is_not_isolated",
    "user": "integration/test_security_model.py::test_task_that_is_not_isolated",
    "container": "image/test_security_model.py::test_task_in_a_container",
    "container, root": "image/test_security_model.py::test_task_in_a_container",
    "other user": "integration/test_security_model.py::test_isolated_task",
}
"""The test that measures each column of the table of a task's accesses."""
_CALLBACKS: Final = "integration/test_callbacks.py"
_LOCAL: Final = "unit/api/runners/local/test_runner.py"
_WATCH: Final = "unit/api/runners/local/disk/test_watch.py"
_TABLE: Final = "integration/test_security_model.py::test_isolated_task"
COVERED: Final[dict[str, tuple[str, ...]]] = {
    "A viewer needs a token of that task, for one connection": (
        "unit/stream/test_tokens.py::test_a_wrong_or_missing_claim_is_refused",
        "integration/test_limits.py::test_token_is_valid_once",
        "integration/test_security_model.py::test_viewers_and_accounts",
    ),
    "A worker cannot make tokens for another task": (
        "unit/stream/test_tokens.py::test_each_task_has_a_key_of_its_own",
        "unit/stream/test_tokens.py::test_a_bad_signature_is_refused",
        "unit/api/runners/test_worker_environment.py::test_no_secret_is_passed_on",
    ),
    "A `view` viewer changes nothing in the display": (
        "integration/test_control.py::test_view_viewer_changes_nothing",
        "unit/rfb/test_client_filter.py::test_no_message_with_a_side_effect_passes_for_view",
        "unit/vnc/test_x11vnc.py::test_a_view_only_x11vnc_takes_no_input_and_sends_no_copied_text",
    ),
    "A viewer that is slow, silent or malformed does not affect the others": (
        "integration/test_hostile.py::test_hostile_viewers_are_dropped",
        "integration/test_hostile.py::test_latency_beside_hostile_viewers",
    ),
    "A viewer cannot crash x11vnc or take the others' share of it": (
        "integration/test_fuzz.py::test_corpus_with_a_real_x11vnc",
        "integration/test_hostile.py::test_updates_beside_an_expensive_viewer",
        "unit/rfb/test_client_filter.py::test_requests_are_clamped_to_the_screen",
    ),
    "Load, or a suspension of the machine, disconnects no viewer and ends no worker": (
        "integration/test_healthy_viewers.py::test_viewers_get_updates_on_a_busy_machine",
        "integration/test_suspended.py::test_task_of_the_api_goes_on_after_a_suspension",
        "integration/test_suspended.py::test_viewer_is_kept_over_a_suspension",
    ),
    "A client without a token or key costs little": (
        "integration/test_acceptor.py::test_head_larger_than_32_kb_gets_431",
        "integration/test_acceptor.py::test_oldest_incomplete_request_makes_room",
        "integration/test_api_limits.py::test_bad_heads",
        "integration/test_api_limits.py::test_slow_connections_make_room",
    ),
    "A flood of requests does not delay others, also from its own address": (
        "integration/test_floods.py::test_viewers_are_admitted_during_a_flood",
        "integration/test_floods.py::test_api_serves_others_during_floods",
    ),
    "A flood from some addresses refuses no rare request of another one": (
        "integration/test_api_limits.py::test_answers_that_are_not_read_make_room",
        "unit/api/port/test_table.py::test_a_client_with_few_connections_keeps_them",
        "unit/api/port/test_triage.py::test_flood_from_some_addresses_refuses_no_other",
        "unit/stream/port/test_rates.py::test_flood_of_some_clients_refuses_no_rare_request",
        "unit/stream/port/test_requests.py::test_client_with_the_most_threads_makes_room",
        "unit/stream/port/test_triage.py::test_flood_from_some_addresses_refuses_no_other",
    ),
    "A page under our origin shows no other host's screen": (
        "unit/stream/page/test_files.py::test_nothing_else",
        "unit/api/routes/test_dashboard.py::test_no_other_file",
    ),
    "The gateway reaches workers only": (
        "integration/test_gateway.py::test_only_names_of_workers_are_resolved",
        "integration/test_gateway.py::test_only_get_is_forwarded",
        "integration/test_gateway.py::test_other_paths",
    ),
    "A task's end is its own": (
        "integration/test_end.py::test_every_error_is_the_tasks",
        "integration/test_run.py::test_task_that_writes_to_the_sessions_socket",
        "unit/task/test_process.py::test_arbitrary_bytes_end_in_a_failed_task",
    ),
    "No process of a task survives it": (
        "integration/test_end.py::test_processes_that_do_not_want_to_end",
        "integration/test_end.py::test_processes_are_ended_without_a_cgroup",
    ),
    "What a task leaves in its temporary folder cannot stop the clean-up": (
        "integration/test_end.py::test_a_deep_tree_is_removed",
        "unit/test_trees.py::test_hostile_tree_is_removed",
    ),
    "What a killed worker left is removed, and nothing of a living one": (
        "integration/test_end.py::test_the_next_worker_removes_what_a_killed_one_left",
        "unit/test_stale_sessions.py::test_a_live_owners_folder_is_kept",
    ),
    "The display is reachable with its cookie only, x11vnc through its Unix socket only": (
        _TABLE,
        "integration/test_secrets_and_ports.py::test_one_port",
        "unit/vnc/test_x11vnc.py::test_x11vnc_listens_on_its_unix_socket_only",
    ),
    "The task's environment holds no secret": (
        _TABLE,
        "integration/test_secrets_and_ports.py::test_no_secret_is_visible",
    ),
    "A task cannot have its modules imported by a process that holds a secret": (
        "integration/test_surroundings.py::test_modules_of_a_task",
        "unit/surroundings/test_interpreter.py::test_modules_come_from_the_installation_only",
    ),
    "The stream key and the listener go to the stream server only, once per start": (
        "integration/test_stream_channel.py::test_another_process_gets_no_configuration",
        "integration/test_stream_channel.py::test_the_configuration_is_handed_over_once_per_start",
    ),
    "A task cannot start programs through supervisord, or change what it starts": (
        _TABLE,
        "integration/test_programs_die.py::test_supervisord_obeys_its_session_only",
    ),
    "One account cannot see another's tasks": (
        "integration/test_security_model.py::test_viewers_and_accounts",
        "unit/api/routes/test_tasks.py::test_other_accounts_task",
        "contract/test_runner.py::test_find_by_account",
    ),
    "One account cannot fill the queue, nor delay another account's tasks by its own": (
        "contract/test_runner.py::test_full_queue_of_an_account",
        "unit/api/runners/test_fairness.py::test_one_slot_goes_round",
    ),
    "One account cannot fill the disk of the local runner": (
        "integration/test_account_disk.py::test_an_account_that_fills_the_disk_affects_no_other",
    ),
    "A leaked key file opens nothing": (
        "unit/api/test_accounts.py::test_file_has_hashes_and_is_private",
    ),
    "Undeliverable callbacks of one account do not delay another's": (
        f"{_CALLBACKS}::test_undeliverable_callbacks_do_not_delay_those_of_another_account",
        "unit/api/callbacks/test_schedule.py::test_no_slot_is_in_use_between_attempts",
    ),
    "Slow reads of one account's artifacts and logs do not delay another account": (
        "unit/api/runners/test_threads.py::test_slow_calls_of_one_account_do_not_block_another",
        f"{_LOCAL}::test_slow_reads_of_one_account_do_not_block_another",
        "integration/test_docker_engine.py::test_slow_files_of_one_account",
        "integration/test_kubernetes_runner.py::test_slow_logs_of_one_account_do_not_block_another",
    ),
    "A large output of one account delays no request of another one": (
        "unit/api/test_models.py::test_output_is_sent_as_it_is_stored",
        "contract/test_runner.py::test_results_that_a_worker_can_write",
    ),
    "Slow work on one account's tasks delays no other account's": (
        "unit/api/runners/local/test_shares.py::test_slow_work_of_one_account",
        "unit/api/runners/local/test_shares.py::test_slow_retention_of_one_account",
        "unit/api/runners/local/test_shares.py::test_recovery_of_one_account",
        "unit/api/runners/local/test_shares.py::test_users_in_use_by_one_account",
        "unit/api/runners/test_background.py::test_slow_round_of_one_account",
        "unit/api/runners/test_leases.py::test_slow_read_of_one_callback",
        f"{_WATCH}::test_slow_count_of_one_account_does_not_delay_another",
        "integration/test_docker_engine.py::test_slow_calls_about_one_accounts_containers",
    ),
    "A tree of files that takes long to count does not delay the count of a small task": (
        f"{_WATCH}::test_slow_count_of_one_task_does_not_delay_another_task",
        f"{_WATCH}::test_tree_is_counted_up_to_what_its_account_may_have",
    ),
    "A failure of one task does not stop the API's loops": (
        "contract/test_runner.py::test_failure_of_one_task",
        "unit/api/runners/test_background.py::test_failed_loop_is_repeated",
    ),
    "Callbacks cannot reach internal addresses": (
        "unit/api/callbacks/test_addresses.py::test_not_public",
        "integration/test_callbacks.py::test_name_of_a_loopback_address_is_refused",
    ),
    "A downloaded artifact cannot run as a page of the API": (
        "unit/api/routes/test_artifacts.py::test_files_cannot_run_as_pages",
    ),
    "What a task leaves affects only what is reported about that task": (
        "contract/test_runner.py::test_hostile_results",
        "unit/api/runners/test_files.py::test_hostile_trees",
        "unit/api/runners/test_archive.py::test_hostile_archives",
    ),
    "A task cannot claim another end than its worker's": (
        "integration/test_hostile_tasks.py::test_tasks_that_forge_their_result",
        "unit/api/runners/test_results.py::test_contradicted_result_of_a_cancelled_task",
    ),
    "A task cannot make its worker or the API write outside its folder": (
        "unit/test_artifacts.py::test_what_a_running_task_replaces",
        "unit/test_artifacts.py::test_folder_that_the_task_replaced",
        "unit/test_trees.py::test_what_is_no_folder_is_not_followed",
    ),
    "A local task opens no file of the API, of its session's supervisord, or of another task": (
        _TABLE,
    ),
    "A local task cannot signal, limit or trace other processes": (
        _TABLE,
        "unit/test_linux.py::test_limits_of_other_processes",
    ),
    "A local task gets no secret of the API by inheritance": (
        _TABLE,
        "unit/api/runners/local/isolation/test_environment.py::test_only_listed_variables",
    ),
    "No process of a local task's uid survives it, nor blocks the uid": (
        "integration/test_kill_all.py::test_processes_without_landlock",
        "integration/test_kill_all.py::test_processes_that_stop_the_child",
        "integration/test_kill_all.py::test_hidden_processes_with_few_capabilities",
    ),
    "A viewer in control of the browser reads no such file either": (
        _TABLE,
        "image/test_file_urls.py::test_blocked",
    ),
    "Viewers are sent to no address that a task chose": (
        "unit/api/runners/local/isolation/test_assignments.py::test_address_is_that_of_the_socket",
        "integration/test_isolation.py::test_not_isolated",
        _TABLE,
    ),
    "A task cannot forge its worker's events": (
        _TABLE,
        "unit/api/runners/local/test_channel.py::test_only_its_owner_can_open_it",
        "unit/api/runners/local/test_channel.py::test_huge_sparse_file",
    ),
    "A local task cannot prevent the start of others by taking ports or X displays, nor pose as "
    "their X server": (
        "integration/test_shared_names.py::test_a_task_that_takes_all_displays_and_ports",
        "unit/api/runners/local/isolation/test_reservations.py::test_missing_names",
        "unit/api/runners/local/isolation/test_reservations.py::test_names_are_used_again",
        "unit/display/test_reserved.py::test_file_of_another_process_is_kept",
    ),
    "One account only, where nothing isolates its tasks from another's": (
        "integration/test_isolation.py::test_not_isolated",
    ),
    "A container has no privileges": (
        "image/test_security_model.py::test_task_in_a_container",
        "unit/api/runners/docker/test_container_spec.py::test_hardening",
        "unit/manifests/test_manifests.py::test_hardened",
    ),
}
"""The tests of each row of the table "Enforced"."""


def test_every_enforced_row_has_tests():
    """The rows are those of the README, in its order."""
    assert list(COVERED) == security_tables.enforced()


@pytest.mark.parametrize("test", sorted({each for tests in COVERED.values() for each in tests}))
def test_named_tests_exist(test):
    """Each of them is a function of its file, and is not skipped always."""
    assert _runs(test)


def test_every_access_of_a_task_has_a_probe():
    """The rows are the probes, in the same order; each column has a test, each cell a value."""
    table = security_tables.table(TASK)
    assert table.keys() == RUN_BY.keys()
    for column, rows in table.items():
        assert list(rows) == list(security_tables.probes().PROBES), column
        assert set(rows.values()) <= set(security_tables.CELLS), column
    assert all(_runs(test) for test in RUN_BY.values())


def test_every_access_of_viewers_and_accounts_has_a_probe():
    """The same for the table of viewers and accounts."""
    for column, rows in security_tables.table(VIEWERS).items():
        assert list(rows) == list(viewer_access.PROBES), column
        assert set(rows.values()) <= {"yes", "no"}, column


@pytest.mark.parametrize(
    ("possible", "cell"),
    [
        ({"own": [], "other": []}, "no"),
        ({"own": ["a"], "other": []}, "own"),
        ({"own": [], "other": ["b"]}, "yes"),
        ({"own": ["a"], "other": ["b"]}, "yes"),
    ],
)
def test_cells(possible, cell):
    """A cell is `yes` if others' targets were accessible, `own` if only own ones were."""
    assert security_tables.cell(possible) == cell


def test_differences():
    """A row whose cell is not what was measured is reported, in either direction."""
    rows = security_tables.table(TASK)["root"]
    exact = {
        row: {"own": ["a"] * (cell == "own"), "other": ["b"] * (cell == "yes")}
        for row, cell in rows.items()
    }
    assert security_tables.differences("root", exact) == {}
    wider = exact | {"use a display without its cookie": {"own": [], "other": ["b"]}}
    narrower = exact | {"signal the API": {"own": [], "other": []}}
    assert list(security_tables.differences("root", wider)) == ["use a display without its cookie"]
    assert list(security_tables.differences("root", narrower)) == ["signal the API"]


def _runs(test: str) -> bool:
    """Whether a test exists at the top of its file, without the mark `skip`."""
    path, _, name = test.partition("::")
    file = readmes.ROOT / "tests" / path
    functions = [
        each
        for each in ast.parse(file.read_text()).body
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and each.name == name
    ]
    marks = [ast.unparse(mark) for each in functions for mark in each.decorator_list]
    return len(functions) == 1 and not [mark for mark in marks if "mark.skip(" in mark]
