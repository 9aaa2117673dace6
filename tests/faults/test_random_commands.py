"""Commands and work in any order, one after another and two at once, some of them killed: nothing
that was sealed is lost or changed unless retention lets it go."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from support.host import Host
from support.processes import processes_of, until
from support.random_commands import FREEING, Play, kept
from support.sampling import amount, chance
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

COMMANDS = 819
RACES = 254
LONGEST_S = 0.4  # until the second command is begun, or the first is killed


@pytest.fixture
def play(
    host: Host, make_user: Callable[..., User], request: pytest.FixtureRequest
) -> Iterator[Play]:
    users = [make_user(f"play-{name}") for name in ("a", "b")]
    yield Play(host, users, chance(request.node.name))


def test_whatever_is_called_in_any_order_nothing_sealed_is_lost(
    play: Play, tell: Callable[[str], None]
) -> None:
    """Row 13, row 27."""
    count = amount(COMMANDS, 14)
    for number in range(count):
        user = play.random.choice(play.users)
        done = play.work(user) if play.random.random() < 0.7 else "nothing"
        words = play.words(user)
        play.must_be_sound(words, user, play.host.t3(*words))
        play.model.check(f"{number}: {words} after {done}", keep=kept(words))
    tell(
        f"random commands: {count}, {play.model.sealed} snapshots sealed, "
        f"{play.model.gone} let go: {dict(sorted(play.counts.items()))}"
    )


def test_two_commands_at_once_and_kills_lose_nothing(
    play: Play, tell: Callable[[str], None]
) -> None:
    """Row 27, row 33."""
    count, kills = amount(RACES, 4), 0
    for number in range(count):
        pair = [(user, play.words(user)) for user in play.random.choices(play.users, k=2)]
        for user, _ in pair:
            play.work(user)
        what = f"{number}: {[words for _, words in pair]}"
        with play.host.start(*pair[0][1]) as first:
            time.sleep(play.random.random() * LONGEST_S)
            with play.host.start(*pair[1][1]) as second:
                if play.random.random() < 0.5:
                    time.sleep(play.random.random() * LONGEST_S)
                    play.random.choice((first, second)).kill()
                    kills += 1
                ended = [process.communicate(timeout=120)[0] for process in (first, second)]
        for process, (_, words), out in zip((first, second), pair, ended, strict=True):
            assert process.returncode in (0, 1, 2, 3, 4, 75, -signal.SIGKILL), (what, words, out)
            assert "Traceback" not in out, (what, words, out)
        for user in play.users:
            until(lambda user=user: not processes_of(user), f"end of the workers of {user.name}")
        freed = any(words[0] in FREEING for _, words in pair)
        keeps = [found for _, words in pair if (found := kept(words))]
        play.model.check(what, freed=freed, at_once=True, keep=min(keeps, default=None))
        answer = play.host.t3("run")  # which ends what was interrupted
        assert answer.code in (0, 1), (what, answer)
        play.model.check(f"{what}, and the next run", freed=freed)
    tell(
        f"races: {count} pairs of commands, {kills} of them with a kill, "
        f"{play.model.sealed} snapshots sealed, {play.model.gone} let go: "
        f"{dict(sorted(play.counts.items()))}"
    )
