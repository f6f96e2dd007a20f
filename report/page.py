# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page: one HTML file, with its style inside and nothing from anywhere else."""

import math
import re
from collections import Counter
from datetime import datetime
from itertools import groupby
from pathlib import Path

import figures
from html_page import Element, element, join, name, table
from logs import Check, Matrix, Run, Scenario

SIGNS = {"pass": "✓", "differs": "≠", "FAIL": "✗", "-": "–"}
CLASSES = {"pass": "pass", "differs": "differs", "FAIL": "fail", "-": "none"}


def when(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC") if time else ""


def sign(passed: bool) -> Element:
    return element("span", "✓" if passed else "✗", class_="pass" if passed else "fail")


def count(passed: int, failed: int) -> Element:
    return join(f"{passed} passed", ", " if failed else None, failed and element("span", f"{failed} failed", class_="fail") or None)


def section(anchor: str, title: str, *content: object) -> Element:
    return element("section", element("h2", title, id=anchor), *content)


def folded(title: object, side: object, *content: object, open_: bool = False) -> Element:
    return element(
        "details",
        element("summary", title, " ", element("span", side, class_="count")),
        *content,
        open="open" if open_ else None,
    )


# ---- the top ----


def verdict(run: Run) -> Element:
    if run.totals is None:
        return element("p", "No test run has come to its end here.", class_="verdict other")
    passed, failed = run.totals
    left_out = [part for part in run.parts if part.passed is None]
    kind = "bad" if failed or run.failures else "other" if left_out else "good"
    words = f"{passed} passed, {failed} failed"
    if left_out:
        words += "; not in this run: " + ", ".join(part.title for part in left_out)
    return element("p", words, class_=f"verdict {kind}")


def parts(run: Run) -> Element:
    rows = []
    for part in run.parts:
        failed = ("number fail" if part.failed else "number", part.failed if part.failed is not None else "")
        of_this_run = part.passed is not None
        rows.append([
            part.title,
            ("number", part.passed if of_this_run else "–"),
            failed,
            ("number", f"{part.seconds} s" if of_this_run else ""),
            ("dim", join(when(part.when), " ", part.note) if part.when else "no log"),
        ])
    return table(["part", ("number", "passed"), ("number", "failed"), ("number", "took"), "log of"], rows)


def missing(run: Run) -> Element | None:
    if not run.missing:
        return None
    items = [element("li", what, " (", element("code", how), ")") for what, how in run.missing]
    return element("div", element("strong", "Not there:"), element("ul", *items), class_="notice", id="missing")


def failures(run: Run) -> Element:
    if not run.failures:
        words = "None." if run.totals else "None in the logs that are there."
        return section("failures", "What failed", element("p", words))
    shown = [
        element(
            "div",
            element("strong", failure.part, ": "),
            failure.what,
            element("pre", "\n".join(failure.more)) if failure.more else None,
            class_="failure",
        )
        for failure in run.failures
    ]
    return section("failures", "What failed", *shown)


# ---- C tests ----


def matrix_columns(matrices: list[Matrix]) -> list[tuple[int, str]]:
    """Which matrix, and which of its columns."""
    return [(index, column) for index, matrix in enumerate(matrices) for column in matrix.columns]


def in_column(states: Counter[str]) -> tuple[str, object]:
    """How many of a program's tests came to what."""
    passed = states["pass"] + states["differs"]
    if states["FAIL"]:
        return "cell fail", join(f"✗ {states['FAIL']}", element("br"), str(passed))
    return ("cell pass", str(passed)) if passed else ("cell none", "–")


def short(matrix: Matrix) -> str:
    if "valgrind" in matrix.about:
        return "valgrind"
    if "watch single domains" in matrix.about:
        return "newer"
    return ""


def c_tests(run: Run) -> Element:
    matrices = run.matrices
    columns = matrix_columns(matrices)
    heads = []
    for index, column in columns:
        above = short(matrices[index])
        heads.append(("cell", join(above, element("br") if above else None, column)))
    programs = list(dict.fromkeys(program for matrix in matrices for program in matrix.programs))
    if not programs:
        return section("c", "C tests", element("p", "There is no log of them."))
    shown, summary = [], []
    for program in programs:
        of_program = [matrix.programs.get(program, {}) for matrix in matrices]
        tests = list(dict.fromkeys(test for rows in of_program for test in rows))
        cells: Counter[str] = Counter()
        by_column: list[Counter[str]] = [Counter() for _ in columns]
        rows = []
        for test in tests:
            row: list[object] = [("mono", name(test))]
            for number, (index, column) in enumerate(columns):
                state = of_program[index].get(test, {}).get(column, "")
                cells[state] += 1
                by_column[number][state] += 1
                row.append((f"cell {CLASSES.get(state, 'none')}", SIGNS.get(state, "")))
            rows.append(row)
        summary.append([element("code", program), *[in_column(states) for states in by_column]])
        failed = cells["FAIL"]
        side = join(f"{len(tests)} tests, ", count(cells["pass"] + cells["differs"], failed))
        shown.append(folded(element("code", program), side, table(["test", *heads], rows, "matrix"), open_=bool(failed)))
    legend = element(
        "p",
        "Columns: ",
        element("b", "real"), ", Debian’s libxenlight alone; ",
        element("b", "alone"), ", the library without it; ",
        element("b", "beside"), ", the library preloaded over it. ",
        element("span", "✓", class_="pass"), " passed; ",
        element("span", "≠", class_="differs"), " passed with what was asserted for libxenlight, where the library differs on purpose; ",
        element("span", "✗", class_="fail"), " failed; – not run there.",
        class_="small",
    )
    about = [
        element("li", element("b", short(matrix) or "the first columns"), ": ", matrix.about)
        for matrix in matrices
    ]
    return section(
        "c", "C tests, test by column", legend, element("ul", *about, class_="small"), table(["program", *heads], summary, "matrix"),
        element("p", "Each program’s tests:"), *shown,
    )


# ---- the ABI ----


def abi(run: Run, root: Path) -> Element:
    compiled: dict[str, dict[tuple[str, str], bool]] = {}
    others: list[Check] = []
    for check in run.checks:
        match = re.fullmatch(r"(abi\.c|use\.c), (c99|c11|c\+\+17), (.*)", check.name)
        if check.group == "header" and match:
            compiled.setdefault(match[3], {})[match[1], match[2]] = check.passed
        elif check.group == "header":
            others.append(check)
    ways = sorted({way for row in compiled.values() for way in row})
    content: list[object] = []
    counts = figures.abi(root / "ctests/header/abi.def", root / "ctests/header/extensions.def")
    if counts:
        content.append(element(
            "p",
            f"The headers are held to {counts['TYPE']} types with size and alignment, {counts['FIELD']} fields with offset and "
            f"type, {counts['VALUE']} values and {counts['FUNC']} functions with their signatures: by compiling ",
            element("code", "abi.c"), " against Xen’s own headers and ours, and from Rust’s side by the tests of ",
            element("code", "layout"), ".",
        ))
    if compiled:
        rows = [
            [way, *[("cell " + ("pass" if ok else "fail"), "✓" if ok else "✗") if (ok := row.get(key)) is not None
                    else ("cell none", "–") for key in ways]]
            for way, row in compiled.items()
        ]
        content.append(table(["header", *[("cell", f"{source} {std}") for source, std in ways]], rows, "matrix"))
    else:
        content.append(element("p", "There is no log of it."))
    layout = [test for suite in run.suites if suite.name.startswith(("layout:", "header:")) for test in suite.tests]
    items = [element("li", sign(check.passed), " ", check.name) for check in others]
    items += [element("li", sign(outcome == "ok"), " ", name(test)) for test, outcome in layout]
    if items:
        content.append(element("ul", *items, class_="small"))
    return section("abi", "ABI", *content)


# ---- Rust tests, and what else there is ----


def rust(run: Run) -> Element:
    if not run.suites:
        return section("rust", "Rust tests", element("p", "There is no log of them."))
    shown = []
    for suite in run.suites:
        if not suite.tests:
            continue
        outcomes = Counter(outcome for _, outcome in suite.tests)
        rows = [
            [("cell " + {"ok": "pass", "FAILED": "fail"}.get(outcome, "none"), {"ok": "✓", "FAILED": "✗"}.get(outcome, "–")),
             ("mono", name(test))]
            for test, outcome in suite.tests
        ]
        side = count(outcomes["ok"], outcomes["FAILED"])
        shown.append(folded(element("code", suite.name), side, table(["", "test"], rows), open_=bool(outcomes["FAILED"])))
    return section("rust", "Rust tests", *shown)


def other_checks(run: Run) -> Element | None:
    groups: dict[str, list[Check]] = {}
    for check in run.checks:
        if check.group != "header":
            groups.setdefault(check.group, []).append(check)
    if not groups:
        return None
    shown = []
    for group, checks in groups.items():
        failed = sum(not check.passed for check in checks)
        items = [element("li", sign(check.passed), " ", check.name or "(no name)") for check in checks]
        side = count(len(checks) - failed, failed)
        shown.append(folded(group, side, element("ul", *items, class_="small"), open_=bool(failed)))
    return section("others", "Installation, examples, documents", *shown)


def trials(run: Run) -> Element:
    if not run.trials:
        return section("trials", "Trials", element("p", "There is no log of them."))
    shown = []
    for trial in run.trials:
        failed = sum(not check.passed for check in trial.checks)
        side = trial.skipped or \
            join(count(len(trial.checks) - failed, failed), f", {trial.seconds} s" if trial.seconds is not None else None)
        title = join(element("code", trial.name), f" ({trial.length}): ", trial.about)
        items = [element("li", sign(check.passed), " ", check.name) for check in trial.checks]
        measured = table(["figure", ("number", "measured")], [[what, ("number", value)] for what, value in trial.figures]) \
            if trial.figures else None
        shown.append(folded(title, side, measured, element("ul", *items, class_="small"), open_=bool(failed)))
    return section("trials", "Trials: what might break it, over and over", *shown)


# ---- real Xen ----


def percent(value: float) -> str:
    return f"{value:.2f}%"


def scenario_name(scenario: Scenario) -> str:
    return f"{scenario.release}, {scenario.name} {scenario.arguments}".strip()


def overview(scenarios: list[Scenario]) -> Element | None:
    """When each ran, one after the other, as scripts/test runs them."""
    timed = [scenario for scenario in scenarios if scenario.total]
    if not timed:
        return None
    whole = sum(scenario.total for scenario in timed)
    begin, rows = 0, []
    for scenario in timed:
        boot = min(scenario.boot or 0, scenario.total)
        left, width = 100 * begin / whole, 100 * scenario.total / whole
        inside = width * boot / scenario.total
        failed = " failed" if scenario.failed else ""
        rows += [
            element("span", scenario_name(scenario), class_="what"),
            element(
                "span",
                element("i", class_="boot", style=f"left:{percent(left)};width:{percent(inside)}"),
                element("i", class_="work" + failed, style=f"left:{percent(left + inside)};width:{percent(width - inside)}"),
                class_="track",
            ),
            element("span", f"{scenario.total} s", class_="number"),
        ]
        begin += scenario.total
    words = f"{len(timed)} machines, one after the other, in {whole} s: the boot in grey, the scenario in colour."
    return join(element("p", words, class_="small"), element("div", *rows, class_="run"))


def strip(scenario: Scenario) -> Element:
    whole = max(scenario.timeline[-1][0], 0.001)
    # Results come by the hundred at the end; what happened is what there is to see.
    marks = [
        element("i", class_={"fail": "failed"}.get(kind, kind), style=f"left:{percent(99.5 * time / whole)}")
        for time, kind, _ in scenario.timeline
        if kind != "pass"
    ]
    return element("div", *marks, class_="strip")


def without_crowds(entries: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Where many results come in a row, their number is said; they are listed elsewhere."""
    shown: list[tuple[float, str, str]] = []
    for kind, crowd in groupby(entries, key=lambda entry: entry[1]):
        group = list(crowd)
        if kind == "pass" and len(group) > 3:
            group = [(group[0][0], kind, f"{len(group)} results until {group[-1][0]:.3f} s")]
        shown += group
    return shown


def timeline(scenario: Scenario) -> Element:
    if not scenario.timeline:
        return element("p", "This run has left no times.", class_="small dim")
    digits = 3 if any(time % 1 for time, _, _ in scenario.timeline) else 0
    rows = [
        element("tr", element("td", f"{time:.{digits}f} s"), element("td", kind), element("td", what), class_=kind)
        for time, kind, what in without_crowds(scenario.timeline)
    ]
    return join(
        strip(scenario),
        element("div", element("table", element("tbody", *rows), class_="timeline"), class_="scroll", tabindex="0"),
    )


def real_xen(run: Run) -> Element:
    if not run.scenarios:
        return section("xen", "Real Xen", element("p", "There is no log of it."))
    shown = []
    for scenario in run.scenarios:
        passed, failed = scenario.passed, scenario.failed
        if passed is None:
            side: object = element("span", "did not come to its end", class_="fail")
        else:
            side = count(passed, failed or 0)
        if scenario.total:
            side = join(side, f", {scenario.total} s")
        results = None
        if scenario.checks:
            wrong = sum(not check.passed for check in scenario.checks)
            results = folded(
                "results", count(len(scenario.checks) - wrong, wrong),
                element("ul", *[element("li", sign(check.passed), " ", check.name) for check in scenario.checks], class_="small"),
                open_=bool(wrong),
            )
        by_itself = element("p", "Run by itself, not in the last test run.", class_="small dim") \
            if not scenario.in_the_log else None
        left = element("p", "What it has left is of ", when(scenario.when), ".", class_="small dim") if scenario.when else None
        shown.append(folded(
            join("Xen ", scenario_name(scenario)), side, by_itself, left, timeline(scenario), results,
            open_=bool(failed) or passed is None,
        ))
    return section("xen", "Real Xen: what happened when", overview(run.scenarios), element("h3", "Scenarios"), *shown)


# ---- costs ----

# The bars' scale is logarithmic, so that ten times as much and a tenth are equally far from the line.
LEAST, MOST = 0.0003, 10.0


def place(ratio: float) -> float:
    ratio = min(max(ratio, LEAST), MOST)
    return 100 * math.log(ratio / LEAST) / math.log(MOST / LEAST)


def times(ratio: float) -> str:
    if ratio < 0.995:
        factor = 1 / ratio
        return f"{factor:.0f}× fewer" if factor >= 10 else f"{factor:.2f}× fewer"
    return f"{ratio:.2f}×" + (" more" if ratio > 1.005 else "")


def bars(costs: list[tuple[str, float | None, float | None]]) -> Element:
    rows = []
    line = place(1.0)
    for about, alone, beside in costs:
        rows.append(element("span", about, class_="what"))
        for kind, ratio in (("alone", alone), ("beside", beside)):
            if ratio is None:
                rows += [element("span", class_=f"track {kind}"), element("span", "", class_="value")]
                continue
            at = place(ratio)
            left, width = min(at, line), max(abs(at - line), 0.4)
            rows += [
                element(
                    "span",
                    element("i", style=f"left:{percent(left)};width:{percent(width)}"),
                    element("b", style=f"left:{percent(line)}"),
                    class_=f"track {kind}",
                ),
                element("span", times(ratio), class_="value"),
            ]
        rows.append(element("span", class_="gap"))
    return element("div", *rows, class_="bars")


KEY = join(
    "Instructions over libxenlight’s, on a logarithmic scale; the line is as many; to the left of it, fewer. ",
    element("span", element("span", class_="key"), "alone", class_="whole"), " ",
    element("span", element("span", class_="key beside"), "beside libxenlight", class_="whole"),
)


def plot(svg: Path) -> Element | None:
    try:
        drawing = svg.read_text(encoding="utf-8")
    except OSError:
        return None
    drawing = drawing[drawing.index("<svg"):]
    return element("figure", Element(drawing), element("figcaption", "How it grows with the number of domains: ", element("code", "docs/bench.svg")))


def costs(root: Path) -> Element:
    docs = root / "docs"
    content: list[object] = []
    measured = figures.costs(docs / "bench.tsv")
    if measured:
        content += [
            element("h3", "On the simulated host"), element("p", KEY, class_="small"),
            bars([(cost.about, cost.alone, cost.beside) for cost in measured]),
        ]
    else:
        content.append(element("p", "There are no figures: docs/bench.tsv is not there (", element("code", "make bench"), ")."))
    content.append(plot(docs / "bench.svg"))
    on_xen = figures.phases(docs / "bench-xen.tsv")
    for release in dict.fromkeys(phase.release for phase in on_xen):
        of_release = [phase for phase in on_xen if phase.release == release and phase.instructions.get("real")]
        content += [
            element("h3", f"On real Xen {release}, a thousand domains"), element("p", KEY, class_="small"),
            bars([
                (phase.about, *[
                    phase.instructions[column] / phase.instructions["real"] if column in phase.instructions else None
                    for column in ("alone", "beside")
                ])
                for phase in of_release
            ]),
        ]
    if not on_xen:
        content.append(element("p", "There are no figures of real Xen: docs/bench-xen.tsv is not there (", element("code", "make bench-xen"), ")."))
    return section("costs", "What it costs", *content)


# ---- all of it ----


def page(run: Run, root: Path, version: str, now: datetime) -> str:
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    sections = [
        failures(run), c_tests(run), abi(run, root), rust(run), other_checks(run), trials(run), real_xen(run), costs(root),
    ]
    links = [
        element("a", words, href=f"#{anchor}")
        for anchor, words in [
            ("failures", "What failed"), ("c", "C tests"), ("abi", "ABI"), ("rust", "Rust tests"), ("others", "Installation, examples"),
            ("trials", "Trials"), ("xen", "Real Xen"), ("costs", "Costs"),
        ]
        if anchor != "others" or sections[4]
    ]
    body = element(
        "body",
        element("header",
            element("h1", "xlevent: what the tests say"),
            element("p", f"Version {version}; written {when(now)}" + (f"; tests of {when(run.when)}" if run.when else ""), class_="dim small"),
            verdict(run), parts(run), missing(run), element("nav", *links),
        ),
        element("main", *sections),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", "xlevent: what the tests say"),
        element("style", Element(style)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en", xmlns="http://www.w3.org/1999/xhtml") + "\n"
