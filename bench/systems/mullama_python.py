"""mullama from Python: `python -m bench.systems.mullama_python JOB.json`."""

from typing import Any

import mullama

from bench.systems import host


class Mullama:
    def __init__(self, model: mullama.Model) -> None:
        self.model = model

    async def run(self, request: host.Request, answer: host.Answer) -> None:
        # Prefixes are always shared; the texts see to it that there are none.
        options: Any = {"temperature": 0.0, "ignore_eos": True}
        async with self.model.generate_stream(request.prompt, request.tokens, **options) as stream:
            async for _ in stream:
                answer.arrived()

    async def close(self) -> None:
        await self.model.close()


async def load(job: dict[str, Any]) -> host.Host:
    model = await mullama.Model.load(
        job["model"],
        max_concurrent=job["at_once"],
        context_size=job["context"],
        threads=job["threads"],
        prompt_lookup=job["prompt_lookup"],
        timeout_ms=0,
    )
    return Mullama(model)


if __name__ == "__main__":
    host.main(load)
