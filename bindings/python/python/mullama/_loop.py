"""Runs native operations from asyncio, which is imported by the first that is
run: where a loop runs, it is there.

Everything here runs in the loop's own thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from . import _mullama
    from ._mailbox import OnProgress


async def run(operation: _mullama.Operation, on_progress: OnProgress | None = None) -> Any:
    """The operation's result. However the wait ends, the native work has
    ended or is being stopped afterwards."""
    from ._mailbox import mailbox_here

    mailbox = mailbox_here()
    key, future = mailbox.begin(operation, on_progress)
    try:
        return await future
    finally:
        del mailbox.waiting[key]
        operation.cancel()
        # A result that came together with a cancellation goes now, and not
        # when the traceback goes: it may be a lease for which others wait.
        del future


def spawn(
    work: Coroutine[Any, Any, None], stopping: _mullama.Operation, ended: Callable[[asyncio.Task[None], bool], None]
) -> None:
    """Runs a coroutine as a task of the running loop, which holds it, and
    cancels it when the operation ends. `ended` is told the task, and whether it
    was to stop."""
    import asyncio

    from ._mailbox import mailbox_here

    mailbox = mailbox_here()
    key, stop = mailbox.begin(stopping, None)
    task = asyncio.get_running_loop().create_task(work)
    mailbox.tasks.add(task)

    def done(task: asyncio.Task[None]) -> None:
        mailbox.tasks.discard(task)
        del mailbox.waiting[key]
        stopping.cancel()
        ended(task, stop.done())

    task.add_done_callback(done)
    stop.add_done_callback(lambda _: task.cancel())
