"""How many accounts are worked on at once, and that one that waits keeps no other."""

from __future__ import annotations

import threading

from support.processes import until

from t3_backup.backup.slots import Slots


def take_beside(slots: Slots, user: str) -> tuple[threading.Thread, threading.Event]:
    """Let a thread take a slot; the event says that it has."""
    taken = threading.Event()

    def take() -> None:
        slots.take(user)
        taken.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, taken


def test_an_account_waits_until_another_gives_its_slot_back() -> None:
    slots = Slots(1)
    slots.take("alice")
    second, taken = take_beside(slots, "bob")
    slots.give_back("carol")  # has none
    assert not taken.wait(0.1)
    slots.give_back("alice")
    until(taken.is_set, "slot for bob")
    second.join()


def test_giving_back_twice_gives_one_slot() -> None:
    """A silent account gives its slot back, and once more when it is done."""
    slots = Slots(1)
    for user in ("alice", "bob", "carol"):
        slots.take(user)
        slots.give_back(user)
        slots.give_back(user)
    slots.take("dora")
    others = [threading.Thread(target=slots.take, args=(user,)) for user in ("erin", "fred")]
    for other in others:
        other.start()
    others[0].join(0.1)
    assert all(other.is_alive() for other in others)
    slots.give_back("dora")
    until(lambda: not all(other.is_alive() for other in others), "slot for one of them")
    for user in ("erin", "fred"):
        slots.give_back(user)
    for other in others:
        other.join()


def test_one_that_takes_long_lets_the_next_one_begin_and_no_third() -> None:
    """Row 22. Else whoever has piled up the most would decide when the others have their turn; and
    on a machine with many large accounts all would be worked on at once."""
    slots = Slots(1, turn_seconds=0)
    slots.take("alice")
    _, began = take_beside(slots, "bob")
    until(began.is_set, "turn of bob")  # beside alice
    third, taken = take_beside(slots, "carol")
    assert not taken.wait(2)
    slots.finish("alice")
    until(taken.is_set, "turn of carol")  # beside bob
    third.join()
    slots.finish("bob")
    slots.finish("carol")
    slots.take("dora")


def test_one_whose_turn_is_not_over_keeps_its_slot() -> None:
    slots = Slots(1, turn_seconds=3600)
    slots.take("alice")
    second, taken = take_beside(slots, "bob")
    assert not taken.wait(1)
    slots.finish("alice")
    until(taken.is_set, "slot for bob")
    second.join()
