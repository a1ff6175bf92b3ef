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

/// Sends exactly one `Done`, also when the future is dropped or panics, so
/// that nobody waits for ever.
pub(crate) struct Reply(Option<Sink>);

impl Reply {
    pub(crate) fn new(sink: Sink) -> Self {
        Self(Some(sink))
    }

    pub(crate) fn send(mut self, outcome: Outcome) {
        if let Some(sink) = self.0.take() {
            sink.send(Message::Done(outcome));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(sink) = self.0.take() {
            let lost = MullamaError::Internal("the operation ended without a result".to_owned());
            sink.send(Message::Done(Err(lost)));
        }
    }
}
