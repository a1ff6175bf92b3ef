"""A forked child is told so at once and ends cleanly; the parent goes on."""

import sys

import pytest
from conftest import run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

PARENT = """
import asyncio, multiprocessing, os, sys, warnings
import mullama, mullama.sync

# Python 3.12 and newer warn of every fork beside threads.
warnings.simplefilter("ignore", DeprecationWarning)

def refused(call):
    try:
        call()
    except mullama.UnsupportedError as error:
        assert error.code == "unsupported" and "fork" in str(error)
    else:
        raise AssertionError("the child was let in")

def child(model, stream):
    others()
    refused(lambda: model.generate("Once", 1))
    refused(lambda: model.metrics())
    refused(lambda: model.info())
    refused(lambda: model.generate_stream("Once"))
    refused(lambda: next(stream))
    refused(lambda: stream.usage)
    refused(lambda: model.close())
    refused(lambda: mullama.sync.Model.load(sys.argv[1], threads=1))
    refused(lambda: asyncio.run(mullama.Model.load(sys.argv[1], threads=1)))
    refused(mullama.backends)
    refused(mullama.devices)
    stream.cancel()
    assert "parent" in repr(model) and "parent" in repr(stream)

def others():
    for call in (context.n_past, context.clear, context.close, lambda: context.truncate(0), pool.stats, pool.acquire,
                 pool.try_acquire, lambda: pool.resize(1), pool.close, lease.release, lease.metrics,
                 lambda: lease.generate("Once"), runtime.is_running, runtime.metrics, runtime.metrics_text,
                 manager.worker_status, manager.spawn_generation_worker, manager.metrics_history, manager.stop_all,
                 manager.spawn_metrics_collector, lambda: manager.submit(model, "Once"), lambda: task.id, task.result,
                 lambda: manager.spawn_worker("b", print), lambda: context.process_batch([]),
                 lambda: context.generate_stream([1]), lambda: context.save_state("never"),
                 lambda: context.load_state("never"), mullama.runtime, mullama.sync.runtime, mullama.TaskManager,
                 mullama.sync.TaskManager, mullama.backends, mullama.devices, mullama.configure_runtime,
                 lambda: mullama.sync.Context.create(model), lambda: mullama.sync.ModelPool.create(sys.argv[1]),
                 lambda: asyncio.run(mullama.ModelPool.create(sys.argv[1])),
                 lambda: asyncio.run(mullama.Context.create(model))):
        refused(call)
    for thing in (context, pool, lease, runtime, manager, task):
        assert "of the parent" in repr(thing), repr(thing)
    task.cancel()
    # Mere data.
    batch.add_sequence(0, [1])
    assert len(batch) == 2

def wait_to_stop(stop):
    stop.wait()

model = mullama.sync.Model.load(sys.argv[1], threads=1)
context = mullama.sync.Context.create(model)
pool = mullama.sync.ModelPool.create(sys.argv[1], 2, threads=1)
lease = pool.acquire()
runtime = mullama.sync.runtime()
manager = mullama.sync.TaskManager()
manager.spawn_worker("a", wait_to_stop)
task = manager.submit(model, "Once", 3, ignore_eos=True)
batch = mullama.Batch()
batch.add_sequence(0, [1])
stream = model.generate_stream("Once", 100000, ignore_eos=True)
# A fork must find the stream with nothing ready, to see it refused.
for _ in range(3):
    next(stream)
stream._buffer.clear()
"""

FORK = """
pid = os.fork()
if pid == 0:
    child(model, stream)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""

MULTIPROCESSING = """
process = multiprocessing.get_context("fork").Process(target=child, args=(model, stream))
process.start()
process.join()
assert process.exitcode == 0, process.exitcode
"""

IN_A_LOOP = """
async def main():
    model = await mullama.Model.load(sys.argv[1], threads=1)
    task = asyncio.create_task(model.generate("Once", 100000, ignore_eos=True))
    await asyncio.sleep(0.1)
    pid = os.fork()
    if pid == 0:
        try:
            await model.generate("Once", 1)
        except mullama.UnsupportedError:
            os._exit(7)
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    task.cancel()
    assert len((await model.generate_with("Once", 3, ignore_eos=True)).tokens) == 3
asyncio.run(main())
"""

PARENT_GOES_ON = """
next(stream)
lease.release()
assert pool.stats().available == 2
manager.spawn_generation_worker()
assert len(task.result().tokens) == 3
manager.stop_all()
assert len(list(context.generate_stream([200], 3, ignore_eos=True))) == 3
assert len(model.generate_with("Once", 3, ignore_eos=True).tokens) == 3
sys.exit(3)
"""


@pytest.mark.parametrize("way", [FORK, MULTIPROCESSING, IN_A_LOOP], ids=["os.fork", "multiprocessing", "in a loop"])
def test_a_forked_child_is_refused_and_the_parent_goes_on(way: str, model_path: str) -> None:
    done = run_script(PARENT + way * 3 + PARENT_GOES_ON, model_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_process_that_only_imported_mullama_may_fork(model_path: str) -> None:
    code = """
import os, sys
import mullama, mullama.sync

# What is mere data, and what only says how things will be.
batch = mullama.Batch()
mullama.configure_runtime(worker_threads=2)
pid = os.fork()
assert mullama.sync.runtime().metrics().worker_threads == 2
model = mullama.sync.Model.load(sys.argv[1], threads=1)
assert len(model.generate_with("Once", 3, ignore_eos=True).tokens) == 3
if pid == 0:
    sys.exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 4)
"""
    done = run_script(code, model_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_process_that_asked_for_its_devices_may_fork_unless_one_is_a_gpu(model_path: str) -> None:
    """Drivers of GPUs don't survive a fork."""
    code = """
import os, sys
import mullama, mullama.sync

gpu = any(device.kind in ("gpu", "integrated_gpu") for device in mullama.devices())
pid = os.fork()
if pid == 0:
    try:
        mullama.sync.Model.load(sys.argv[1], threads=1).close()
    except mullama.UnsupportedError:
        sys.exit(7 if gpu else 8)
    sys.exit(8 if gpu else 7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run_script(code, model_path)
    assert (done.returncode, done.stderr) == (7, "")


def test_spawned_processes_work(model_path: str, tmp_path: object) -> None:
    script = f"{tmp_path}/spawn.py"
    with open(script, "w") as file:
        file.write("""
import multiprocessing, sys
import mullama.sync

def work(path):
    with mullama.sync.Model.load(path, threads=1) as model:
        return len(model.generate_with("Once", 3, ignore_eos=True).tokens)

if __name__ == "__main__":
    assert work(sys.argv[1]) == 3
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(work, [sys.argv[1]]) == [3]
""")
    done = run_script(
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
        script,
        model_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
