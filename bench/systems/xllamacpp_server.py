"""xllamacpp, llama.cpp's server in the process: `python -m
bench.systems.xllamacpp_server JOB.json`.

A call blocks, so each request has a thread of its own, as in any asyncio
program that calls it. A call can be ended from its callback, that is, once it
has a chunk. Where a request is to be cancelled, it therefore goes the server's
other way, through HTTP, whose connection can be closed at any time.
"""

import asyncio
import http.client
import json
import socket
import threading
from typing import Any
from urllib.parse import urlparse

import xllamacpp

from bench.systems import host


class XLlamaCpp:
    def __init__(self, server: Any) -> None:
        self.server = server
        address = urlparse(server.listening_address)
        self.address = address.hostname, address.port

    async def run(self, request: host.Request, answer: host.Answer) -> None:
        body = {
            "prompt": request.prompt,
            "max_tokens": request.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "cache_prompt": request.share,
        }
        if request.cancelled_later:
            await self.through_http(body, answer)
        else:
            await in_thread(lambda: self.server.handle_completions(body, lambda _: answer.arrived()))

    async def through_http(self, body: dict[str, Any], answer: host.Answer) -> None:
        connection = http.client.HTTPConnection(*self.address)
        connection.connect()
        line = connection.sock

        def stream() -> None:
            try:
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                for text in connection.getresponse():
                    if text.startswith(b"data: {"):
                        answer.arrived()
            except (OSError, ValueError, http.client.HTTPException):
                # What a reader sees of a connection that was shut down.
                if not answer.cancelled:
                    raise

        try:
            await in_thread(stream)
        except asyncio.CancelledError:
            answer.cancelled = True
            line.shutdown(socket.SHUT_RDWR)
            raise
        finally:
            if not answer.cancelled:
                connection.close()

    async def close(self) -> None:
        del self.server


async def in_thread(call: Any) -> None:
    """A thread a call: a pool of threads would be a queue before the server's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(failure: BaseException | None) -> None:
        if not done.done():
            done.set_exception(failure) if failure else done.set_result(None)

    def body() -> None:
        failure: BaseException | None = None
        try:
            call()
        except BaseException as raised:
            failure = raised
        loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=body, daemon=True).start()
    await done


async def load(job: dict[str, Any]) -> host.Host:
    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.n_parallel = job["at_once"]
    params.n_ctx = job["at_once"] * job["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    return XLlamaCpp(xllamacpp.Server(params))


if __name__ == "__main__":
    host.main(load)
