"""Where the results of native operations arrive: one `Mailbox` for each event
loop and thread.

Everything here runs in the loop's own thread. The native side posts messages
from its threads and wakes the loop through a socket; it never touches a
Python object there.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from . import _mullama

_PROGRESS, _RESULT = 0, 1

OnProgress = Callable[[float], object]


class Mailbox:
    """Gives the messages of one loop's operations to those who wait.

    The loop holds it as the reader of its socket, and it does not hold the
    loop: it goes when the loop is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.native = _mullama.Mailbox()
        self.waiting: dict[int, tuple[asyncio.Future[Any], OnProgress | None]] = {}
        # Taken from the native side, but not given to those who wait yet.
        self.letters: deque[tuple[int, int, Any]] = deque()
        # Tasks that nobody else has to hold. They go with the loop.
        self.tasks: set[asyncio.Task[Any]] = set()
        self.held_by_loop = True
        try:
            loop.add_reader(self.native.open_socket(), self._deliver)
        except NotImplementedError:
            self.held_by_loop = False
            self.native = _mullama.Mailbox()
            # The native side would keep a bound method, and so itself, alive.
            this = weakref.ref(self)
            self.native.call_instead(lambda: _deliver_to(this()))
        # When the operation that needs the mailbox is under way.
        loop.call_soon(_prepare)

    def begin(self, operation: _mullama.Operation, on_progress: OnProgress | None) -> tuple[int, asyncio.Future[Any]]:
        """Starts the operation; the future gets its result."""
        key = operation.start(self.native)
        return key, self.expect(key, on_progress)

    def expect(self, key: int, on_progress: OnProgress | None) -> asyncio.Future[Any]:
        """The future of the messages with the key. Who called takes it out of
        `waiting` again."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[key] = (future, on_progress)
        return future

    async def news(self, stream: _mullama.TokenStream) -> None:
        """Waits until the stream has something to take."""
        key = stream.listen(self.native)
        if key is None:
            return
        future = self.expect(key, None)
        try:
            await future
        except BaseException:
            stream.forget(key, self.native)
            raise
        finally:
            del self.waiting[key]

    def _deliver(self) -> None:
        self.letters.extend(self.native.take())
        try:
            while self.letters:
                self._give(*self.letters.popleft())
        finally:
            # Ctrl-C or an exit got out: the others still get theirs.
            if self.letters:
                asyncio.get_running_loop().call_soon(self._deliver)

    def _give(self, key: int, kind: int, value: Any) -> None:
        future, on_progress = self.waiting.get(key, (None, None))
        if future is None or future.done():
            return
        if kind == _RESULT:
            future.set_result(value)
        elif kind != _PROGRESS:
            future.set_exception(value)
        elif on_progress is not None:
            _report(on_progress, value, future)


def _deliver_to(mailbox: Mailbox | None) -> None:
    if mailbox is not None:
        mailbox._deliver()


def _prepare() -> None:
    """Imports what answers are made of while the first operation, most often
    the load of a model, is under way: the first token need not wait for it."""
    from . import _stream, _types  # noqa: F401


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


class _Mailboxes(threading.local):
    """This thread's mailboxes, one for each loop."""

    def __init__(self) -> None:
        # Weak, so that a closed loop goes with its pending tasks, which stops
        # their native work.
        self.by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Mailbox]]
        self.by_loop = weakref.WeakKeyDictionary()
        # The one that was asked for last: every wait for a token asks.
        self.last: Callable[[], Mailbox | None] = lambda: None
        # Where a loop holds no reader, nobody else would hold the mailbox.
        self.kept: dict[asyncio.AbstractEventLoop, Mailbox] = {}


_mailboxes = _Mailboxes()


def mailbox_here() -> Mailbox:
    """The mailbox of the running loop. Raises `RuntimeError` where none runs."""
    loop = asyncio.get_running_loop()
    last = _mailboxes.last()
    if last is not None and last.loop() is loop:
        return last
    known = _mailboxes.by_loop.get(loop)
    mailbox = known() if known is not None else None
    if mailbox is None:
        mailbox = Mailbox(loop)
        _mailboxes.by_loop[loop] = weakref.ref(mailbox)
        _mailboxes.kept = {other: kept for other, kept in _mailboxes.kept.items() if not other.is_closed()}
        if not mailbox.held_by_loop:
            _mailboxes.kept[loop] = mailbox
    _mailboxes.last = weakref.ref(mailbox)
    return mailbox
