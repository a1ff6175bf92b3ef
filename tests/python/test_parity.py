"""No language lacks what the others have, and docs/parity.md says so."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import parity
import parity_surfaces
from parity_concepts import Concept, Group, Spec

COLUMNS = ("rust", "node", "python")


def test_no_language_lacks_anything_and_the_page_is_current() -> None:
    done = subprocess.run([sys.executable, parity.__file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def problems(exceptions: tuple[tuple[str, str, str], ...] = (), **changed: parity_surfaces.Surface) -> list[str]:
    """Of three languages with a class `Cup` that has `fill`, but for what changed."""
    whole = {"Cup": {"fill": "fill"}}
    surfaces = {"blocking": {}, "sync": {}, **dict.fromkeys(COLUMNS, whole), **changed}
    concepts = (Concept("Cup", dict.fromkeys(COLUMNS, ("Cup",))),)
    spec = Spec((Group("", "", COLUMNS, concepts),), {}, exceptions, {column: set() for column in COLUMNS})
    return parity.compare(surfaces, spec).problems


def test_the_same_members_everywhere_are_no_problem() -> None:
    assert problems() == []


def test_a_member_of_one_language_is_missed_in_the_others() -> None:
    node = {"Cup": {"fill": "fill", "spill": "spill"}}
    assert problems(node=node) == ["Rust, async lacks Cup.spill (Node: spill)", "Python lacks Cup.spill (Node: spill)"]


def test_a_member_that_one_language_lacks_is_missed() -> None:
    assert problems(python={"Cup": {}}) == ["Python lacks Cup.fill (Rust, async: fill, Node: fill)"]


def test_a_type_that_is_in_no_concept_is_a_problem() -> None:
    assert problems(rust={"Cup": {"fill": "fill"}, "Jug": {}}) == ["Rust, async has 'Jug', which is in no concept"]


def test_a_concept_whose_type_is_gone_is_a_problem() -> None:
    assert "Node has no 'Cup', which Cup names" in problems(node={})


def test_an_exception_allows_a_gap_and_must_be_needed() -> None:
    exceptions = (("Cup.fill", "python", "it is always full"),)
    assert problems(exceptions, python={"Cup": {}}) == []
    assert problems(exceptions) == ["the exception 'Cup.fill' for Python is not needed"]


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("Batch", {"new", "add", "add_sequence", "length", "is_empty", "clear"}),
        ("Usage", {"prompt_tokens", "cached_tokens", "completion_tokens"}),
        ("DeviceKind", {"cpu", "gpu", "integrated_gpu", "accelerator"}),
    ],
)
def test_the_surfaces_hold_what_is_public(name: str, members: set[str]) -> None:
    """Were a reader to find nothing, no gap would be seen."""
    surfaces = parity.read_surfaces()
    rust = {"length" if member == "len" else member for member in surfaces["rust"][name]} - {"name"}
    assert rust == members
    assert set(surfaces["node"][name]) == members
    assert set(surfaces["python"][name]) == members
