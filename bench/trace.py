"""The mixed trace: what arrives when, from a seed. Pure.

Arrivals are those of a Poisson process. Lengths are drawn between their bounds
with a density that falls with a power of the length, as those of real traffic
do: most requests are short and a few are very long.
"""

import math
import random
from dataclasses import dataclass

PROMPT_TOKENS = (3, 2000)
ANSWER_TOKENS = (8, 256)
# Densities ~ length ** -1.5: the mean is the geometric mean of the bounds.
EXPONENT = 1.5
CANCELLED = 0.1
# A request that is cancelled is so after this many seconds at most.
LATEST_CANCELLATION = 2.0


@dataclass(frozen=True)
class Arrival:
    """One request of the trace."""

    at: float
    """When it comes, in mean gaps between arrivals: seconds, at one a second."""
    prompt_tokens: int
    answer_tokens: int
    cancel_after: float | None
    """Seconds after its arrival at which its caller gives up."""


def power_law(chance: float, low: int, high: int) -> int:
    """The length below which that share of them lie."""
    power = 1 - EXPONENT
    low_end, high_end = float(low) ** power, float(high) ** power
    return round(math.pow(low_end + chance * (high_end - low_end), 1 / power))


def arrivals(count: int, seed: int) -> list[Arrival]:
    """The first `count` requests of the trace of that seed. Exactly a tenth of
    them are cancelled, rounded down."""
    random_ = random.Random(seed)
    cancelled = set(random_.sample(range(count), int(count * CANCELLED)))
    now = 0.0
    trace = []
    for index in range(count):
        now += random_.expovariate(1.0)
        prompt, answer = (power_law(random_.random(), *bounds) for bounds in (PROMPT_TOKENS, ANSWER_TOKENS))
        after = random_.uniform(0, LATEST_CANCELLATION)
        trace.append(Arrival(now, prompt, answer, after if index in cancelled else None))
    return trace
