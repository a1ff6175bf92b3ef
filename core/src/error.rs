//! The one public error type. Messages start lower-case, quote the offending
//! value, say what to do, and end without a period.

use std::io;

/// Everything that can go wrong in mullama.
///
/// The variants are the same in Rust, Node and Python; [`MullamaError::code`]
/// gives the stable name they share.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MullamaError {
    /// There is no file at the path. Check the path; relative paths are taken
    /// from the process's working directory.
    #[error("no model file at '{path}'; check the path")]
    ModelNotFound {
        /// The path as it was given.
        path: String,
    },

    /// The file is there but is not a GGUF model that can be run: a directory,
    /// an empty file, another format, a cut or altered file, or a kind of
    /// model that can't generate text. Download the file again or choose
    /// another model.
    #[error("'{path}' is not a usable GGUF model: {reason}")]
    InvalidModel {
        /// The path as it was given.
        path: String,
        /// What is wrong with the file.
        reason: String,
    },

    /// llama.cpp could not load a file that looked valid. The reason carries
    /// llama.cpp's own words; most often the architecture is newer than this
    /// build.
    #[error("llama.cpp could not load '{path}': {reason}")]
    ModelLoad {
        /// The path as it was given.
        path: String,
        /// llama.cpp's own words, where it gave any.
        reason: String,
    },

    /// The context (KV cache and compute buffers) could not be created. Lower
    /// `context_size` or `max_concurrent`, or choose a smaller KV type.
    #[error("could not create the context: {0}")]
    Context(String),

    /// The prompt leaves no room for an answer. Shorten it or load the model
    /// with a larger `context_size`.
    #[error("the prompt has {tokens} tokens, but at most {limit} fit; shorten it or raise context_size")]
    PromptTooLong {
        /// How many tokens the prompt has.
        tokens: usize,
        /// How many a prompt may have: `context_size` less one for the answer.
        limit: usize,
    },

    /// An argument is out of its range. Nothing was started. Change the value
    /// as the reason says.
    #[error("invalid {field} '{value}': {reason}")]
    InvalidInput {
        /// The argument or option, in Rust's spelling.
        field: String,
        /// The value as given.
        value: String,
        /// What is allowed.
        reason: String,
    },

    /// Text could not be turned into tokens, or tokens into text.
    #[error("tokenization failed: {0}")]
    Tokenization(String),

    /// A decode step failed for this request. Other requests go on; trying
    /// again is safe.
    #[error("generation failed: {0}")]
    Generation(String),

    /// The caller cancelled the work: a `CancellationToken`, `cancel()`, or a
    /// load whose progress callback asked to stop.
    #[error("the operation was cancelled")]
    Cancelled,

    /// The deadline passed (`timeout_ms`, or the request's own `timeout`). The
    /// native work has stopped; `partial` is the text generated until then.
    /// Raise the timeout or ask for fewer tokens.
    #[error("timed out after {after_ms} ms; raise the timeout or ask for fewer tokens")]
    Timeout {
        /// The text generated before the deadline; empty while queued.
        partial: String,
        /// The limit that passed, in milliseconds.
        after_ms: u64,
    },

    /// As many requests wait as may wait. Try again later, or raise
    /// `max_queue`.
    #[error("{limit} requests are waiting already; try again later or raise max_queue")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },

    /// The model, context, pool, lease or runtime was closed. Make it again.
    #[error("{0} is closed")]
    Closed(String),

    /// A saved state is cut, altered, or belongs to another model.
    #[error("unusable state: {0}")]
    State(String),

    /// The operating system refused a read or a write.
    #[error("{message}")]
    Io {
        /// The kind that the operating system gave.
        kind: io::ErrorKind,
        /// What was tried and the system's answer.
        message: String,
    },

    /// This build, machine or process can't do what was asked: an option of
    /// another backend, a CPU without the instructions needed, or a process
    /// that was forked after the model was loaded.
    #[error("unsupported: {0}")]
    Unsupported(String),

    /// The memory needed is more than the machine has. Lower `context_size` or
    /// `max_concurrent`, or choose a smaller model.
    #[error("out of memory: {0}")]
    OutOfMemory(String),

    /// A failure that the caller's own code reports through mullama's type, as
    /// in `map_err(|_| MullamaError::OperationFailed("Cancelled".to_string()))`.
    #[error("operation failed: {0}")]
    OperationFailed(String),

    /// A bug in mullama. The process and the other models go on; please report
    /// it with the message.
    #[error("internal error: {0}")]
    Internal(String),
}

impl MullamaError {
    /// The codes of all variants, in the order of their declaration.
    pub const CODES: [&'static str; 18] = [
        "model_not_found",
        "invalid_model",
        "model_load",
        "context",
        "prompt_too_long",
        "invalid_input",
        "tokenization",
        "generation",
        "cancelled",
        "timeout",
        "queue_full",
        "closed",
        "state",
        "io",
        "unsupported",
        "out_of_memory",
        "operation_failed",
        "internal",
    ];

    /// The stable `snake_case` name of the variant, the same in all three
    /// languages.
    ///
    /// ```
    /// use mullama::MullamaError;
    /// assert_eq!(MullamaError::Cancelled.code(), "cancelled");
    /// ```
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::InvalidModel { .. } => "invalid_model",
            Self::ModelLoad { .. } => "model_load",
            Self::Context(_) => "context",
            Self::PromptTooLong { .. } => "prompt_too_long",
            Self::InvalidInput { .. } => "invalid_input",
            Self::Tokenization(_) => "tokenization",
            Self::Generation(_) => "generation",
            Self::Cancelled => "cancelled",
            Self::Timeout { .. } => "timeout",
            Self::QueueFull { .. } => "queue_full",
            Self::Closed(_) => "closed",
            Self::State(_) => "state",
            Self::Io { .. } => "io",
            Self::Unsupported(_) => "unsupported",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::OperationFailed(_) => "operation_failed",
            Self::Internal(_) => "internal",
        }
    }

    /// One example of every variant, so that a binding's tests can walk them
    /// all and fail on one that it does not map.
    #[doc(hidden)]
    #[must_use]
    pub fn examples() -> Vec<Self> {
        let text = || "example".to_owned();
        vec![
            Self::ModelNotFound { path: text() },
            Self::InvalidModel { path: text(), reason: text() },
            Self::ModelLoad { path: text(), reason: text() },
            Self::Context(text()),
            Self::PromptTooLong { tokens: 9, limit: 7 },
            Self::InvalidInput { field: text(), value: text(), reason: text() },
            Self::Tokenization(text()),
            Self::Generation(text()),
            Self::Cancelled,
            Self::Timeout { partial: text(), after_ms: 5 },
            Self::QueueFull { limit: 3 },
            Self::Closed(text()),
            Self::State(text()),
            Self::Io { kind: io::ErrorKind::PermissionDenied, message: text() },
            Self::Unsupported(text()),
            Self::OutOfMemory(text()),
            Self::OperationFailed(text()),
            Self::Internal(text()),
        ]
    }

    pub(crate) fn invalid(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::InvalidInput { field: field.to_owned(), value: value.to_string(), reason: reason.into() }
    }

    pub(crate) fn context_closed() -> Self {
        Self::Closed("the context".to_owned())
    }

    pub(crate) fn model_closed() -> Self {
        Self::Closed("the model".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_variant_has_a_code_of_its_own() {
        let codes: Vec<_> = MullamaError::examples().iter().map(MullamaError::code).collect();
        assert_eq!(codes, MullamaError::CODES);
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), codes.len());
    }

    #[test]
    fn messages_follow_the_style() {
        for error in MullamaError::examples() {
            let message = error.to_string();
            assert!(!message.ends_with('.'), "{message}");
            assert!(!message.starts_with(|c: char| c.is_uppercase()), "{message}");
        }
    }
}
