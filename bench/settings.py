"""What a run measures, from the environment. README.md lists the variables."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
# What a run leaves behind besides the report; ignored by git.
OUT = BENCH / ".out"
PARTS = ("load", "speed", "shared", "gap", "busy", "cancel", "pool", "trace", "endurance")
QUICK_PARTS = ("load", "speed", "gap", "cancel")


@dataclass(frozen=True)
class Settings:
    model: str
    prompts: str | None
    rounds: int
    threads: int
    quick: bool
    parts: tuple[str, ...]
    trace_requests: int
    seed: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many requests come at once."""
        return (16,) if self.quick else (16, 32, 64)

    @property
    def turns(self) -> int:
        """How often a round measures the systems that are to be equal within
        some percent."""
        return 1 if self.quick else 3

    @property
    def folder(self) -> Path:
        """Where results and report go: a quick run must not replace the report."""
        return OUT / "quick" if self.quick else OUT

    def described(self) -> dict[str, Any]:
        """What the report tells of them."""
        return asdict(self) | {"model": Path(self.model).name, "turns": self.turns}


def cache() -> Path:
    """The folder for tools and peers."""
    return Path(os.environ["MULLAMA_CACHE"]) / "bench"


def from_environment() -> Settings:
    env = os.environ
    quick = env.get("QUICK", "") not in ("", "0")
    parts = tuple(env["PARTS"].split(",")) if env.get("PARTS") else QUICK_PARTS if quick else PARTS
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"PARTS names {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return Settings(
        model=env.get("MODEL") or env["MULLAMA_TEST_MODEL"],
        prompts=env.get("PROMPTS") or None,
        rounds=int(env.get("MULLAMA_BENCH_ROUNDS") or (1 if quick else 5)),
        threads=int(env.get("THREADS") or len(os.sched_getaffinity(0))),
        quick=quick,
        parts=parts,
        trace_requests=int(env.get("TRACE_REQUESTS") or 200),
        seed=int(env.get("SEED") or 1),
    )
