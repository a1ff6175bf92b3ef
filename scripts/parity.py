"""The parity of Rust, Node and Python: checks it, and writes docs/parity.md.

    python scripts/parity.py            fails where a language lacks something,
                                        or where the page is stale
    python scripts/parity.py --write    writes the page

With the Python of .venv, after `make python`: the table is derived from the
code (parity_surfaces.py). What is one concept, and what is lacking on purpose,
is said in parity_concepts.py; an exception that is no longer needed fails too.
"""

import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import parity_surfaces
from parity_concepts import COLUMNS, SPEC, Concept, Spec
from parity_surfaces import FUNCTIONS, Surface

PAGE = Path(__file__).resolve().parent.parent / "docs/parity.md"

HEAD = """# The same in three languages

Every concept has one name and one meaning in Rust, Node and Python; only the
casing is the language's own. Written by `scripts/parity.py` from the code; a
test fails when a language lacks what the others have. A number in brackets
stands where something is not there on purpose; the notes at the end say why.
"""

# What the members are that are no names.
PROTOCOLS = {
    "await": "its result",
    "iterate": "its tokens, one by one",
    "new": "a new one",
    "scope": "closed at the end of a block",
}

# The surface of each column: the crate is one.
SURFACES = {column: "rust" if column == "blocking" else column for column in COLUMNS}

# (concept, member) -> column -> spellings
Rows = dict[tuple[str, str], dict[str, list[str]]]


@dataclass
class Parity:
    """The table's rows, and what is wrong with them."""

    rows: Rows = field(default_factory=dict)
    notes: dict[tuple[str, str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_surfaces() -> dict[str, Surface]:
    import mullama
    import mullama.sync

    rust = parity_surfaces.rust()
    return {
        "rust": rust,
        "blocking": rust,
        "node": parity_surfaces.node(),
        "python": parity_surfaces.python(mullama),
        "sync": parity_surfaces.python(mullama.sync),
    }


def compare(surfaces: dict[str, Surface], spec: Spec = SPEC) -> Parity:
    """Puts what belongs together into rows and looks for gaps."""
    parity = Parity()
    columns_of: dict[str, tuple[str, ...]] = {}
    for group in spec.groups:
        for concept in group.concepts:
            columns_of[concept.name] = group.columns
            parity.rows.setdefault((concept.name, ""), {})
            for column, types in concept.types.items():
                for name in types:
                    add_type(parity, concept, column, name, surfaces[column], spec)
    parity.problems += unmapped(surfaces, spec)
    used: set[str] = set()
    for (concept_name, member), cells in parity.rows.items():
        for column in columns_of[concept_name]:
            if column not in cells:
                exception = find_exception(concept_name, member, column, spec.exceptions)
                if exception is None:
                    there = ", ".join(f"{COLUMNS[other]}: {cells[other][0]}" for other in cells)
                    where = f"{concept_name}.{member}" if member else concept_name
                    parity.problems.append(f"{COLUMNS[column]} lacks {where} ({there})")
                else:
                    pattern, _, reason = exception
                    used.add(f"{pattern} {column}")
                    parity.notes[concept_name, member, column] = reason
    for pattern, columns, _ in spec.exceptions:
        for column in columns.split():
            if f"{pattern} {column}" not in used:
                parity.problems.append(f"the exception '{pattern}' for {COLUMNS[column]} is not needed")
    return parity


def add_type(parity: Parity, concept: Concept, column: str, name: str, surface: Surface, spec: Spec) -> None:
    if name not in surface:
        parity.problems.append(f"{COLUMNS[column]} has no '{name}', which {concept.name} names")
        return
    shown, _, _ = name.partition(".")
    parity.rows[concept.name, ""].setdefault(column, []).append(shown)
    for member, spelling in surface[name].items():
        alias = spec.aliases.get(f"{SURFACES[column]} {name}.{member}", member)
        other, _, alias = alias.rpartition(".")
        cell = parity.rows.setdefault((other or concept.name, alias), {}).setdefault(column, [])
        spelling = f"{shown}::{spelling}" if other else spelling
        if spelling not in cell:
            cell.append(spelling)


def unmapped(surfaces: dict[str, Surface], spec: Spec) -> Iterator[str]:
    """Public types that are in no concept."""
    known: dict[str, set[str]] = {column: {FUNCTIONS} for column in spec.no_concept}
    for concept in (concept for group in spec.groups for concept in group.concepts):
        for column, types in concept.types.items():
            known[SURFACES[column]] |= set(types)
    for column, names in known.items():
        for name in sorted(set(surfaces[column]) - names - spec.no_concept[column]):
            yield f"{COLUMNS[column]} has '{name}', which is in no concept"
        for name in sorted(spec.no_concept[column] - set(surfaces[column])):
            yield f"{COLUMNS[column]} has no '{name}' any more"


def find_exception(
    concept: str, member: str, column: str, exceptions: tuple[tuple[str, str, str], ...]
) -> tuple[str, str, str] | None:
    """The exception for a cell. One for the concept itself holds for all of its members."""
    for exception in exceptions:
        pattern, columns, _ = exception
        names = (f"{concept}.{member}", concept) if member else (concept,)
        if column in columns.split() and any(fnmatch.fnmatchcase(name, pattern) for name in names):
            return exception
    return None


def page(parity: Parity) -> str:
    """docs/parity.md."""
    numbers: dict[str, int] = {}
    parts = [HEAD]
    for group in SPEC.groups:
        blocking = "blocking" in group.columns
        heads = [COLUMNS[column] if blocking else COLUMNS[column].split(",")[0] for column in group.columns]
        parts.append(f"## {group.title}\n")
        if group.text:
            parts.append(f"{group.text}\n")
        lines = [f"| | {' | '.join(heads)} |", f"|---{'|---' * len(group.columns)}|"]
        for concept in group.concepts:
            members = [member for name, member in parity.rows if name == concept.name]
            for member in sorted(members, key=lambda member: (member != "", members.index(member))):
                lines.append(row(parity, group.columns, concept, member, numbers))
        parts.append("\n".join(lines) + "\n")
    parts.append("## Not there on purpose\n")
    parts.append("\n".join(f"{number}. {reason}" for reason, number in numbers.items()) + "\n")
    return "\n".join(parts)


def row(parity: Parity, columns: tuple[str, ...], concept: Concept, member: str, numbers: dict[str, int]) -> str:
    cells = parity.rows[concept.name, member]
    shown = []
    for column in columns:
        if spellings := cells.get(column):
            shown.append(", ".join(f"`{spelling}`" for spelling in spellings if spelling))
        elif reason := parity.notes.get((concept.name, member, column)):
            shown.append(f"({numbers.setdefault(reason, len(numbers) + 1)})")
        else:
            shown.append("")
    title = PROTOCOLS.get(member, member) if member else f"**{concept.name}**"
    return f"| {title} | {' | '.join(shown)} |"


def main() -> int:
    parity = compare(read_surfaces())
    text = page(parity)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        parity.problems.append("docs/parity.md is stale; run: .venv/bin/python scripts/parity.py --write")
    for problem in parity.problems:
        print(problem, file=sys.stderr)
    return 1 if parity.problems else 0


if __name__ == "__main__":
    sys.exit(main())
