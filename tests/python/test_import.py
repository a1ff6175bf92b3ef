"""What `import mullama` costs and what it gives."""

import json
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import mullama
import mullama.sync
import pytest

# What an import must not bring: each takes longer than all of mullama.
COSTLY = {"asyncio", "dataclasses", "inspect", "logging", "socket", "ssl", "threading", "typing"}
PACKAGES = [mullama, mullama.sync]


def in_a_new_process(code: str) -> Any:
    """What the code prints, as JSON, in an interpreter that has nothing else."""
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    "line", ["import mullama", "from mullama import Model", "import mullama.sync", "from mullama.sync import Model"]
)
def test_an_import_brings_no_costly_module(line: str) -> None:
    # Those that the interpreter's own start brings count for nothing.
    code = f"import sys, json; before = set(sys.modules); {line}; print(json.dumps(sorted(set(sys.modules) - before)))"
    assert not COSTLY & set(in_a_new_process(code))


def test_no_name_of_the_blocking_package_brings_asyncio() -> None:
    code = "import sys, json; from mullama.sync import *; print(json.dumps('asyncio' in sys.modules))"
    assert in_a_new_process(code) is False


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there_by_each_way_of_asking(package: ModuleType) -> None:
    name = package.__name__
    code = f"import json, {name}; print(json.dumps([dir({name}), [n for n in {name}.__all__ if hasattr({name}, n)]]))"
    listed, found = in_a_new_process(code)
    assert set(package.__all__) <= set(listed)
    assert found == package.__all__
    code = f"import json; from {name} import *; print(json.dumps(sorted(globals())))"
    assert set(package.__all__) <= set(in_a_new_process(code))
    described = pydoc.plain(pydoc.render_doc(package))
    for each in package.__all__:
        assert each in described


def test_a_name_is_one_object_wherever_it_is_asked_for() -> None:
    for package in PACKAGES:
        for each in package.__all__:
            value = getattr(package, each)
            assert value is getattr(package, each)
            if isinstance(value, type):
                assert getattr(import_module(value.__module__), each) is value
    shared = {"Batch", "backends", "configure_runtime", "devices"}
    assert {name for name in mullama.sync.__all__ if getattr(mullama.sync, name) is getattr(mullama, name)} == shared


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_ordinary_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Modle'") as caught:
        _ = package.Modle
    assert (caught.value.name, caught.value.obj) == ("Modle", package)
    with pytest.raises(ImportError, match="cannot import name 'Modle'"):
        exec(f"from {package.__name__} import Modle")


def test_every_module_can_be_imported_first() -> None:
    modules = [module.name for module in pkgutil.walk_packages(mullama.__path__, "mullama.")]
    assert "mullama._types" in modules
    for module in modules:
        assert in_a_new_process(f"import {module}; print('[]')") == []


def test_what_was_pickled_is_read_by_a_process_that_has_imported_nothing() -> None:
    error = mullama.QueueFullError("full", limit=3)
    for value, text in ((error, "QueueFullError('full')"), (mullama.Usage(1, 2, 3), repr(mullama.Usage(1, 2, 3)))):
        data = pickle.dumps(value)
        assert in_a_new_process(f"import json, pickle; print(json.dumps(repr(pickle.loads({data!r}))))") == text
