# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads what has been measured, docs/bench*.tsv, and what the ABI is held to. No HTML here."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    """An operation's instructions, in a process on libxenlight, and how many times that it takes on the library."""

    about: str
    real: int
    # Over `real`; `None` where it was not measured.
    alone: float | None
    beside: float | None


def rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError:
        return []


def number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


# What an operation of the benchmark is; one that isn't here goes by its name. N is put in.
OPERATIONS = {
    "release": "a domain ends that nobody watches, {} are watched",
    "release-hooks": "the same in a loop with hooks, {} are watched",
    "release-100": "100 such ends before the loop comes to it, {} watched",
    "release-100-contexts": "one such end, {} watched by 100 contexts of one process",
    "shutdown": "one domain is watched and shuts down",
    "mass-shutdown": "{} domains shut down at once",
    "one-by-one": "{} domains shut down one by one",
    "enable-start": "a generator enabled and disabled, first of {}",
    "enable-middle": "the same in the middle of {}",
    "enable-end": "the same at the end of {}",
    "check-mask": "event_check past {} events of another type",
    "check-predicate": "event_check with a predicate that refuses {} events",
    "poll-idle-x1000": "1000 times beforepoll and afterpoll with nothing to do, {} watched",
    "context": "a context opened and freed",
    "context-watch": "a context opened, given a domain to watch and freed",
    "xl-list": "xl list, with the library preloaded",
    "xl-list-empty": "the same with an empty library in its place",
}

PHASES = {
    "enable": "a generator for each, in a new context",
    "shutdown-burst": "all are shut down, in a burst",
    "destroy-burst": "the same are destroyed, in a burst",
    "enable-again": "a generator for each, one being there",
    "bystanders-burst": "others, unwatched, are destroyed, in a burst",
    "bystanders-each": "the same one by one",
    "bystanders-queued": "the same while the watchers are held up",
    "shutdown-each": "some are shut down, one by one",
    "destroy-each": "the same are destroyed, one by one",
    "destroy-alive-burst": "the rest are destroyed alive, in a burst",
    "last": "a single domain is shut down and destroyed",
}


def costs(tsv: Path) -> list[Cost]:
    """In the order of the file."""
    measured: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows(tsv):
        instructions = number(row.get("instructions"))
        if instructions is not None:
            measured.setdefault((row["operation"], row["N"]), {})[row["column"]] = instructions
    found = []
    for (operation, n), columns in measured.items():
        real = columns.get("real")
        if not real:
            continue
        ratio = {name: columns[name] / real for name in ("alone", "beside") if name in columns}
        text = OPERATIONS.get(operation, operation + ", N = {}").format(n)
        found.append(Cost(text, real, ratio.get("alone"), ratio.get("beside")))
    return found


@dataclass
class Phase:
    """A phase of the benchmark on real Xen: what each of the three programs has needed."""

    release: str
    about: str
    domains: int
    hypercalls: dict[str, int]
    instructions: dict[str, int]


def phases(tsv: Path) -> list[Phase]:
    found: dict[tuple[str, str], Phase] = {}
    for row in rows(tsv):
        key = row["release"], row["phase"]
        phase = found.setdefault(key, Phase(key[0], PHASES.get(key[1], key[1]), int(row["domains"]), {}, {}))
        for name in ("hypercalls", "instructions"):
            if (value := number(row.get(name))) is not None:
                getattr(phase, name)[row["column"]] = value
    return list(found.values())


def abi(*lists: Path) -> dict[str, int] | None:
    """How many types, fields, values and functions the headers are held to; `None` if a list is missing."""
    counts = dict.fromkeys(("TYPE", "FIELD", "VALUE", "FUNC"), 0)
    for path in lists:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            return None
        for kind in re.findall(r"^([A-Z]+)\(", text, re.MULTILINE):
            if kind in counts:
                counts[kind] += 1
    return counts
