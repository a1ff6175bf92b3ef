//! Delivers results to an asyncio event loop: one [`Mailbox`] a loop.
//!
//! Any thread posts; the loop's own thread, woken through a socket that the
//! loop watches, takes everything that is there at once. A loop that can't
//! watch a socket (Windows' proactor loop) is woken by `call_soon_threadsafe`
//! from a blocking thread of the runtime instead.

use crate::{
    errors, gate,
    owned::Owned,
    runtime,
    sink::{Message, Sink},
};
use mullama::wakes::{self, EventLoop};
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use std::{
    mem,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

#[cfg(unix)]
use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
};

/// Messages on their way to a loop.
pub(crate) struct Letters {
    /// The loop's thread.
    thread: ThreadId,
    queue: Mutex<Vec<(u64, Message)>>,
    /// Whether the loop was woken and has not looked since. It keeps a burst
    /// of messages to one wake, and at most one byte in the socket.
    rung: AtomicBool,
    /// Whether a task will ring when the runtime has nothing else to do.
    ringing_soon: AtomicBool,
    bell: OnceLock<Bell>,
}

enum Bell {
    #[cfg(unix)]
    Socket(UnixStream),
    /// The loop and what it should call.
    Call(TaskLocals, Arc<Py<PyAny>>),
}

impl Letters {
    /// Takes a message of an operation. Results come from the runtime's tasks,
    /// and an engine's step may end many requests: the loop is woken when all
    /// tasks that are ready have run.
    pub(crate) fn post(self: &Arc<Self>, key: u64, message: Message) {
        let is_result = matches!(message, Message::Done(_));
        if !self.add(key, message) {
            return;
        }
        if !is_result {
            return self.wake();
        }
        if self.ringing_soon.swap(true, Ordering::AcqRel) {
            return;
        }
        let letters = self.clone();
        let ring = async move {
            tokio::task::yield_now().await;
            letters.ringing_soon.store(false, Ordering::Release);
            letters.wake();
        };
        match runtime() {
            Ok(runtime) => drop(runtime.tokio().spawn(ring)),
            Err(_) => self.wake(),
        }
    }

    /// Says that a stream has something to take.
    pub(crate) fn tell(self: &Arc<Self>, key: u64) {
        if self.add(key, Message::News) {
            let event_loop: Arc<dyn EventLoop> = self.clone();
            wakes::wake(&event_loop);
        }
    }

    /// Gives whether the loop may still hear of it.
    fn add(&self, key: u64, message: Message) -> bool {
        // A loop in a daemon thread must not hear at exit that its models were
        // closed: it would print that.
        if !gate::EXIT.is_open_to(self.thread) {
            return false;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match (queue.last_mut(), &message) {
            // Only the newest progress is of interest.
            (Some((last, waiting @ Message::Progress(_))), Message::Progress(_)) if *last == key => *waiting = message,
            _ => queue.push((key, message)),
        }
        true
    }

    fn ring(&self) {
        match self.bell.get() {
            #[cfg(unix)]
            // A failure means that the loop was closed: nobody is waiting.
            Some(Bell::Socket(socket)) => drop((&mut &*socket).write(&[1])),
            Some(Bell::Call(locals, callback)) => {
                let (locals, callback) = (locals.clone(), callback.clone());
                if let Ok(runtime) = runtime() {
                    runtime.spawn_blocking(move || call_soon(&locals, &callback));
                }
            }
            None => {}
        }
    }
}

impl EventLoop for Letters {
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.ring();
        }
    }
}

/// Attaches to the interpreter, so it passes the gate.
fn call_soon(locals: &TaskLocals, callback: &Py<PyAny>) {
    let Some(_ticket) = gate::EXIT.try_pass() else { return };
    Python::try_attach(|py| {
        // Fails when the loop was closed: nobody is waiting.
        let _ = locals.event_loop(py).call_method1("call_soon_threadsafe", (callback,));
    });
}

/// The receiving end, used by the loop's thread alone.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Mailbox(Owned<Receiver>);

struct Receiver {
    letters: Arc<Letters>,
    next_key: AtomicU64,
    #[cfg(unix)]
    socket: OnceLock<UnixStream>,
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> Self {
        let letters = Letters {
            thread: thread::current().id(),
            queue: Mutex::default(),
            rung: AtomicBool::new(false),
            ringing_soon: AtomicBool::new(false),
            bell: OnceLock::new(),
        };
        Self(Owned::new(Receiver {
            letters: Arc::new(letters),
            next_key: AtomicU64::new(0),
            #[cfg(unix)]
            socket: OnceLock::new(),
        }))
    }

    /// Makes the socket and gives its file number for `loop.add_reader`.
    /// `NotImplementedError` where there are no such sockets.
    #[cfg(unix)]
    fn open_socket(&self, py: Python<'_>) -> PyResult<i32> {
        let receiver = self.0.get(py)?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let number = ours.as_raw_fd();
        if receiver.socket.set(ours).is_err() || receiver.letters.bell.set(Bell::Socket(theirs)).is_err() {
            return Err(errors::internal(py, "the mailbox is open already"));
        }
        Ok(number)
    }

    #[cfg(not(unix))]
    fn open_socket(&self) -> PyResult<i32> {
        Err(pyo3::exceptions::PyNotImplementedError::new_err("no socket pairs on this system"))
    }

    /// Has `callback` called in the running loop instead.
    fn call_instead(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let receiver = self.0.get(py)?;
        let locals = TaskLocals::new(pyo3_async_runtimes::get_running_loop(py)?);
        if receiver.letters.bell.set(Bell::Call(locals, Arc::new(callback))).is_err() {
            return Err(errors::internal(py, "the mailbox is open already"));
        }
        Ok(())
    }

    /// Everything that has arrived, as `(key, kind, value)`: kind 0 is
    /// progress, 1 a result, 2 an exception.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<(u64, u8, Py<PyAny>)>> {
        let receiver = self.0.get(py)?;
        // In this order: a message that comes after the flag is lowered wakes
        // the loop again; one that came before is in the queue already.
        #[cfg(unix)]
        if let Some(socket) = receiver.socket.get() {
            let _ = (&mut &*socket).read(&mut [0; 8]);
        }
        receiver.letters.rung.swap(false, Ordering::AcqRel);
        let letters = mem::take(&mut *receiver.letters.queue.lock().unwrap_or_else(PoisonError::into_inner));
        letters
            .into_iter()
            .map(|(key, message)| {
                let (kind, value) = match message {
                    Message::Progress(share) => (0, share.into_pyobject(py)?.into_any().unbind()),
                    Message::News => (1, py.None()),
                    Message::Done(outcome) => match errors::finish(py, outcome) {
                        Ok(value) => (1, value),
                        Err(error) => (2, error.into_value(py).into_any()),
                    },
                };
                Ok((key, kind, value))
            })
            .collect()
    }
}

impl Mailbox {
    /// A sink for one operation, and the key that its messages carry.
    pub(crate) fn sink(&self, py: Python<'_>) -> PyResult<(Sink, u64)> {
        let (letters, key) = self.address(py)?;
        Ok((Sink::Loop(letters, key), key))
    }

    /// Where to post, and a key of its own for the messages.
    pub(crate) fn address(&self, py: Python<'_>) -> PyResult<(Arc<Letters>, u64)> {
        let receiver = self.0.get(py)?;
        let key = receiver.next_key.fetch_add(1, Ordering::Relaxed);
        Ok((receiver.letters.clone(), key))
    }

    pub(crate) fn is_of(&self, letters: &Arc<Letters>) -> bool {
        self.0.peek().is_some_and(|receiver| Arc::ptr_eq(&receiver.letters, letters))
    }
}
