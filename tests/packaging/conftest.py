"""The packages in dist/, and what they are installed into."""

import json
from pathlib import Path

import pytest
from machine import BUILD_TOOLS, DIST, RUST, Project, empty_venv, environment, manifest, run


@pytest.fixture(scope="session")
def wheel() -> Path:
    wheels = list(DIST.glob("*.whl"))
    assert len(wheels) == 1, f"dist/ holds {wheels}; run `make wheel`"
    return wheels[0]


@pytest.fixture(scope="session")
def tarballs() -> dict[str, Path]:
    """The npm tarballs: `main` and `platform`."""
    files = sorted(DIST.glob("*.tgz"), key=lambda file: manifest(file)["name"] != "mullama")
    assert len(files) == 2, f"dist/ holds {files}; run `make npm`"
    return {"main": files[0], "platform": files[1]}


@pytest.fixture(scope="session")
def wheel_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The Python of a virtual environment that has the wheel and nothing
    else, and an environment without Rust and build tools to run it in."""
    folder = tmp_path_factory.mktemp("wheel")
    env = environment(folder / "path", without=BUILD_TOOLS + RUST)
    python = empty_venv(folder / "venv")
    run(python, "-m", "pip", "install", "--no-index", wheel, cwd=folder, env=env)
    return python, env


@pytest.fixture(scope="session")
def node_project(tarballs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An empty project with the tarballs installed, without a network and
    without Rust and build tools."""
    folder = tmp_path_factory.mktemp("npm")
    env = environment(folder / "path", without=BUILD_TOOLS + RUST, npm_config_cache=str(folder / "cache"))
    project = folder / "project"
    project.mkdir()
    (project / "package.json").write_text(json.dumps({"name": "empty", "private": True}))
    run("npm", "install", "--offline", "--no-audit", "--no-fund", *tarballs.values(), cwd=project, env=env)
    return Project(project, env)
