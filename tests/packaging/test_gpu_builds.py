"""Backends for GPUs are chosen when a package is built. No toolchain of one is
at hand, so what is tested is that each choice reaches llama.cpp's build."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machine import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import gpu_backends
import with_tools

BACKENDS = ["cuda", "metal", "vulkan", "rocm", "opencl", "mkl"]


def metadata(*arguments: str) -> dict[str, Any]:
    """Of this platform alone: crates of others were never fetched."""
    host = with_tools.rust_host() or ""
    command = ["cargo", "metadata", "--format-version", "1", "--offline", "--filter-platform", host, *arguments]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_the_known_backends_are_those_of_the_issue_in_every_crate() -> None:
    assert gpu_backends.known() == BACKENDS
    packages = {package["name"]: package["features"] for package in metadata("--no-deps")["packages"]}
    for backend in BACKENDS:
        assert packages["mullama"][backend] == [f"llama-cpp-sys-2/{backend}"]
    for binding in ("mullama-node", "mullama-python"):
        assert packages[binding] == {name: [f"mullama/{name}"] for name in [*BACKENDS, "dynamic-backends"]}


@pytest.mark.parametrize("crate", ["core", "bindings/node", "bindings/python"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_of_a_crate_reaches_the_build_of_llama_cpp(backend: str, crate: str) -> None:
    def features_of_the_build(*arguments: str) -> set[str]:
        nodes = metadata("--manifest-path", f"{crate}/Cargo.toml", *arguments)["resolve"]["nodes"]
        (node,) = [node for node in nodes if "llama-cpp-sys-2@" in node["id"]]
        return set(node["features"])

    assert features_of_the_build() & set(BACKENDS) == set()
    assert features_of_the_build("--features", backend) & set(BACKENDS) == {backend}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("cuda", ["cuda"]),
        ("cuda,vulkan", ["cuda", "vulkan"]),
        (" cuda , vulkan ", ["cuda", "vulkan"]),
        (["cuda", "vulkan,cuda"], ["cuda", "vulkan"]),
    ],
)
def test_a_choice_is_one_name_or_several(choice: str | list[str], names: list[str]) -> None:
    assert gpu_backends.chosen(choice) == names


@pytest.mark.parametrize("choice", ["", "cud", "CUDA", "cuda,", "cuda vulkan", "cuda;vulkan", [""]])
def test_an_unknown_backend_is_refused_with_a_list(choice: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"^unknown GPU backend '.*'; use one or more of cuda, metal, .*mkl$"):
        gpu_backends.chosen(choice)


class Maturin(ModuleType):
    """What the build backend uses of maturin; keeps the settings it got."""

    def __init__(self) -> None:
        super().__init__("maturin")
        self.settings: Any = None

    def get_maturin_pep517_args(self, settings: Any) -> list[str]:
        return (settings.get("maturin.build-args") or settings.get("build-args") or "").split()

    def keep(self, _folder: str, settings: Any, *_: object) -> str:
        self.settings = settings
        return "kept"

    def __getattr__(self, _name: str) -> Any:
        return self.keep


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The PEP 517 backend, over a maturin that only keeps what it is told."""
    monkeypatch.setitem(sys.modules, "maturin", Maturin())
    monkeypatch.delitem(sys.modules, "mullama_build", raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "bindings/python/build_backend"))
    for name in ("PATH", "LIBCLANG_PATH", "BINDGEN_EXTRA_CLANG_ARGS", "CMAKE_GENERATOR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    import mullama_build

    return mullama_build


HOOKS = ["build_wheel", "build_editable", "prepare_metadata_for_build_wheel", "prepare_metadata_for_build_editable"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("settings", "passed_on"),
    [
        (None, None),
        ({"build-args": "--locked"}, {"build-args": "--locked"}),
        ({"gpu": "vulkan"}, {"build-args": ["--features", "vulkan"]}),
        ({"gpu": "cuda,opencl"}, {"build-args": ["--features", "cuda,opencl"]}),
        ({"gpu": ["cuda", "opencl"]}, {"build-args": ["--features", "cuda,opencl"]}),
        ({"gpu": "mkl", "build-args": "--locked"}, {"build-args": ["--locked", "--features", "mkl"]}),
        ({"gpu": "mkl", "maturin.build-args": "--locked"}, {"build-args": ["--locked", "--features", "mkl"]}),
    ],
)
def test_pip_hands_the_setting_to_maturin(backend: Any, hook: str, settings: Any, passed_on: Any) -> None:
    getattr(backend, hook)("folder", settings)
    assert sys.modules["maturin"].settings == passed_on


@pytest.mark.parametrize("hook", HOOKS)
def test_pip_is_told_of_an_unknown_backend_before_anything_is_built(backend: Any, hook: str) -> None:
    with pytest.raises(SystemExit, match=r"gpu: unknown GPU backend 'cud'; use one or more of cuda, metal"):
        getattr(backend, hook)("folder", {"gpu": "cud"})
    assert sys.modules["maturin"].settings is None


def npm_build(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the build script with a napi CLI that prints its arguments."""
    napi = tmp_path / "napi"
    napi.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    napi.chmod(0o755)
    script = f'PATH="$1:$PATH" && export PATH && shift && exec node {ROOT / "bindings/node/scripts/build.mjs"} "$@"'
    command = ["sh", "-c", script, "sh", str(tmp_path), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        ([], []),
        (["--gpu=vulkan"], ["--features", "vulkan"]),
        (["--gpu", "vulkan,cuda", "--verbose"], ["--verbose", "--features", "vulkan,cuda"]),
        (["--gpu=vulkan", "--gpu=cuda"], ["--features", "vulkan,cuda"]),
        (["--features", "vulkan"], ["--features", "vulkan"]),
        (["--all-variants"], ["--features", "dynamic-backends"]),
    ],
)
def test_npm_hands_the_option_to_the_napi_cli(tmp_path: Path, arguments: list[str], added: list[str]) -> None:
    out = f"--out={tmp_path / 'out'}"
    plain = npm_build(tmp_path, out).stdout.splitlines()
    assert plain[0] == "build"
    assert npm_build(tmp_path, out, *arguments).stdout.splitlines() == [*plain, *added]


@pytest.mark.parametrize("arguments", [["--gpu=cud"], ["--gpu=cuda,"], ["--gpu"]])
def test_npm_refuses_an_unknown_backend(tmp_path: Path, arguments: list[str]) -> None:
    done = npm_build(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "use one or more of cuda, metal, vulkan, rocm, opencl, mkl" in done.stderr


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would run; it is not run."""
    return subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_make_hands_gpu_to_every_package() -> None:
    assert "--features cuda,vulkan" in make("wheel", "GPU=cuda,vulkan").stdout
    assert "--features cuda,vulkan" in make("python", "GPU=cuda,vulkan").stdout
    assert "npm run build -- --gpu=cuda,vulkan" in make("node", "GPU=cuda,vulkan").stdout
    assert "--gpu=cuda,vulkan" in make("npm", "GPU=cuda,vulkan").stdout
    for target in ("python", "node"):
        assert not {"--features", "--gpu", "--all-variants"} & set(make(target).stdout.split())


def test_make_gives_a_package_either_all_variants_or_backends_for_gpus() -> None:
    assert "--features dynamic-backends" in make("wheel").stdout
    assert "--all-variants" in make("npm").stdout
    for target in ("wheel", "npm"):
        assert not {"dynamic-backends", "--all-variants"} & set(make(target, "GPU=vulkan").stdout.split())


def test_make_refuses_an_unknown_backend() -> None:
    done = make("wheel", "GPU=cud")
    assert done.returncode != 0
    assert "unknown GPU backend 'cud'; use one or more of cuda, metal" in done.stderr
