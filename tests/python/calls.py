"""The calls of conformance cases, on `mullama` and on `mullama.sync`."""

import asyncio
import concurrent.futures
import dataclasses
import functools
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import mullama
import mullama.sync
from conftest import SOON, find_model, tiny_model_program
from expectations import mismatch


class Asyncio:
    """`mullama`."""

    names: Any = mullama

    def can(self, _case: dict[str, Any]) -> bool:
        """Whether it has all that the case calls."""
        return True

    async def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """A call that is awaited."""
        return await function(*arguments, **options)

    async def result(self, task: Any) -> Any:
        return await task

    def items(self, stream: Any) -> AsyncIterator[mullama.TokenData]:
        iterator: AsyncIterator[mullama.TokenData] = aiter(stream)
        return iterator


class Blocking:
    """`mullama.sync`, each call in a thread of its own."""

    names: Any = mullama.sync

    def __init__(self) -> None:
        # More than any case has calls at once.
        self.threads = concurrent.futures.ThreadPoolExecutor(64)

    def can(self, case: dict[str, Any]) -> bool:
        return all(step["call"] != "cancel" for step in case["steps"])

    async def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        call = functools.partial(function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def result(self, task: Any) -> Any:
        return await self.run(task.result)

    async def items(self, stream: Any) -> AsyncIterator[mullama.TokenData]:
        while (item := await self.run(next, stream, None)) is not None:
            yield item


Api = Asyncio | Blocking
APIS: dict[str, Api] = {"asyncio": Asyncio(), "sync": Blocking()}


class World:
    """The models and files that the cases use, made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, tuple[Api, Any]] = {}

    def file(self, name: str) -> str:
        """The path of a file of that kind."""
        path = self.folder / f"{name}.gguf"
        if name == "demo":
            return str(find_model())
        if name == "directory":
            path.mkdir(exist_ok=True)
        elif name != "missing" and not path.exists():
            kind = {"tiny": "llama"}.get(name, name.removeprefix("tiny-"))
            subprocess.run([tiny_model_program(), kind, path], check=True)
        return str(path)

    def scene(self, api: Api, case: dict[str, Any]) -> "Scene":
        return Scene(self, api, case)

    async def model(self, api: Api, case: dict[str, Any]) -> Any:
        """A shared model, or one of the case's own."""
        key = json.dumps([type(api).__name__, case["model"], case["load"]], sort_keys=True)
        own = case.get("own_model", False)
        if own or key not in self.models:
            model = await api.run(api.names.Model.load, self.file(case["model"]), **case["load"])
            if own:
                return model
            self.models[key] = (api, model)
        return self.models[key][1]

    async def close(self) -> None:
        await asyncio.gather(*(api.run(model.close) for api, model in self.models.values()))


class Scene:
    """A case's model and the objects that it has made, which go with it."""

    def __init__(self, world: World, api: Api, case: dict[str, Any]) -> None:
        self.world, self.api, self.case = world, api, case
        self.objects: dict[str, Any] = {}
        self.started: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def __aenter__(self) -> "Scene":
        self.model = await self.world.model(self.api, self.case)
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self.started.values():
            call.cancel()
        for thing in self.objects.values():
            if isinstance(thing, mullama.TaskManager | mullama.sync.TaskManager):
                await self.api.run(thing.stop_all)
            elif hasattr(thing, "close"):
                await self.api.run(thing.close)
        if self.case.get("own_model", False):
            await self.api.run(self.model.close)

    def path(self, name: str) -> Path:
        """Of a file that the case makes."""
        return self.world.folder / f"{name}.state"

    async def outcome(self, name: str, arguments: Any) -> dict[str, Any]:
        try:
            return {"result": plain(await self.call(name, arguments))}
        except mullama.MullamaError as error:
            return {"error": plain(error)}

    async def call(self, name: str, arguments: Any) -> Any:
        for prefix, calls in (("context_", self.context_call), ("pool_", self.pool_call), ("task", self.task_call)):
            if name.startswith(prefix):
                return await calls(name, arguments)
        run, model = self.api.run, self.model
        match name:
            case "generate":
                return await run(model.generate_with, arguments["prompt"], **options(arguments))
            case "generate_text":
                return await run(model.generate, arguments["prompt"], arguments["max_tokens"])
            case "stream":
                return await self.read(model.generate_stream(arguments["prompt"], **options(arguments)), arguments)
            case "tokenize" | "detokenize":
                return await run(getattr(model, name), **arguments)
            case "load":
                path = self.world.file(arguments["file"])
                loaded = await run(self.api.names.Model.load, path, **options(arguments))
                info = await run(loaded.info)
                await run(loaded.close)
                return info
            case "info" | "metadata" | "is_ready" | "placement" | "close":
                return await run(getattr(model, name))
            case "metrics":
                return model.metrics()
            case "backends" | "devices":
                return getattr(self.api.names, name)()
            case "runtime_metrics":
                return await run(self.api.names.runtime().metrics)
            case "metrics_text":
                return await run(self.api.names.runtime().metrics_text)
            case "lease_generate":
                lease = self.objects[arguments["on"]]
                return await run(lease.generate_with, arguments["prompt"], **options(arguments))
            case "lease_release":
                return self.objects[arguments["on"]].release()
            case "value":
                return arguments["of"]
            case "alter_file":
                return alter(self.path(arguments["file"]), arguments)
        return await self.run_calls(name, arguments)

    async def run_calls(self, name: str, arguments: Any) -> Any:
        """The calls that make other calls."""
        match name:
            case "together":
                calls = (self.outcome(call["call"], call.get("with", {})) for call in arguments["calls"])
                return await asyncio.gather(*calls)
            case "start":
                call = arguments["run"]
                task = asyncio.create_task(self.outcome(call["call"], call.get("with", {})))
                self.started[arguments["as"]] = task
                return None
            case "finish":
                return await asyncio.wait_for(self.started.pop(arguments["on"]), SOON)
            case "cancel":
                task = self.started.pop(arguments["on"])
                task.cancel()
                await asyncio.wait([task])
                return None
            case "until":
                call = arguments["run"]
                deadline = time.monotonic() + SOON
                while True:
                    found = plain(await self.call(call["call"], call.get("with", {})))
                    if mismatch(arguments["is"], found) is None:
                        return found
                    assert time.monotonic() < deadline, f"{found} did not become {arguments['is']}"
                    await asyncio.sleep(0.001)
        raise ValueError(f"unknown call {name}")

    async def context_call(self, name: str, arguments: Any) -> Any:
        run = self.api.run
        if name == "context_create":
            context = await run(self.api.names.Context.create, self.model, **options(arguments))
            self.objects[arguments["as"]] = context
            return None
        context = self.objects[arguments["on"]]
        match name:
            case "context_generate":
                return await self.read(context.generate_stream(arguments["tokens"], **options(arguments)), arguments)
            case "context_batch":
                return await run(context.process_batch, [batch_of(rows) for rows in arguments["batches"]])
            case "context_save":
                return await run(context.save_state, self.path(arguments["file"]))
            case "context_load":
                return await run(context.load_state, self.path(arguments["file"]))
            case "context_truncate":
                return await run(context.truncate, arguments["n"])
            case "context_clear" | "context_close":
                return await run(getattr(context, name.removeprefix("context_")))
            case "context_n_past":
                return context.n_past()
        raise ValueError(f"unknown call {name}")

    async def pool_call(self, name: str, arguments: Any) -> Any:
        run = self.api.run
        if name == "pool_create":
            path = self.world.file(self.case["model"])
            pool = await run(self.api.names.ModelPool.create, path, arguments["size"], **options(arguments))
            self.objects[arguments["as"]] = pool
            return None
        pool = self.objects[arguments["on"]]
        match name:
            case "pool_acquire":
                self.objects[arguments["as"]] = await run(pool.acquire, arguments.get("timeout_ms"))
                return None
            case "pool_try_acquire":
                lease = pool.try_acquire()
                if lease is not None:
                    self.objects[arguments["as"]] = lease
                return lease is not None
            case "pool_stats":
                return pool.stats()
            case "pool_resize":
                return await run(pool.resize, arguments["size"])
            case "pool_close":
                return await run(pool.close)
        raise ValueError(f"unknown call {name}")

    async def task_call(self, name: str, arguments: Any) -> Any:
        if name == "tasks_create":
            self.objects[arguments["as"]] = self.api.names.TaskManager()
            return None
        thing = self.objects[arguments["on"]]
        match name:
            case "tasks_worker":
                return thing.spawn_generation_worker()
            case "tasks_collector":
                given = {key: arguments[key] for key in ("interval_ms", "capacity") if key in arguments}
                return thing.spawn_metrics_collector(**given)
            case "tasks_submit":
                task = thing.submit(self.model, arguments["prompt"], **options(arguments))
                self.objects[arguments["as"]] = task
                return None
            case "tasks_status":
                return thing.worker_status()
            case "tasks_history":
                return thing.metrics_history()
            case "tasks_stop":
                return await self.api.run(thing.stop_all)
            case "task_result":
                return await self.api.result(thing)
            case "task_cancel":
                return thing.cancel()
        raise ValueError(f"unknown call {name}")

    async def read(self, stream: Any, arguments: Any) -> dict[str, Any]:
        items: list[mullama.TokenData] = []
        try:
            async for item in self.api.items(stream):
                items.append(item)
                if len(items) == arguments.get("cancel_after"):
                    stream.cancel()
        except mullama.MullamaError as error:
            error.__dict__["streamed"] = "".join(item.text for item in items)
            raise
        return {
            "items": items,
            "text": "".join(item.text for item in items),
            "tokens": [item.token_id for item in items],
            **{name: getattr(stream, name) for name in ("usage", "finish_reason", "stop_string", "seed")},
        }


def options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments; `logit_bias` as Python has it."""
    given: dict[str, Any] = dict(arguments.get("options", {}))
    if isinstance(given.get("logit_bias"), list):
        given["logit_bias"] = {token: bias for token, bias in given["logit_bias"]}
    return given


def batch_of(rows: list[dict[str, Any]]) -> mullama.Batch:
    batch = mullama.Batch()
    for row in rows:
        if "seq_id" in row:
            batch.add_sequence(**row)
        else:
            batch.add(**row)
    return batch


def alter(path: Path, arguments: dict[str, Any]) -> None:
    """Cuts a file, or inverts one of its bytes."""
    content = bytearray(path.read_bytes())
    if "keep" in arguments:
        del content[arguments["keep"] :]
    if "at" in arguments:
        content[arguments["at"]] ^= 0xFF
    path.write_bytes(content)


def plain(value: Any) -> Any:
    """Results and errors as plain dicts and lists."""
    if isinstance(value, mullama.MullamaError):
        return {"code": value.code, "message": str(value), **vars(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
