# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads what a test run has left: the logs of scripts/test and xenvm/vm. No HTML here.

- Nothing is made up for what isn't there: a file that is missing, or in which nothing is found, is noted in `Run.missing`.
- A failure is any line that scripts/test counts as one; `Run.failures` has them all, so that a page that shows that list
  hides none.
- Text is kept as it was written, but for terminals' colours and characters that no document may have. Who puts it into a page
  must escape it.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

# The parts of scripts/test, by what they are called there.
PARTS = {
    "fmt": "Formatting",
    "clippy": "Clippy",
    "rust": "Rust tests",
    "c": "C programs",
    "around": "Around it",
    "newer": "Newer xenstored",
    "valgrind": "Under valgrind",
    "trials": "Trials",
    "vm": "Real Xen in QEMU",
}


@dataclass
class Part:
    """A part of scripts/test. `passed` is None if the last run's totals don't have it."""

    key: str
    title: str
    when: datetime | None = None
    passed: int | None = None
    failed: int | None = None
    seconds: int | None = None
    note: str = ""


@dataclass
class Failure:
    part: str
    what: str
    more: list[str] = field(default_factory=list)


@dataclass
class Check:
    """A line `PASS group: name` or `FAIL group: name: reason`."""

    group: str
    name: str
    passed: bool


@dataclass
class Matrix:
    """One run of ctests/run: program by program, a row for each test, a cell for each column."""

    about: str
    columns: list[str] = field(default_factory=list)
    programs: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)


@dataclass
class Suite:
    """Rust tests of one test program: name and outcome."""

    name: str
    tests: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Trial:
    name: str
    length: str
    about: str
    checks: list[Check] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    seconds: int | None = None
    # That it wasn't run, and why not.
    skipped: str | None = None


@dataclass
class Scenario:
    """A scenario on real Xen. Times in seconds: of the boot, and from the machine's start to its end."""

    release: str
    name: str
    arguments: str = ""
    boot: int | None = None
    total: int | None = None
    passed: int | None = None
    failed: int | None = None
    checks: list[Check] = field(default_factory=list)
    # Seconds since the scenario began, kind, text.
    timeline: list[tuple[float, str, str]] = field(default_factory=list)
    when: datetime | None = None
    # Of the last test run; else it was run by itself.
    in_the_log: bool = True


@dataclass
class Run:
    parts: list[Part] = field(default_factory=list)
    totals: tuple[int, int] | None = None
    when: datetime | None = None
    checks: list[Check] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    suites: list[Suite] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    scenarios: list[Scenario] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    # What isn't there, and how to get it.
    missing: list[tuple[str, str]] = field(default_factory=list)


COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")
FORBIDDEN = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: str) -> str:
    """Without terminals' colours, and without characters that no document may have."""
    return FORBIDDEN.sub("\ufffd", COLOURS.sub("", text.replace("\r", "")))


def lines_of(path: Path) -> list[str] | None:
    """The lines of a file, `None` if there is none. Logs may hold any bytes."""
    try:
        return plain(path.read_bytes().decode("utf-8", "replace")).split("\n")
    except OSError:
        return None


def modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    except OSError:
        return None


def check_of(line: str) -> Check | None:
    if not line.startswith(("PASS ", "FAIL ")):
        return None
    group, colon, name = line[5:].partition(": ")
    return Check(group, name if colon else "", line.startswith("PASS "))


def failures_of(part: str, lines: list[str]) -> list[Failure]:
    """As scripts/test finds them, each with the indented lines that follow it."""
    found: list[Failure] = []
    following = False
    for line in lines:
        if line.startswith("FAIL "):
            found.append(Failure(part, line[5:]))
            following = True
        elif re.fullmatch(r"test .* \.\.\. FAILED", line):
            found.append(Failure(part, line[5:-11]))
            following = False
        elif following and line.startswith("    "):
            found[-1].more.append(line[4:])
        else:
            following = False
    return found


TOTAL = re.compile(r"(?P<title>.+?) +(?P<passed>\d+) passed +(?P<failed>\d+) failed +(?P<seconds>\d+) s(?P<note>.*)")


def read_totals(run: Run, test: Path) -> None:
    run.parts = [Part(key, title, modified(test / f"{key}.log")) for key, title in PARTS.items()]
    lines = lines_of(test / "totals")
    if lines is None:
        run.missing.append(("the totals of a test run", "make test"))
        return
    run.when = modified(test / "totals")
    by_title = {part.title: part for part in run.parts}
    for line in lines:
        if match := TOTAL.fullmatch(line):
            part = by_title.get(match["title"])
            if part is None:
                # One that this page doesn't know is counted all the same.
                part = Part("", match["title"], run.when)
                run.parts.append(part)
            part.passed, part.failed = int(match["passed"]), int(match["failed"])
            part.seconds, part.note = int(match["seconds"]), match["note"].strip()
        elif match := re.fullmatch(r"(\d+) passed, (\d+) failed", line):
            run.totals = int(match[1]), int(match[2])
    if run.totals is None:
        run.missing.append(("the last line of the totals: the test run was broken off", "make test"))
    left_out = [part.title for part in run.parts if part.passed is None]
    if left_out:
        run.missing.append(("in the last test run: " + ", ".join(left_out), "make test"))


def read_matrices(lines: list[str], about: str) -> list[Matrix]:
    """The tables of ctests/run; each ends with a line of its totals, and begins, if it is new enough, with what it runs on."""
    matrices, matrix, program = [], Matrix(about), ""
    for line in lines:
        if line.startswith("-- C tests "):
            matrix.about = line.removeprefix("-- C tests ")
        elif re.fullmatch(r"ctests: \d+ passed, \d+ failed", line):
            if matrix.programs:
                matrices.append(matrix)
            matrix, program = Matrix(about), ""
        elif match := re.fullmatch(r"([a-z_0-9]+)((?: +(?:real|alone|beside))+)", line):
            program = match[1]
            matrix.columns += [name for name in match[2].split() if name not in matrix.columns]
            matrix.programs[program] = {}
            columns = match[2].split()
        elif program and (match := re.fullmatch(r"  (\w+)((?: +(?:pass|differs|FAIL|-))+)", line)):
            matrix.programs[program][match[1]] = dict(zip(columns, match[2].split()))
    if matrix.programs:
        matrix.about += " (broken off)"
        matrices.append(matrix)
    return matrices


def read_rust(run: Run, lines: list[str]) -> None:
    for line in lines:
        if match := re.match(r" +Running (.*?) \((.*)\)$", line):
            run.suites.append(Suite(f"{Path(match[2]).name.rpartition('-')[0]}: {match[1].removeprefix('unittests ')}"))
        elif match := re.match(r" +Doc-tests (.*)$", line):
            run.suites.append(Suite(f"{match[1]}: documentation"))
        elif match := re.fullmatch(r"test (.*) \.\.\. (ok|FAILED|ignored)(?:, .*)?", line):
            if not run.suites:
                run.suites.append(Suite("?"))
            run.suites[-1].tests.append((match[1], match[2]))


def read_trials(run: Run, lines: list[str]) -> None:
    for line in lines:
        if match := re.fullmatch(r"-- (\S+) \((short|long)\): (.*)", line):
            run.trials.append(Trial(match[1], match[2], match[3]))
        elif not run.trials:
            continue
        elif line.startswith(("PASS ", "FAIL ")):
            run.trials[-1].checks.append(Check(run.trials[-1].name, line[5:], line.startswith("PASS ")))
        elif line.startswith("skipped: "):
            run.trials[-1].skipped = line
        elif match := re.fullmatch(r"FIGURE (.*?): (.*)", line):
            run.trials[-1].figures.append((match[1], match[2]))
        elif match := re.fullmatch(r" +(\S+): (\d+) s", line):
            if match[1] == run.trials[-1].name:
                run.trials[-1].seconds = int(match[2])


CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d\.\d+) (.*)")


def clock(match: re.Match) -> float:
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def read_timeline(share: Path) -> list[tuple[float, str, str]]:
    """What the scenario has noted, and with it what a watcher has printed with the time of the same clock."""
    entries: list[tuple[float, str, str]] = []
    for line in lines_of(share / "timeline") or []:
        if match := CLOCK.fullmatch(line):
            kind, _, text = match[4].partition(" ")
            entries.append((clock(match), kind, text))
    # The watcher's own lines are in its file, or, in a scenario that tells a story, in what that has printed.
    watched = lines_of(share / "observers" / "watch")
    if watched is None:
        printed = lines_of(share / "output") or []
        watched = [line.strip().removeprefix("watch: ") for line in printed if line.strip().startswith("watch: ")]
    for line in watched:
        if match := CLOCK.fullmatch(line):
            entries.append((clock(match), "event", match[4]))
    # The machine may have run past midnight.
    if entries and max(entries)[0] - min(entries)[0] > 43200:
        entries = [(time + 86400 if time < 43200 else time, kind, text) for time, kind, text in entries]
    entries.sort(key=lambda entry: entry[0])
    begin = entries[0][0] if entries else 0
    entries = [(time - begin, kind, text) for time, kind, text in entries]
    # Scenarios that count the seconds themselves.
    if not entries:
        for line in lines_of(share / "output") or []:
            if match := re.fullmatch(r" +(\d+) s: (.*)", line):
                entries.append((float(match[1]), "phase", match[2]))
    return entries


def read_scenarios(run: Run, lines: list[str], machines: Path) -> None:
    scenario = None
    for line in lines:
        if match := re.fullmatch(r"-- Xen (\S+), scenario (\S+) ?(.*)", line):
            scenario = Scenario(match[1], match[2], match[3])
            run.scenarios.append(scenario)
        elif scenario is None:
            continue
        elif match := re.fullmatch(r"xenvm: dom0 is up after (\d+) s", line):
            scenario.boot = int(match[1])
        elif match := re.fullmatch(r"xenvm: finished in (\d+) s", line):
            scenario.total = int(match[1])
            # What comes after it belongs to nobody: checks of the image.
        elif match := re.fullmatch(r"(\d+) passed, (\d+) failed", line):
            if scenario.passed is None:
                scenario.passed, scenario.failed = int(match[1]), int(match[2])
        elif check := check_of(line):
            if check.group == "users":
                run.checks.append(check)
            else:
                scenario.checks.append(Check("", line[5:], check.passed))
    # A machine that has left something, and was run by itself.
    known = {(scenario.release, scenario.name) for scenario in run.scenarios}
    for share in sorted(machines.glob("*/*/share")):
        key = share.parts[-3], share.parts[-2]
        if key not in known and (share / "command").exists():
            alone = Scenario(*key, in_the_log=False)
            for line in lines_of(share / "output") or []:
                if match := re.fullmatch(r"(\d+) passed, (\d+) failed", line):
                    alone.passed, alone.failed = int(match[1]), int(match[2])
                elif check := check_of(line):
                    alone.checks.append(Check("", line[5:], check.passed))
            run.scenarios.append(alone)
            run.failures += failures_of(f"Xen {alone.release}, {alone.name}", lines_of(share / "output") or [])
    for scenario in run.scenarios:
        share = machines / scenario.release / scenario.name / "share"
        scenario.timeline = read_timeline(share)
        scenario.when = modified(share / "output")


def read(target: Path) -> Run:
    """All that is in a target directory of this repository."""
    run = Run()
    test = target / "test"
    read_totals(run, test)
    logs: dict[str, list[str]] = {}
    for part in PARTS:
        lines = lines_of(test / f"{part}.log")
        if lines is None:
            run.missing.append((f"the log of {PARTS[part]}", f"scripts/test {part}"))
        else:
            logs[part] = lines
            run.failures += failures_of(PARTS[part], lines)
    around = logs.get("c", []) + logs.get("around", [])
    run.checks += [check for line in around if not line.startswith("FAIL ctests:") and (check := check_of(line))]
    in_c = read_matrices(logs.get("c", []), "on the simulated host")
    in_newer = read_matrices(logs.get("newer", []), "with a newer xenstored")
    in_valgrind = read_matrices(logs.get("valgrind", []), "under valgrind")
    run.matrices = in_c + in_newer + in_valgrind
    read_rust(run, logs.get("rust", []))
    read_trials(run, logs.get("trials", []))
    read_scenarios(run, logs.get("vm", []), target / "xenvm")
    in_vm = [scenario for scenario in run.scenarios if scenario.in_the_log]
    for part, found, what in [
        ("rust", run.suites, "tests"),
        ("c", in_c, "tables of C tests"),
        ("newer", in_newer, "tables of C tests"),
        ("valgrind", in_valgrind, "tables of C tests"),
        ("trials", run.trials, "trials"),
        ("vm", in_vm, "scenarios"),
    ]:
        if part in logs and not found:
            run.missing.append((f"{what} in the log of {PARTS[part]}", f"scripts/test {part}"))
    # Formatting and clippy name none; a part that ended badly counts as one.
    for part in run.parts:
        if part.failed and not any(failure.part == part.title for failure in run.failures):
            what = f"{part.failed} failed {part.note}".strip()
            run.failures.append(Failure(part.title, what, logs.get(part.key, [])[-40:]))
    return run
