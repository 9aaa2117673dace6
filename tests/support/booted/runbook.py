"""A runbook is followed to the letter: each command that stands in it is run, and what it shows is what is seen.

Commands stand behind `$` in an indented or a fenced block; below each is what it prints, `...` for
any lines. A command that is to fail says so: `# exit code 1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.booted.machine import Machine

_BLOCK = re.compile(
    r"^(?:(?P<indent> {4}| {7})(?P<plain>\$ .+(?:\n(?P=indent).+)*)|(?P<fence> *)```\n(?P<fenced>[^`]+)\n(?P=fence)```)$",
    re.MULTILINE,
)
_SPELLED = str.maketrans("0123456789", "abcdefghij")
_MINUTES = 10 * 60  # for a command: a bump tries a version on the data of everybody


@dataclass(frozen=True)
class Step:
    """A command of the page, and the lines that are shown below it."""

    command: str
    shown: list[str]

    @property
    def code(self) -> int:
        """The exit code that is told of, or 0."""
        told = re.search(r"# exit code (\d+)$", self.command)
        return int(told[1]) if told else 0


@dataclass(frozen=True)
class Page:
    """A runbook; the steps below each of its headings."""

    text: str
    sections: dict[str, list[Step]]

    @classmethod
    def read(cls, path: Path) -> Page:
        """That of a file."""
        text = path.read_text()
        found = {}
        for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
            heading, _, below = part.partition("\n")
            if steps := _steps(below):
                found[heading] = steps
        return cls(text, found)

    def not_followed(self, tests: Path) -> set[str]:
        """The headings with commands that none of a file's tests follows."""
        text = tests.read_text()
        return {heading for heading in self.sections if f'follow("{heading}"' not in text}

    @property
    def commands(self) -> int:
        """How many there are, counted by the `$` that they stand behind."""
        return len(re.findall(r"^ *\$ ", self.text, re.MULTILINE))

    @property
    def dead_links(self) -> set[str]:
        """Those that lead to no heading of the page."""
        headings = re.findall(r"^#+ (.+)$", self.text, re.MULTILINE)
        places = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }
        return set(re.findall(r"\]\(#([^)]+)\)", self.text)) - places


def _steps(text: str) -> list[Step]:
    steps: list[Step] = []
    for block in _BLOCK.finditer(text):
        indent = block["indent"] or block["fence"] or ""
        for line in (block["plain"] or block["fenced"]).split("\n"):
            shown = line.removeprefix(indent)
            if shown.startswith("$ "):
                steps.append(Step(shown[2:], []))
            else:
                steps[-1].shown.append(shown)
    return steps


def plain(line: str) -> str:
    """The line without what is another one each time: names, times, counts, sizes, processes.
    Versions, levels and ports stay."""
    line = re.sub(
        r"\b(?:0\.0\.\d+|level \d+|port \d+)",
        lambda found: found[0].replace(".", "-").translate(_SPELLED),
        line,
    )
    line = re.sub(r"state-\d{8}T\d{6}Z", "NAME", line)
    line = re.sub(r"replaced-\w+-\w+", "ASIDE", line)
    line = re.sub(r"(\w+ [+-][\d,]+, )*\w+ [+-][\d,]+(, and \d+ more tables)?$", "CHANGES", line)
    line = re.sub(r"\(python3 -c .*\)", "(PROCESS)", line)
    line = re.sub(r"\d[\d,.:TZ-]*", "0", line)
    return re.sub(r"\b0 ?([smhd]|B|KiB|MiB)\b", "0", " ".join(line.split())).replace(
        "0 0 UTC", "0 UTC"
    )


def must_show(step: Step, seen: list[str]) -> None:
    """What was seen must be what is shown; `...` stands for any lines."""
    if not step.shown:
        return
    pattern = "".join(
        "(?:.*\n)*?" if line == "..." else re.escape(plain(line)) + "\n" for line in step.shown
    )
    text = "".join(f"{plain(line)}\n" for line in seen)
    assert re.fullmatch(pattern, text), "\n".join(
        [step.command, "is shown with:", *step.shown, "but was seen with:", *seen]
    )


@dataclass
class Reader:
    """Whoever follows a page, in a machine; remembers which headings were."""

    machine: Machine
    page: Page
    followed: set[str] = field(default_factory=set)

    def follow(
        self, heading: str, put: Mapping[str, str] | None = None, *, shown: bool = True
    ) -> list[str]:
        """Type each command below a heading, with other names and numbers `put` for those that stand there; all that was seen.

        With `shown`, what is seen is compared with the page.
        """
        lines: list[str] = []
        for step in self.page.sections[heading]:
            command = step.command
            for old, new in (put or {}).items():
                command = command.replace(old, new)
            done = self.machine.run("bash", "-c", command, check=False, timeout=_MINUTES)
            seen = done.text.splitlines()
            assert done.code == step.code, "\n".join([command, f"ended with {done.code}", *seen])
            if shown:
                must_show(step, seen)
            lines += seen
        self.followed.add(heading)
        return lines
