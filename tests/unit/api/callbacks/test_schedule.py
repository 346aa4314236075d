"""Which callback is attempted next; the times are a fake clock's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.api.callbacks.schedule import Schedule


def schedule(*waiting, slots=4, per_account=2):
    made: Schedule[object] = Schedule(slots=slots, per_account=per_account)
    for account, callback, due_at in waiting:
        made.add(account, callback, due_at)
    return made


def take_all(made, now):
    return list(iter(lambda: made.take(now), None))


def test_accounts_take_turns():
    """An account with many callbacks gets its slots only, and other accounts the rest."""
    many = [("a", f"a{number}", 0) for number in range(100)]
    made = schedule(*many, ("b", "b0", 0), ("c", "c0", 0))
    assert take_all(made, 0) == ["a0", "b0", "c0", "a1"]
    assert made.next_at() is None
    made.release("b")
    assert take_all(made, 0) == []  # the account `a` has its share
    made.release("a")
    assert take_all(made, 0) == ["a2"]


def test_no_slot_is_in_use_between_attempts():
    """Failing callbacks of one account, which wait for their retries, do not delay another's."""
    made = schedule(*[("a", f"a{number}", 0) for number in range(4)])
    for now in range(4):
        for _ in take_all(made, now):
            made.release("a")
            made.add("a", "again", now + 1000)
    made.add("b", "b0", 4)
    assert made.next_at() == 4
    assert take_all(made, 4) == ["b0"]
    assert made.next_at() == 1000


def test_earliest_first_within_an_account():
    made = schedule(("a", "late", 5), ("a", "first", 1), ("a", "second", 1), per_account=4)
    assert take_all(made, 0) == []
    assert made.next_at() == 1
    assert take_all(made, 9) == ["first", "second", "late"]


def test_hanging_receiver():
    """While an account's attempts hang, those of another account succeed one after the other."""
    made = schedule(*[("hangs", number, 0) for number in range(50)], slots=3, per_account=2)
    delivered = []
    assert take_all(made, 0) == [0, 1]
    for number in range(100, 150):
        made.add("works", number, number)
        delivered += take_all(made, number)
        made.release("works")
    assert delivered == list(range(100, 150))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=60), st.randoms())
def test_every_callback_is_taken_once(waiting, random):
    """Within the limits, whatever the order of taking and releasing is."""
    made: Schedule[tuple[str, int]] = Schedule(slots=3, per_account=2)
    for number, (account, due_at) in enumerate(waiting):
        made.add(account, (account, number), due_at)
    in_use: list[str] = []
    taken: list[int] = []
    now = 0
    while in_use or made.next_at() is not None:
        for account, number in take_all(made, now):
            in_use.append(account)
            taken.append(number)
        assert len(in_use) <= 3
        assert all(in_use.count(account) <= 2 for account in "abc")
        if in_use:
            made.release(in_use.pop(random.randrange(len(in_use))))
        now += 1
    assert sorted(taken) == list(range(len(waiting)))
