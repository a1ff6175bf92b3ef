"""The scripts that the Makefile and the build backend stand on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import ROOT, environment

sys.path.insert(0, str(ROOT / "scripts"))

import check_repository
import cmake_state
import fetch_model


def llama_build(target: Path, tool: Path) -> Path:
    """A build folder as llama.cpp's build leaves it, configured with `tool`."""
    build = target / "release/build/llama-cpp-sys-2-0123456789abcdef/out/build"
    build.mkdir(parents=True)
    (build / "CMakeCache.txt").write_text(
        f"CMAKE_MAKE_PROGRAM:FILEPATH={tool}\nCMAKE_COMMAND:INTERNAL={sys.executable}\n"
    )
    (build / "build.ninja").touch()
    return build


def test_a_cmake_cache_that_names_a_lost_tool_is_dropped(tmp_path: Path) -> None:
    build = llama_build(tmp_path, tmp_path / "gone/ninja")
    cmake_state.forget_lost_tools(tmp_path)
    assert not (build / "CMakeCache.txt").exists()


def test_a_cmake_cache_that_includes_a_file_of_a_lost_checkout_is_dropped(tmp_path: Path) -> None:
    cache = llama_build(tmp_path, Path(sys.executable)) / "CMakeCache.txt"
    cache.write_text(f"{cache.read_text()}CMAKE_PROJECT_INCLUDE:UNINITIALIZED={tmp_path / 'gone/backends.cmake'}\n")
    cmake_state.forget_lost_tools(tmp_path)
    assert not cache.exists()


def test_a_cmake_cache_whose_tools_exist_stays(tmp_path: Path) -> None:
    build = llama_build(tmp_path, Path(sys.executable))
    cmake_state.forget_lost_tools(tmp_path)
    assert (build / "CMakeCache.txt").exists()


@pytest.mark.parametrize("has_cache", [True, False])
def test_a_changed_include_has_the_build_run_again(tmp_path: Path, has_cache: bool) -> None:
    includes = tmp_path / "cmake"
    includes.mkdir()
    for name in ("one.cmake", "two.h"):
        (includes / name).write_text("one")
        os.utime(includes / name, (0, 0))
    build = llama_build(tmp_path, Path(sys.executable))
    crate = build.parent.parent
    ran = crate.parent.parent / ".fingerprint" / crate.name / "run-build-script"
    library, other = (crate.parent.parent / f"deps/lib{name}-01.rlib" for name in ("llama_cpp_sys_2", "mullama"))
    for file in (ran, library, other):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for _ in range(2):
        cmake_state.build_again_after_change(tmp_path, includes)
        assert ran.exists()
        assert library.exists()
    (includes / "two.h").write_text("another")
    if not has_cache:
        (build / "CMakeCache.txt").unlink()
    cmake_state.build_again_after_change(tmp_path, includes)
    assert not ran.exists()
    assert not library.exists()
    assert other.exists()
    assert not (build / "CMakeCache.txt").exists()


def test_progress_counts_each_object_once(tmp_path: Path) -> None:
    build = llama_build(tmp_path, Path(sys.executable))
    assert cmake_state.compiled_files(tmp_path) is None
    plan = "".join(f"build src/{name}.o: CXX_COMPILER {name}.cpp\n" for name in "abc")
    (build / "build.ninja").write_text(f"{plan}build libllama.a: STATIC_LIBRARY src/a.o\n")
    built = "".join(f"0\t1\t2\tsrc/{name}.o\tf00\n" for name in ("a", "b", "a"))
    (build / ".ninja_log").write_text(f"# ninja log v7\n{built}0\t1\t2\tlibllama.a\tf00\n")
    assert cmake_state.compiled_files(tmp_path) == (2, 3)


def test_a_model_in_the_environment_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "my.gguf"
    monkeypatch.setenv("MULLAMA_TEST_MODEL", str(model))
    with pytest.raises(SystemExit, match=r"my\.gguf"):
        fetch_model.model_path()
    model.touch()
    assert fetch_model.model_path() == model


@pytest.mark.parametrize("tool", ["cargo", "c++", "node"])
def test_a_missing_tool_is_named_with_a_way_to_get_it(tool: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", ROOT / "scripts/check_machine.sh"],
        env=environment(tmp_path / "path", without=(tool,)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("missing: ")
    assert tool in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "breach"),
    [
        ("a.rs", "let x = unsafe { f() };", True),
        ("a.rs", '// unsafe\nlet x = "unsafe";\n#![deny(unsafe_code)]', False),
        ("package-lock.json", '{"packages": {"a": {"resolved": "https://a.example/a.tgz"}}}', True),
        ("package-lock.json", '{"packages": {"a": {"version": "1.0.0"}}}', False),
        ("a.md", "[a](missing.md)", True),
        ("a.md", "[a](a.md#part) [b](https://a.example/)", False),
    ],
)
def test_the_house_rules_see_a_breach(name: str, text: str, breach: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = [line for check in check_repository.CHECKS for line in check(tmp_path / name)]
    assert bool(found) == breach
