"""Runs native operations from asyncio: one `_Mailbox` for each event loop.

Everything here runs in the loop's own thread. The native side posts messages
from its threads and wakes the loop through a socket; it never touches a
Python object there.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

from . import _mullama

_PROGRESS, _RESULT = 0, 1

OnProgress = Callable[[float], object]


class _Mailbox:
    """Gives the messages of one loop's operations to those who wait.

    The loop holds it as the reader of its socket, and it does not hold the
    loop: it goes when the loop is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.native = _mullama.Mailbox()
        self.waiting: dict[int, tuple[asyncio.Future[Any], OnProgress | None]] = {}
        self.held_by_loop = True
        try:
            loop.add_reader(self.native.open_socket(), self._deliver)
        except NotImplementedError:
            self.held_by_loop = False
            self.native = _mullama.Mailbox()
            # The native side would keep a bound method, and so itself, alive.
            this = weakref.ref(self)
            self.native.call_instead(lambda: _deliver_to(this()))

    def _deliver(self) -> None:
        for key, kind, value in self.native.take():
            future, on_progress = self.waiting.get(key, (None, None))
            if future is None or future.done():
                continue
            if kind == _RESULT:
                future.set_result(value)
            elif kind != _PROGRESS:
                future.set_exception(value)
            elif on_progress is not None:
                _report(on_progress, value, future)


def _deliver_to(mailbox: _Mailbox | None) -> None:
    if mailbox is not None:
        mailbox._deliver()


def _report(on_progress: OnProgress, share: float, future: asyncio.Future[Any]) -> None:
    """Calls the callback; its exception becomes the operation's."""
    try:
        on_progress(share)
    except StopIteration as error:
        # A future can't hold this one.
        wrapped = RuntimeError("on_progress raised StopIteration")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise


class _Current(threading.local):
    """The mailbox of the loop that this thread ran last.

    Weak, so that a closed loop goes with its pending tasks, which stops their
    native work.
    """

    loop: Callable[[], asyncio.AbstractEventLoop | None] = staticmethod(lambda: None)
    mailbox: Callable[[], _Mailbox | None] = staticmethod(lambda: None)
    # Where the loop holds no reader, nobody else would hold the mailbox.
    kept: _Mailbox | None = None


_current = _Current()


def _mailbox_of(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    mailbox = _current.mailbox()
    if mailbox is None or _current.loop() is not loop:
        mailbox = _Mailbox(loop)
        _current.loop, _current.mailbox = weakref.ref(loop), weakref.ref(mailbox)
        _current.kept = None if mailbox.held_by_loop else mailbox
    return mailbox


async def run(operation: _mullama.Operation, on_progress: OnProgress | None = None) -> Any:
    """The operation's result. However the wait ends, the native work has
    ended or is being stopped afterwards."""
    loop = asyncio.get_running_loop()
    mailbox = _mailbox_of(loop)
    key = operation.start(mailbox.native)
    future: asyncio.Future[Any] = loop.create_future()
    mailbox.waiting[key] = (future, on_progress)
    try:
        return await future
    finally:
        del mailbox.waiting[key]
        operation.cancel()
