//! Why a file is refused, without the path, which only the entry point knows.

use std::io;

pub(super) type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug)]
pub(super) enum Fault {
    /// What is wrong with the file.
    Invalid(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Fault::Invalid(reason.into()))
}
