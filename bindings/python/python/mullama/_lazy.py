"""Names of a package that are imported when they are first used (PEP 562).

What a program does not use costs it nothing: `from mullama import Model` takes
a fraction of what importing asyncio alone does.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attributes(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """A `__getattr__` for the package. `homes` has the modules, as seen from
    the package, and what each has of the package's names. A module of the
    package whose name has no `_` is itself one of them."""
    home_of = {name: home for home, names in homes.items() for name in names}
    modules = {home[1:]: home for home in homes if home[1].isalpha()}

    def get(name: str) -> object:
        module = sys.modules[package]
        home = home_of.get(name) or modules.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        from importlib import import_module

        found = import_module(home, package)
        value = getattr(found, name) if name in home_of else found
        # The next one who asks finds it there.
        setattr(module, name, value)
        return value

    return get
