"""`mullama.sync`: the same without `await`; threads and Ctrl-C."""

import asyncio
import inspect
import os
import signal
import threading
import time

import mullama
import mullama.sync
import pytest
from conftest import ENDLESS, SOON, engine_threads, idle

Model = mullama.sync.Model


def wait_until_idle(model: Model) -> None:
    asyncio.run(idle(model))  # type: ignore[arg-type]


def interrupt_soon(seconds: float = 0.3) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


TWINS = (
    "Context",
    "GenerationTask",
    "Model",
    "ModelPool",
    "MullamaRuntime",
    "PooledModel",
    "TaskManager",
    "TokenStream",
)


@pytest.mark.parametrize("name", TWINS)
def test_it_has_the_names_and_options_of_the_asynchronous_api(name: str) -> None:
    def names_of(cls: type) -> set[str]:
        return {renamed.get(name, name) for name in dir(cls) if not name.startswith("_")}

    # `await task` is `task.result()`.
    renamed = {"aclose": "close", "result": ""}
    cls, twin = getattr(mullama, name), getattr(mullama.sync, name)
    assert names_of(cls) | {""} == names_of(twin) | {""}
    for method in names_of(cls) - {""}:
        ours, theirs = getattr(twin, method), getattr(cls, "aclose" if not hasattr(cls, method) else method)
        if callable(ours):
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
            assert ours.__doc__
            assert theirs.__doc__


def test_it_has_every_class_and_function_that_waits() -> None:
    assert set(TWINS) <= set(mullama.sync.__all__)
    assert set(mullama.sync.__all__) - set(TWINS) == {"Batch", "backends", "configure_runtime", "devices", "runtime"}
    for name in mullama.sync.__all__:
        assert name in mullama.__all__


def test_everything_without_await(model_path: str) -> None:
    shares: list[float] = []
    with Model.load(model_path, threads=1, on_progress=shares.append) as model:
        assert shares[-1] == 1.0
        assert repr(model).startswith("<mullama.sync.Model '")
        assert isinstance(model.generate("Once", 3), str)
        result = model.generate_with("Once", max_tokens=5, ignore_eos=True, seed=1)
        tokens = list(model.generate_stream("Once", max_tokens=5, ignore_eos=True, seed=1))
        assert [token.token_id for token in tokens] == result.tokens
        assert model.detokenize(model.tokenize("Hello", add_bos=False)) == "Hello"
        assert model.info().architecture == model.metadata()["general.architecture"]
        assert model.is_ready()
    model.close()
    assert not model.is_ready()
    with pytest.raises(mullama.ClosedError):
        model.generate("Once")


def test_leaving_a_for_loop_stops_the_work(blocking: Model) -> None:
    stream = blocking.generate_stream("Once", **ENDLESS)
    for token in stream:
        if token.index == 2:
            break
    wait_until_idle(blocking)
    assert stream.finish_reason == "cancelled"
    with pytest.raises(KeyError):
        for _ in blocking.generate_stream("Once", **ENDLESS):
            raise KeyError
    wait_until_idle(blocking)


def test_a_with_block_stops_the_work(blocking: Model) -> None:
    with blocking.generate_stream("Once", **ENDLESS) as stream:
        next(stream)
    wait_until_idle(blocking)
    assert list(stream) == []
    stream.close()


@pytest.mark.parametrize("stage", ["decode", "load"])
def test_ctrl_c_interrupts_a_blocking_call_and_stops_its_work(blocking: Model, model_path: str, stage: str) -> None:
    engines = engine_threads()
    timer = interrupt_soon(0.3 if stage == "decode" else 0.1)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        if stage == "decode":
            blocking.generate("Once", **ENDLESS)
        else:
            while True:
                Model.load(model_path, threads=1)
                # Python drops an interrupt that falls into a finalizer.
                if not timer.is_alive():
                    timer = interrupt_soon(0.05)
    assert time.monotonic() - start < SOON
    timer.join()
    wait_until_idle(blocking)
    deadline = time.monotonic() + SOON
    while engine_threads() > engines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_in_a_stream_loses_no_token(blocking: Model) -> None:
    stream = blocking.generate_stream("Once upon", 150, temperature=0, ignore_eos=True)
    indices: list[int] = []
    interrupts = 0
    timer = interrupt_soon(0.2)
    while True:
        try:
            indices.append(next(stream).index)
        except KeyboardInterrupt:
            interrupts += 1
            timer.join()
            if interrupts < 3:
                timer = interrupt_soon(0.1)
        except StopIteration:
            break
    assert interrupts == 3
    # The handler may also run just before `append`: then that token was given.
    assert len(indices) >= 150 - interrupts
    assert indices == sorted(set(indices))


def test_an_exception_from_progress_ends_the_load(model_path: str) -> None:
    error = KeyError("mine")

    def fail(_share: float) -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        Model.load(model_path, threads=1, on_progress=fail)
    assert caught.value is error


def test_threads_share_a_model_and_its_decode_steps(blocking: Model) -> None:
    before = blocking.metrics()
    results: list[int] = []

    def work() -> None:
        results.append(len(blocking.generate_with("Once", 30, ignore_eos=True).tokens))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [30] * 4
    after = blocking.metrics()
    # One after the other would take 4 * 30 steps.
    assert after.steps - before.steps < 100


def test_the_gil_is_released_while_native_code_works(blocking: Model) -> None:
    """Another thread's Python code goes on during one blocking call."""
    gaps: list[float] = []
    done = threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=beat)
    thread.start()
    start = time.perf_counter()
    blocking.generate("word " * 200, 30, ignore_eos=True)
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    assert max(gaps) < seconds / 2
    assert len(gaps) > 50


def test_it_works_inside_a_running_event_loop(blocking: Model) -> None:
    async def main() -> str:
        return blocking.generate("Once", 2)

    assert isinstance(asyncio.run(main()), str)
