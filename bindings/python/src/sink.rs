//! How results leave the runtime: messages into a sink, free of Python
//! objects. Used by the futures on the runtime and, for progress, by the
//! model's own thread while it loads.

use crate::mailbox::Letters;
use mullama::MullamaError;
use pyo3::prelude::*;
use std::sync::{Arc, mpsc};

/// A result that becomes a Python object on the thread that receives it.
pub(crate) type Value = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

pub(crate) type Outcome = Result<Value, MullamaError>;

pub(crate) enum Message {
    /// The share of a load that is done, 0 to 1.
    Progress(f32),
    /// A stream has something to take; the only message of a wait for that.
    News,
    /// The last message of an operation.
    Done(Outcome),
}

/// Where an operation's messages go.
#[derive(Clone)]
pub(crate) enum Sink {
    /// To an event loop, under the operation's key.
    Loop(Arc<Letters>, u64),
    /// To a thread that waits.
    Thread(mpsc::Sender<Message>),
}

impl Sink {
    pub(crate) fn send(&self, message: Message) {
        match self {
            Self::Loop(letters, key) => letters.post(*key, message),
            // Nobody waits any more: the operation was cancelled.
            Self::Thread(channel) => drop(channel.send(message)),
        }
    }
}

/// Sends exactly one `Done` when it is dropped, so that nobody waits for ever.
/// A task gives it back as its output, and Tokio drops that when the task has
/// ended: who gets the result does not find the task among the active ones.
pub(crate) struct Reply {
    sink: Sink,
    outcome: Option<Outcome>,
}

impl Reply {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink, outcome: None }
    }

    pub(crate) fn with(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let lost = || Err(MullamaError::Internal("the operation ended without a result".to_owned()));
        self.sink.send(Message::Done(self.outcome.take().unwrap_or_else(lost)));
    }
}
