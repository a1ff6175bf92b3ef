//! What generation gives back: tokens, results, usage, timings.

use crate::TokenId;
use std::{fmt, time::Duration};

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model produced an end-of-generation token.
    Stop,
    /// One of the request's stop strings appeared; it is carried here and is
    /// not part of the text.
    StopString(String),
    /// `max_tokens` were generated.
    Length,
    /// The request used all of its `context_size`.
    ContextFull,
    /// The caller cancelled the stream.
    Cancelled,
}

impl FinishReason {
    /// The stable `snake_case` name that Node and Python use.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopString(_) => "stop_string",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A token and its log-probability (natural logarithm).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token_id: TokenId,
    /// Its own text. Bytes that are not whole characters show as U+FFFD.
    pub text: String,
    /// Natural logarithm of its probability, 0 or less.
    pub logprob: f32,
}

/// One generated token of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenData {
    /// The text that became certain with this token: whole characters only,
    /// and never any part of a stop string. May be empty, and may hold the
    /// end of earlier tokens.
    pub text: String,
    /// The token.
    pub token_id: TokenId,
    /// 0 for the first generated token.
    pub index: usize,
    /// Log-probability of the token, when `logprobs` was asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens at this place, likeliest first, when `logprobs`
    /// asked for any.
    pub top_logprobs: Vec<TokenLogprob>,
    /// Whether this is the last token.
    pub is_final: bool,
    /// Why the generation ended; set on the last token alone.
    pub finish_reason: Option<FinishReason>,
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were taken from a cache instead of being computed.
    pub cached_tokens: usize,
    /// Tokens generated, an end-of-generation token included.
    pub completion_tokens: usize,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From submission to admission.
    pub queued: Duration,
    /// From admission to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// From submission to the first token.
    pub time_to_first_token: Duration,
}

impl Timings {
    /// From submission to the last token.
    pub(crate) fn total(&self) -> Duration {
        self.queued + self.prefill + self.decode
    }
}

/// The whole result of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The generated text, without the stop string that ended it.
    pub text: String,
    /// The generated tokens, the last (end-of-generation) one included.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// The seed that was used; the same seed and options repeat the draw.
    pub seed: u64,
    /// One entry a token, when `logprobs` was asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
}

/// The log-probabilities at one place of a [`Generation`].
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was generated.
    pub token_id: TokenId,
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens there, likeliest first.
    pub top: Vec<TokenLogprob>,
}
