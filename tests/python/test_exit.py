"""A process may end in the middle of anything: its exit code is as asked,
nothing is printed that it did not print itself, and it does not hang."""

import concurrent.futures
import subprocess
import sys

import pytest
from conftest import run_script

ASYNC = """
import asyncio, atexit, signal, sys, threading, time
import mullama

MANY = dict(max_tokens=100000, ignore_eos=True)

async def read(model):
    async for token in model.generate_stream("Once", **MANY):
        pass

async def busy(model):
    "Streams and calls, all generating."
    tasks = [asyncio.create_task(read(model)) for _ in range(4)]
    tasks += [asyncio.create_task(model.generate("Once", **MANY)) for _ in range(4)]
    while model.metrics().generated_tokens < 8:
        await asyncio.sleep(0.01)
    return tasks

async def load(**options):
    return await mullama.Model.load(sys.argv[1], threads=1, max_concurrent=4, timeout_ms=0, **options)
"""

SYNC = """
import atexit, sys, threading, time
import mullama.sync

model = mullama.sync.Model.load(sys.argv[1], threads=1, timeout_ms=0)

def read():
    for token in model.generate_stream("Once", 100000, ignore_eos=True):
        pass

def busy():
    threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    while model.metrics().generated_tokens < 8:
        time.sleep(0.01)
"""

# The end of a script, its exit code, and the last line of its error output.
CASES = {
    "sys_exit_while_streams_run": (
        ASYNC
        + """
async def main():
    tasks = await busy(await load())
    sys.exit(3)
asyncio.run(main())
""",
        3,
        "",
    ),
    "end_of_script_with_a_stream_half_read": (
        ASYNC
        + """
async def main():
    global model, stream
    model = await load()
    stream = model.generate_stream("Once", **MANY)
    await anext(stream)
asyncio.run(main())
""",
        0,
        "",
    ),
    "unhandled_exception": (
        ASYNC
        + """
async def main():
    tasks = await busy(await load())
    raise KeyError("mine")
asyncio.run(main())
""",
        1,
        "KeyError: 'mine'",
    ),
    "loop_closed_with_requests_running": (
        ASYNC
        + """
async def main():
    global tasks, model
    model = await load()
    tasks = await busy(model)
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)
loop.run_until_complete(main())
loop.close()
time.sleep(0.1)
sys.exit(4)
""",
        4,
        "",
    ),
    "loop_in_a_daemon_thread": (
        ASYNC
        + """
ready = threading.Event()
async def main():
    tasks = await busy(await load())
    ready.set()
    await asyncio.gather(*tasks)
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
ready.wait()
sys.exit(5)
""",
        5,
        "",
    ),
    "ctrl_c": (
        ASYNC
        + """
async def main():
    tasks = await busy(await load())
    signal.raise_signal(signal.SIGINT)
    await asyncio.gather(*tasks)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(6)
""",
        6,
        "",
    ),
    "while_loading": (
        ASYNC
        + """
async def main():
    loads = [asyncio.create_task(load(on_progress=lambda share: None)) for _ in range(3)]
    await asyncio.sleep(0.02)
    sys.exit(7)
asyncio.run(main())
""",
        7,
        "",
    ),
    "blocking_calls_in_daemon_threads": (SYNC + "busy()\nsys.exit(8)\n", 8, ""),
    "blocking_stream_half_read": (SYNC + "stream = model.generate_stream('Once', 10000)\nnext(stream)\n", 0, ""),
    "exit_handlers_that_run_later_may_still_call": (
        """
import atexit, sys

def late():
    try:
        model.generate("Once", 2)
    except mullama.MullamaError as error:
        print(error.code)

atexit.register(late)
"""
        + SYNC
        + "busy()\nsys.exit(9)\n",
        9,
        "",
    ),
    "leases_out_and_waits_for_more": (
        ASYNC
        + """
async def hold(pool):
    async with pool.acquire() as model:
        await model.generate("Once", **MANY)
async def main():
    global pool, tasks
    pool = await mullama.ModelPool.create(sys.argv[1], 2, threads=1, timeout_ms=0)
    tasks = [asyncio.create_task(hold(pool)) for _ in range(8)]
    while pool.stats().waiting < 6:
        await asyncio.sleep(0.01)
    sys.exit(11)
asyncio.run(main())
""",
        11,
        "",
    ),
    "contexts_in_the_middle_of_everything": (
        ASYNC
        + """
async def main():
    global contexts, streams, tasks
    model = await load()
    contexts = [await mullama.Context.create(model) for _ in range(4)]
    streams = [context.generate_stream([200], **MANY) for context in contexts]
    batch = mullama.Batch()
    batch.add_sequence(1, [200] * 1000)
    tasks = [asyncio.create_task(context.process_batch([batch])) for context in contexts]
    tasks.append(asyncio.create_task(contexts[0].save_state("never")))
    tasks.append(asyncio.create_task(mullama.Context.create(model)))
    await anext(streams[0])
    sys.exit(12)
asyncio.run(main())
""",
        12,
        "",
    ),
    "end_of_script_with_a_context_stream_half_read": (
        ASYNC
        + """
async def main():
    global model, stream
    model = await load()
    stream = (await mullama.Context.create(model)).generate_stream([200], **MANY)
    await anext(stream)
asyncio.run(main())
""",
        0,
        "",
    ),
    "workers_of_all_kinds": (
        ASYNC
        + """
async def work():
    await asyncio.Event().wait()
async def main():
    global manager, tasks
    model = await load()
    manager = mullama.TaskManager()
    tasks = [manager.submit(model, "Once", **MANY) for _ in range(4)]
    for _ in range(2):
        manager.spawn_generation_worker()
    manager.spawn_metrics_collector(interval_ms=1)
    manager.spawn_worker("mine", work)
    while model.metrics().generated_tokens < 8:
        await asyncio.sleep(0.01)
    sys.exit(13)
asyncio.run(main())
""",
        13,
        "",
    ),
    "blocking_waits_of_all_kinds_in_daemon_threads": (
        """
import sys, threading, time
import mullama.sync
from mullama.sync import Batch, Context, Model, ModelPool, TaskManager

def deaf(stop):
    time.sleep(1000)

model = Model.load(sys.argv[1], threads=1, timeout_ms=0)
pool = ModelPool.create(sys.argv[1], 1, threads=1)
lease = pool.acquire()
context = Context.create(model)
stream = context.generate_stream([200], 100000, ignore_eos=True)
batch = Batch()
batch.add_sequence(0, [200])
manager = TaskManager()
manager.spawn_worker("deaf", deaf)
other = TaskManager()
task = other.submit(model, "Once")
for wait in (pool.acquire, lambda: context.process_batch([batch]), task.result, manager.stop_all):
    threading.Thread(target=wait, daemon=True).start()
next(stream)
sys.exit(14)
""",
        14,
        "",
    ),
    "imported_and_not_used": ("import mullama, sys\nsys.exit(10)\n", 10, ""),
}


def run_case(name: str, model_path: str) -> None:
    code, status, last_line = CASES[name]
    done = run_script(code, model_path)
    seen = done.stderr.strip().splitlines()
    assert (done.returncode, seen[-1:]) == (status, [last_line] if last_line else []), done.stderr
    assert "fatal" not in done.stderr.lower()
    if name == "exit_handlers_that_run_later_may_still_call":
        assert done.stdout == "closed\n"
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("name", CASES)
def test_exit_in_the_middle_of_anything(name: str, model_path: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(run_case, [name] * 4, [model_path] * 4))


@pytest.mark.parametrize("name", ["sys_exit_while_streams_run", "blocking_calls_in_daemon_threads"])
def test_exit_while_streams_run_twenty_times(name: str, model_path: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(run_case, [name] * 20, [model_path] * 20))


def test_a_script_in_development_mode_warns_of_nothing(model_path: str) -> None:
    """No open sockets, no unawaited coroutines, nothing unraisable."""
    code = (
        ASYNC
        + """
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine
    async with await load() as model:
        await model.generate("Once", 3)
        async for _ in model.generate_stream("Once", 50):
            break
        task = asyncio.create_task(model.generate("Once", **MANY))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with await mullama.Context.create(model) as context:
            context.generate_stream([200], 5)
            await context.clear()
        async with mullama.TaskManager() as manager:
            manager.spawn_generation_worker()
            manager.spawn_worker("mine", asyncio.Event().wait)
            await manager.submit(model, "Once", 2)
    async with await mullama.ModelPool.create(sys.argv[1], 1, threads=1) as pool:
        async with pool.acquire():
            task = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await pool.acquire()
    await mullama.runtime().metrics()
asyncio.run(main())
"""
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, model_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
