"""Accounts: keys are shown once, kept as hashes, read again when they change, and revocable."""

from __future__ import annotations

import hashlib
import json
import stat
import threading

import pytest

from worker.api import accounts
from worker.api.accounts import Account, Accounts
from worker.errors import SettingError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deep" / "keys.json"


def test_key_authenticates_its_account(file):
    key = accounts.create(file, "alice", control=True)
    assert Accounts(file).authenticate(key) == Account(name="alice", control=True)


def test_file_has_hashes_and_is_private(file):
    key = accounts.create(file, "alice", control=False)
    text = file.read_text()
    assert key not in text
    assert json.loads(text)["keys"][0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("key", ["", "wk_", "wk_other", "x" * 10_000, "\udcff", "é"])
def test_unknown_key(file, key):
    accounts.create(file, "alice", control=False)
    assert Accounts(file).authenticate(key) is None


def test_missing_file_has_no_keys(file):
    assert Accounts(file).authenticate("wk_any") is None


def test_changed_file_is_read_again(file):
    known = Accounts(file)
    first = accounts.create(file, "alice", control=False)
    assert known.authenticate(first)
    second = accounts.create(file, "bob", control=False)
    assert known.authenticate(second).name == "bob"
    assert accounts.revoke(file, "alice") == 1
    assert known.authenticate(first) is None
    assert known.authenticate(second)
    file.unlink()
    assert known.authenticate(second) is None


@pytest.mark.parametrize("whole", [True, False])
def test_one_key_is_revoked_by_its_prefix(file, whole):
    kept = accounts.create(file, "alice", control=False)
    leaked = accounts.create(file, "alice", control=False)
    assert accounts.revoke(file, "alice", leaked if whole else leaked[:11]) == 1
    assert Accounts(file).authenticate(leaked) is None
    assert Accounts(file).authenticate(kept)


def test_other_accounts_keys_are_kept(file):
    key = accounts.create(file, "alice", control=False)
    assert accounts.revoke(file, "bob") == 0
    assert accounts.revoke(file, "alice", "wk_nothing") == 0
    assert Accounts(file).authenticate(key)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"keys": [{}]}',
        '{"keys": [{"account": "a", "prefix": "", "sha256": "é", "control": true}]}',
        '{"keys": 1}',
    ],
)
def test_invalid_file_authenticates_no_key(file, text):
    key = accounts.create(file, "alice", control=False)
    known = Accounts(file)
    assert known.authenticate(key)
    file.write_text(text)
    assert known.authenticate(key) is None
    with pytest.raises(SettingError, match="is not a file of API keys") as refused:
        known.check()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "../a", "a" * 64, "é", "a\n"])
def test_invalid_account_name(file, name):
    with pytest.raises(SettingError):
        accounts.create(file, name, control=False)


def test_concurrently_created_keys_are_all_kept(file):
    made = [
        threading.Thread(target=accounts.create, args=(file, f"a{n}"), kwargs={"control": False})
        for n in range(20)
    ]
    for each in made:
        each.start()
    for each in made:
        each.join()
    assert len(accounts.listed(file)) == 20
    assert {each.name for each in file.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_names_are_in_the_order_of_the_oldest_keys(tmp_path):
    file = tmp_path / "keys.json"
    assert accounts.Accounts(file).names() == []
    for name in ("bob", "alice", "bob"):
        accounts.create(file, name, control=False)
    assert accounts.Accounts(file).names() == ["bob", "alice"]


def test_accounts_of_an_unreadable_file(file):
    """They are unknown, which is not the same as none."""
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")
    with pytest.raises(SettingError):
        Accounts(file).names()
