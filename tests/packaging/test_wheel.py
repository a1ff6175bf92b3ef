"""The wheel that `make wheel` puts into dist/."""

import email
import zipfile
from pathlib import Path

import pytest
from machine import ROOT, generate_with_python


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_one_wheel_serves_every_python_from_3_10_on(wheel: Path) -> None:
    name, _version, python, abi, _platform = wheel.stem.split("-")
    assert (name, python, abi) == ("mullama", "cp310", "abi3")


def test_types_and_licences_are_inside(names: list[str]) -> None:
    assert "mullama/py.typed" in names
    assert "mullama/_mullama.pyi" in names
    for licence in ("LICENSE-MIT", "LICENSE-APACHE", "LICENSE-LLAMA-CPP"):
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names), f"no {licence} in {names}"


def test_every_module_of_the_package_is_inside(names: list[str]) -> None:
    source = ROOT / "bindings/python/python"
    for module in [*source.rglob("*.py"), *source.rglob("*.pyi")]:
        assert module.relative_to(source).as_posix() in names


def test_nothing_else_is_inside(names: list[str]) -> None:
    binary = [name for name in names if Path(name).suffix in {".so", ".pyd", ".dll", ".dylib", ".node", ".a", ".o"}]
    native = [name for name in binary if not name.startswith("mullama/backends/")]
    assert native in (["mullama/_mullama.abi3.so"], ["mullama/_mullama.pyd"])
    strays = [
        name
        for name in names
        if not name.startswith(("mullama/", "mullama-")) or Path(name).suffix in {".pyc", ".rs", ".gguf"}
    ]
    assert strays == []


def test_the_metadata_says_what_it_needs(wheel: Path, names: list[str]) -> None:
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    fields = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    assert fields["Name"] == "mullama"
    assert fields["Requires-Python"] == ">=3.10"
    assert fields["License-Expression"] == "MIT OR Apache-2.0"
    assert fields.get_all("Requires-Dist") is None


def test_it_generates_in_an_empty_environment_without_rust(
    wheel_python: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    python, env = wheel_python
    generate_with_python(python, tmp_path / "elsewhere", env)
