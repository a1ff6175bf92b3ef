"""What `dataclasses.dataclass(frozen=True, slots=True)` does, for a fraction of
its price: that module imports `inspect`, and compiles eight functions a class.

The classes are dataclasses to everybody who looks: `dataclasses.fields`,
`asdict` and `replace`, `copy`, `pickle`, `match` and comparisons work as ever.
What only `dataclasses` can make is made by it, when it is first asked for.
Fields have no defaults; that is all that the package needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal


def dataclass(*, frozen: Literal[True], slots: Literal[True]) -> Callable[[type], type]:
    """Decorates a class, which is made anew with slots for its annotations."""
    return _made


def _made(plain: type) -> type:
    names = tuple(plain.__annotations__)
    members: dict[str, Any] = {
        name: value for name, value in vars(plain).items() if name not in ("__dict__", "__weakref__")
    }
    members |= _methods(names)
    members |= {name: _OfDataclass(plain) for name in ("__dataclass_fields__", "__dataclass_params__")}
    members |= {"__init__": _Constructor(names), "__match_args__": names, "__slots__": names}
    made: Any = type(plain.__name__, plain.__bases__, members)

    # What a subclass adds is its own affair.
    def set_attribute(self: object, name: str, value: object) -> None:
        if type(self) is made or name in names:
            raise _frozen(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    def delete_attribute(self: object, name: str) -> None:
        if type(self) is made or name in names:
            raise _frozen(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    made.__setattr__ = set_attribute
    made.__delattr__ = delete_attribute
    return made  # type: ignore[no-any-return]


def _frozen(message: str) -> Exception:
    from dataclasses import FrozenInstanceError

    return FrozenInstanceError(message)


def _methods(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    """The methods that differ from class to class in nothing but the fields."""

    def values(self: object) -> list[Any]:
        # The state that `pickle` keeps.
        return [getattr(self, name) for name in names]

    def restore(self: object, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    def represent(self: object) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({fields})"

    def equal(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hashed(self: object) -> int:
        return hash(tuple(values(self)))

    def replace(self: Any, /, **changes: Any) -> Any:
        from dataclasses import replace

        return replace(self, **changes)

    methods: dict[str, Callable[..., Any]] = {
        "__eq__": equal,
        "__getstate__": values,
        "__hash__": hashed,
        "__repr__": represent,
        "__setstate__": restore,
    }
    # For `copy.replace`, which came with that version.
    return methods | ({"__replace__": replace} if sys.version_info >= (3, 13) else {})


class _Constructor:
    """`__init__`, compiled when it is first looked up."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner

    def __get__(self, instance: object, owner: type) -> Any:
        lines = [f"def __init__(self, {', '.join(self.names)}):"]
        lines += [f"    _set(self, {name!r}, {name})" for name in self.names]
        made: dict[str, Any] = {"_set": object.__setattr__, "__name__": self.owner.__module__}
        exec("\n".join(lines), made)
        function = made["__init__"]
        function.__qualname__ = f"{self.owner.__qualname__}.__init__"
        function.__annotations__ = {**self.owner.__annotations__, "return": None}
        self.owner.__init__ = function  # type: ignore[misc]
        return function.__get__(instance, owner)


class _OfDataclass:
    """A member that the module `dataclasses` makes, when it is first looked up:
    it makes a dataclass of a class with the same fields."""

    def __init__(self, plain: type) -> None:
        self.plain = plain

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        from dataclasses import dataclass

        # Of a new class each time: two threads may look it up at once.
        alike = {"__annotations__": self.plain.__annotations__, "__module__": self.plain.__module__}
        twin = type(self.plain.__name__, (), {**alike, "__doc__": self.plain.__doc__})
        value = getattr(dataclass(frozen=True, slots=True)(twin), self.name)
        setattr(self.owner, self.name, value)
        return value
