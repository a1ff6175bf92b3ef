"""The results are dataclasses in everything that can be seen of one."""

import copy
import dataclasses
import inspect
import pickle
import typing
from typing import Any

import mullama
import pytest
from mullama import _types

RECORDS = [value for value in vars(_types).values() if dataclasses.is_dataclass(value) and isinstance(value, type)]


def twin_of(record: Any) -> Any:
    """What `dataclasses` makes of the same fields."""
    members = {"__annotations__": record.__annotations__, "__doc__": record.__doc__, "__module__": record.__module__}
    return dataclasses.dataclass(frozen=True, slots=True)(type(record.__name__, (), members))


def values_for(record: Any) -> list[Any]:
    return [f"value {number}" for number in range(len(record.__annotations__))]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_made_as_a_dataclass_is(record: Any) -> None:
    twin = twin_of(record)
    assert record.__match_args__ == twin.__match_args__ == record.__slots__ == twin.__slots__
    assert inspect.signature(record) == inspect.signature(twin)
    assert typing.get_type_hints(record) == typing.get_type_hints(twin)
    described = [(each.name, each.type, each.default, each.init, each.compare) for each in dataclasses.fields(record)]
    assert described == [
        (each.name, each.type, each.default, each.init, each.compare) for each in dataclasses.fields(twin)
    ]
    assert repr(record.__dataclass_params__) == repr(twin.__dataclass_params__)
    assert set(vars(twin)) - {"__firstlineno__", "__static_attributes__"} <= set(vars(record))
    names, values = list(record.__match_args__), values_for(record)
    assert record(*values) == record(**dict(zip(names, values, strict=True)))
    for wrong in (values[1:], [*values, "one more"]):
        with pytest.raises(TypeError) as ours:
            record(*wrong)
        with pytest.raises(TypeError) as theirs:
            twin(*wrong)
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_behaves_as_a_dataclass_does(record: Any) -> None:
    twin, values = twin_of(record), values_for(record)
    one, other = record(*values), twin(*values)
    assert repr(one) == repr(other)
    assert hash(one) == hash(other) == hash(record(*values))
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    assert dataclasses.astuple(one) == tuple(values)
    assert one != other
    assert one != tuple(values)
    assert one != record("another", *values[1:])
    assert not hasattr(one, "__dict__")
    for same in (copy.copy(one), copy.deepcopy(one), *(pickle.loads(pickle.dumps(one, n)) for n in range(2, 6))):
        assert same == one
        assert type(same) is record
    first = record.__match_args__[0]
    assert dataclasses.replace(one, **{first: 1}) == record(1, *values[1:])
    if hasattr(copy, "replace"):
        assert copy.replace(one, **{first: 1}) == record(1, *values[1:])
    for change in (lambda it, name: setattr(it, name, 1), delattr):
        with pytest.raises(dataclasses.FrozenInstanceError) as ours:
            change(one, first)
        with pytest.raises(dataclasses.FrozenInstanceError) as theirs:
            change(other, first)
        assert str(ours.value) == str(theirs.value)
        # Theirs is a TypeError about `super` in some versions of Python.
        with pytest.raises(dataclasses.FrozenInstanceError):
            change(one, "unknown")


def test_records_match_patterns() -> None:
    match mullama.Usage(1, 2, 3):
        case mullama.Usage(1, cached, completion_tokens=3):
            assert cached == 2
        case other:
            pytest.fail(f"{other} did not match")


def test_a_record_that_holds_a_list_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(mullama.Histogram([1.0], [1, 2], 3.0))


def test_a_record_can_be_derived_from() -> None:
    class Named(mullama.Usage):
        def __init__(self, name: str) -> None:
            super().__init__(1, 2, 3)
            self.name = name

    named = Named("mine")
    assert (named.name, repr(named)) == (
        "mine",
        f"{Named.__qualname__}(prompt_tokens=1, cached_tokens=2, completion_tokens=3)",
    )
    assert named != mullama.Usage(1, 2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        named.cached_tokens = 9  # type: ignore[misc]
    del named.name

    @dataclasses.dataclass(frozen=True)
    class Priced(mullama.Usage):
        price: float

    assert Priced(1, 2, 3, 0.5) == Priced(1, 2, 3, price=0.5)
    assert [each.name for each in dataclasses.fields(Priced)][-2:] == ["completion_tokens", "price"]
    assert mullama.Usage(1, 2, 3) == mullama.Usage(1, 2, 3)
