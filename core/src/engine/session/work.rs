//! What callers ask of a session, each with the way back for its answer.

use super::call::Answer;
use crate::{Batch, MullamaError, StreamConfig, TokenId, engine::Reader};
use std::{path::PathBuf, time::Instant};

/// One call.
pub(super) enum Work {
    /// Append tokens to sequence 0 and generate.
    Generate { tokens: Vec<TokenId>, config: StreamConfig, submitted: Instant, answer: Answer<Reader> },
    /// Evaluate batches.
    Process { batches: Vec<Batch>, answer: Answer<Vec<Vec<TokenId>>> },
    /// Write a state file.
    Save { path: PathBuf, answer: Answer<()> },
    /// Read a state file.
    Load { path: PathBuf, answer: Answer<()> },
    /// Forget everything.
    Clear { answer: Answer<()> },
    /// Keep the first tokens of sequence 0.
    Truncate { n: usize, answer: Answer<()> },
}

impl Work {
    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Generate { answer, .. } => answer.is_abandoned(),
            Self::Process { answer, .. } => answer.is_abandoned(),
            Self::Save { answer, .. }
            | Self::Load { answer, .. }
            | Self::Clear { answer }
            | Self::Truncate { answer, .. } => answer.is_abandoned(),
        }
    }

    /// Answers with an error.
    pub(super) fn fail(self, error: MullamaError) {
        match self {
            Self::Generate { answer, .. } => answer.give(Err(error)),
            Self::Process { answer, .. } => answer.give(Err(error)),
            Self::Save { answer, .. }
            | Self::Load { answer, .. }
            | Self::Clear { answer }
            | Self::Truncate { answer, .. } => answer.give(Err(error)),
        }
    }
}
