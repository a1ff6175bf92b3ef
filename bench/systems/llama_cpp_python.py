"""llama-cpp-python: `python -m bench.systems.llama_cpp_python JOB.json`.

A `Llama` serves one call at a time, so it takes part in the rows of one
request only. It counts a chunk a token.
"""

import asyncio
from typing import Any

import llama_cpp

from bench.systems import host


class LlamaCppPython:
    def __init__(self, llama: Any) -> None:
        self.llama = llama

    async def run(self, request: host.Request, answer: host.Answer) -> None:
        def stream() -> None:
            # It has no option to go on past the end of the text.
            options = {"max_tokens": request.tokens, "temperature": 0.0, "stream": True, "logit_bias": self.no_end}
            for _ in self.llama.create_completion(request.prompt, **options):
                answer.arrived()

        await asyncio.to_thread(stream)

    @property
    def no_end(self) -> dict[int, float]:
        return {self.llama.token_eos(): -100.0}

    async def close(self) -> None:
        self.llama.close()


async def load(job: dict[str, Any]) -> host.Host:
    return LlamaCppPython(
        llama_cpp.Llama(
            job["model"],
            n_ctx=job["context"],
            n_threads=job["threads"],
            n_threads_batch=job["threads"],
            verbose=False,
        )
    )


if __name__ == "__main__":
    host.main(load)
