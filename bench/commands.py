"""What the steps before a run share: commands, and what is said meanwhile."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.settings import ROOT


def say(line: str) -> None:
    print(f"==> {line}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] = os.environ) -> str:
    """Runs a command that must succeed, and gives what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout
