"""The page of the report: what it says of an account, where things stand in its charts, and that no
text in it is obeyed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manifests import NOON, make_manifest
from support.reports import judged_account

from t3_backup.monitor import chart, html
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.html import AccountHistory
from t3_backup.store.manifest import Missing
from t3_backup.text import format_time

DAY = timedelta(days=1)
HOSTILE = "\"'><script>alert(1)</script><img src=http://example.com/x onerror=alert(1)>&amp;"


def nights(count: int, last: datetime = NOON) -> list:
    """One snapshot a night, newest first."""
    return [make_manifest(count - number, last - DAY * number) for number in range(count)]


@pytest.mark.parametrize(
    ("snapshots", "state", "says"),
    [
        ([], "bad", "never backed up"),
        (nights(3), "good", "verified 0s ago"),
        (nights(3, NOON - 3 * DAY), "bad", "the last good one is 3d old"),
        (
            [make_manifest(2, verdict="suspect"), make_manifest(1, NOON - DAY)],
            "bad",
            "state-20261124T120000Z is suspect",
        ),
        (
            [make_manifest(2, verdict="damaged"), make_manifest(1, NOON - DAY)],
            "bad",
            "state-20261124T120000Z is damaged",
        ),
        (
            [
                make_manifest(2, verdict="damaged", accepted_at="2026-11-24T12:00:00Z"),
                make_manifest(1, NOON - DAY),
            ],
            "good",
            "verified 1d ago",
        ),
        (
            [make_manifest(1, verdict="damaged", accepted_at="2026-11-24T12:00:00Z")],
            "bad",
            "no good snapshot among 1",
        ),
    ],
)
def test_an_account_is_good_late_or_bad_and_says_why(
    snapshots: list, state: str, says: str
) -> None:
    assert judged(judged_account("alice", snapshots)) == (state, says)


def judged(account: AccountHistory) -> tuple[str, str]:
    [section] = html.build_page([account], "/store", 1, NOON).sections
    return section.state, section.says


def tried(ago: timedelta, outcome: str = "unchanged", **changes: Any) -> Attempt:
    return replace(Attempt(format_time(NOON - ago), "run", outcome, None, "", 0.5, 0, 0), **changes)


def test_an_old_one_that_a_run_found_to_be_still_the_same_is_good_and_says_so() -> None:
    old = nights(3, NOON - 5 * DAY)
    for ago, state, says in (
        (timedelta(hours=9), "good", "verified 5d ago, unchanged 9h ago"),
        (3 * DAY, "bad", "the last good one is 3d old"),
        (6 * DAY, "bad", "the last good one is 5d old"),
    ):
        assert judged(judged_account("alice", old, attempts=[tried(ago)])) == (state, says)
    assert judged(judged_account("alice", old, attempts=[tried(DAY, "failed")]))[0] == "bad"


def test_one_of_the_future_does_not_count_and_wants_a_look() -> None:
    ahead = make_manifest(9, NOON + DAY)
    for rest, found in (
        ([], ("bad", "no good snapshot among 1")),
        (nights(3), ("late", f"{ahead.name} is dated in the future and does not count")),
        (nights(3, NOON - 3 * DAY), ("bad", "the last good one is 3d old")),
    ):
        assert judged(judged_account("alice", [ahead, *rest])) == found


def test_a_database_that_is_not_copied_is_bad_whatever_the_snapshots_are() -> None:
    """Row 39."""
    for snapshots in (nights(3), []):
        shelved = judged_account(
            "alice", snapshots, attempts=[tried(DAY, "failed", uncovered=("statev2.sqlite",))]
        )
        assert judged(shelved) == ("bad", "statev2.sqlite is not backed up")
        [section] = html.build_page([shelved], "/store", 1, NOON).sections
        assert section.notes[0].startswith(
            "statev2.sqlite is not backed up: at most 16 databases of an account are copied; next: "
        )


def test_a_database_that_could_not_be_copied_is_bad_and_named_with_the_remedy() -> None:
    lacking = replace(make_manifest(4), missing=(Missing("junk.sqlite", "it is not a <b>"),))
    account = judged_account("alice", [lacking, *nights(3, NOON - DAY)])
    assert judged(account) == ("bad", "junk.sqlite is not in the newest snapshot")
    [section] = html.build_page([account], "/store", 1, NOON).sections
    assert section.notes == (
        "junk.sqlite is not in the newest snapshot: it is not a <b>",
        (
            f"junk.sqlite is not in {lacking.name}: it is not a <b>; next: "
            "move it out of userdata if it is not T3's"
        ),
    )
    assert "verified, 1 missing" in rendered(account)
    later = judged_account("alice", [make_manifest(5, NOON), lacking])
    assert judged(later)[0] == "good"


def test_what_waits_for_accept_is_named_with_its_reasons_and_the_remedy() -> None:
    bad = make_manifest(2, verdict="suspect", reasons=("half is gone", "the level fell"))
    [section] = html.build_page(
        [judged_account("alice", [bad], ["a stray"])], "/store", 1, NOON
    ).sections
    assert section.notes == (
        (
            f"{bad.name} is suspect (half is gone; the level fell); "
            "nothing is pruned until: t3-backup-state accept alice"
        ),
        "no good snapshot among 1",
        "a stray",
    )


def test_the_page_counts_all_and_names_who_wants_a_look() -> None:
    view = html.build_page(
        [
            judged_account("alice", nights(3)),
            judged_account("bob", []),
            judged_account("carol", nights(20)),
        ],
        "/store",
        1 << 30,
        NOON,
    )
    assert (view.count, view.size, view.free) == (23, "9.0 MiB", "1.0 GiB")
    assert [section.user for section in view.wanting] == ["bob"]
    assert [section.shown for section in view.sections] == [True, True, False]


class TestTheChart:
    def test_a_night_that_is_missing_leaves_a_gap_and_now_is_at_the_right(self) -> None:
        taken = nights(11)
        del taken[4]
        drawn = chart.draw(taken[::-1], NOON)
        steps = [round(b.x - a.x, 1) for a, b in itertools.pairwise(drawn.points)]
        assert steps == [9.6] * 5 + [19.2] + [9.6] * 3
        assert (drawn.points[0].x, drawn.points[-1].x) == (2, 98)

    def test_labelled_ones_of_long_ago_leave_the_nights_their_room(self) -> None:
        old = [
            make_manifest(number, NOON - 100 * DAY * (4 - number), f"prebump-{number}")
            for number in (1, 2, 3)
        ]
        drawn = chart.draw([*old, *nights(14)[::-1]], NOON)
        assert [point.x for point in drawn.points[:3]] == [2, 7, 12]
        assert drawn.begins == 17
        assert drawn.points[3].x == 17
        assert drawn.line.startswith("M 17")

    def test_a_snapshot_of_the_future_stands_at_the_right_and_one_alone_somewhere(self) -> None:
        [point] = chart.draw([make_manifest(1, NOON + 9 * DAY)], NOON).points
        assert point.x == 98
        [point] = chart.draw([make_manifest(1, NOON - timedelta(hours=6))], NOON).points
        assert 2 < point.x < 98

    def test_heights_are_shares_of_the_greatest(self) -> None:
        small, large = (
            make_manifest(1, NOON - DAY, bytes=500, copy_seconds=1.0, proof_seconds=1.0),
            make_manifest(2, bytes=1000, copy_seconds=4.0, proof_seconds=0.0),
        )
        first, second = chart.draw([small, large], NOON).points
        assert (first.y, second.y) == (44, 88)
        assert (first.copy, first.both, second.copy, second.both) == (22, 44, 88, 88)

    def test_a_flag_has_its_label_where_there_is_room(self) -> None:
        labelled = [
            make_manifest(number, NOON - DAY * days, f"label-{days}")
            for number, days in enumerate((10, 9, 5, 0))
        ]
        labelled.append(make_manifest(9, NOON - DAY * 10))
        drawn = chart.draw(labelled, NOON)
        assert [(point.flag, point.left) for point in drawn.points if point.label] == [
            ("", False),
            ("label-9", False),
            ("label-5", False),
            ("label-0", True),
        ]
        long = make_manifest(1, NOON - DAY, "l" * 64)
        assert chart.draw([long], NOON).points[0].flag == "l" * 21 + "…"

    @pytest.mark.parametrize(
        ("span", "texts"),
        [
            (DAY, ["12:00", "18:00", "24 Nov", "06:00"]),
            (14 * DAY, ["16 Nov", "23 Nov"]),
            (30 * DAY, ["26 Oct", "2 Nov", "9 Nov", "16 Nov"]),
            (400 * DAY, ["Jan 2026", "Apr 2026", "Jul 2026", "Oct 2026"]),
            (3000 * DAY, ["Jan 2020", "Jan 2022", "Jan 2024", "Jan 2026"]),
        ],
    )
    def test_ticks_are_round_times(self, span: timedelta, texts: list[str]) -> None:
        assert [tick.text for tick in chart.ticks(NOON - span, NOON, 2.0)] == texts

    @given(
        st.lists(
            st.tuples(
                st.timedeltas(timedelta(days=-20), timedelta(days=5000)), st.sampled_from([None, "prebump-1"]), st.integers(0, 1 << 40),
                st.floats(0, 1e6),
            ),
            min_size=1, max_size=60,
        )
    )  # fmt: skip
    def test_nothing_ever_stands_outside_nor_in_another_order_than_time(
        self, history: list
    ) -> None:
        taken = [
            make_manifest(
                number, NOON - before, label, bytes=count, copy_seconds=took, proof_seconds=took / 2
            )
            for number, (before, label, count, took) in enumerate(history)
        ]
        drawn = chart.draw(taken, NOON)
        assert len(drawn.points) == len(taken)
        places = [point.x for point in drawn.points]
        assert places == sorted(places)
        for point in drawn.points:
            assert 2 <= point.x <= 98
            assert 0 <= point.y <= 88
            assert 0 <= point.copy <= point.both <= 88
        assert len(drawn.ticks) <= 7
        assert all(2 <= tick.x <= 98 for tick in drawn.ticks)


class Parsed(HTMLParser):
    """Elements and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(*accounts: AccountHistory) -> str:
    pytest.importorskip("jinja2")
    return html.render_page(html.build_page(accounts, "/store <b>", 1, NOON))


def test_no_text_of_others_is_obeyed_by_a_browser() -> None:
    label = 'x"onload="alert(1)'
    bad = replace(
        make_manifest(1, verdict="damaged", reasons=(HOSTILE,), method=HOSTILE),
        label=label,
        name=f"state-{HOSTILE}",
        user=HOSTILE,
    )
    found = Parsed(rendered(judged_account(HOSTILE, [bad], [HOSTILE])))
    clean = Parsed(
        rendered(
            judged_account(
                "alice", [make_manifest(1, verdict="damaged", reasons=("x",), label="y")], ["z"]
            )
        )
    )
    assert found.elements == clean.elements
    assert [name for name, _ in found.attributes] == [name for name, _ in clean.attributes]
    assert found.text.count(HOSTILE) >= 4
    assert "/store <b>" in found.text


def test_it_names_nothing_outside_of_itself() -> None:
    text = rendered(judged_account("alice", nights(30)))
    found = Parsed(text)
    assert {"script", "img", "link", "iframe", "object", "image"} & set(found.elements) == set()
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "xlink:href")
        assert name != "href" or str(value).startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    ) in found.attributes


def test_each_chart_has_a_text_for_who_cannot_see_it_and_each_table_its_headings() -> None:
    text = rendered(judged_account("alice", nights(30)), judged_account("bob", nights(1)))
    ids = {value for name, value in Parsed(text).attributes if name == "id"}
    labels = [value for name, value in Parsed(text).attributes if name == "aria-labelledby"]
    assert len(labels) == len(set(labels)) == 2 + 2 * 3
    assert set(labels) <= ids
    assert text.count('<th scope="row"') == 31
    assert text.count("<caption>") == 2


def test_without_accounts_it_says_so() -> None:
    assert "There are no accounts yet." in rendered()
