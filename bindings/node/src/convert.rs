//! The objects that JavaScript gets from generations. Times are milliseconds;
//! an absent value is an absent property.

use mullama::{FinishReason, Generation, TokenData, TokenLogprob, TokenLogprobs};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::time::Duration;

/// Largest integer that a JavaScript number holds exactly.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

#[napi(object, object_from_js = false)]
pub struct Token {
    pub text: String,
    pub token_id: i32,
    pub index: u32,
    pub logprob: Option<f64>,
    pub top_logprobs: Option<Vec<Alternative>>,
    pub is_final: bool,
    pub finish_reason: Option<&'static str>,
    pub stop_string: Option<String>,
}

impl From<TokenData> for Token {
    fn from(token: TokenData) -> Self {
        let asked = token.logprob.is_some();
        Self {
            text: token.text,
            token_id: token.token_id,
            index: count(token.index),
            logprob: token.logprob.map(f64::from),
            top_logprobs: asked.then(|| alternatives(token.top_logprobs)),
            is_final: token.is_final,
            finish_reason: token.finish_reason.as_ref().map(FinishReason::name),
            stop_string: token.finish_reason.and_then(stop_string),
        }
    }
}

/// A part of a batch of tokens.
pub(crate) type Entry = Either4<String, i32, u32, Token>;

/// A batch of tokens. Most have nothing but a text, an id and an index, and give
/// these as three entries: JavaScript makes an object of them without a call for
/// each property.
pub(crate) fn entries(tokens: Vec<TokenData>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(3 * tokens.len());
    for token in tokens {
        if token.is_final || token.logprob.is_some() {
            entries.push(Either4::D(token.into()));
        } else {
            let index = count(token.index);
            entries.extend([Either4::A(token.text), Either4::B(token.token_id), Either4::C(index)]);
        }
    }
    entries
}

#[napi(object, object_from_js = false)]
pub struct Alternative {
    pub token_id: i32,
    pub text: String,
    pub logprob: f64,
}

fn alternatives(list: Vec<TokenLogprob>) -> Vec<Alternative> {
    let convert = |it: TokenLogprob| Alternative { token_id: it.token_id, text: it.text, logprob: it.logprob.into() };
    list.into_iter().map(convert).collect()
}

#[napi(object, object_from_js = false)]
pub struct Place {
    pub token_id: i32,
    pub logprob: f64,
    pub top: Vec<Alternative>,
}

impl From<TokenLogprobs> for Place {
    fn from(place: TokenLogprobs) -> Self {
        Self { token_id: place.token_id, logprob: place.logprob.into(), top: alternatives(place.top) }
    }
}

#[napi(object, object_from_js = false)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub completion_tokens: u32,
}

impl From<mullama::Usage> for Usage {
    fn from(usage: mullama::Usage) -> Self {
        Self {
            prompt_tokens: count(usage.prompt_tokens),
            cached_tokens: count(usage.cached_tokens),
            completion_tokens: count(usage.completion_tokens),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct Timings {
    pub queued: f64,
    pub prefill: f64,
    pub decode: f64,
    pub time_to_first_token: f64,
}

impl From<mullama::Timings> for Timings {
    fn from(timings: mullama::Timings) -> Self {
        Self {
            queued: ms(timings.queued),
            prefill: ms(timings.prefill),
            decode: ms(timings.decode),
            time_to_first_token: ms(timings.time_to_first_token),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<i32>,
    pub finish_reason: &'static str,
    pub stop_string: Option<String>,
    pub usage: Usage,
    pub timings: Timings,
    pub seed: Either<f64, BigInt>,
    pub logprobs: Option<Vec<Place>>,
}

impl From<Generation> for Answer {
    fn from(generation: Generation) -> Self {
        Self {
            text: generation.text,
            tokens: generation.tokens,
            finish_reason: generation.finish_reason.name(),
            stop_string: stop_string(generation.finish_reason),
            usage: generation.usage.into(),
            timings: generation.timings.into(),
            seed: seed(generation.seed),
            logprobs: generation.logprobs.map(|places| places.into_iter().map(Place::from).collect()),
        }
    }
}

/// A seed that a number holds exactly is a number; a larger one is a BigInt.
pub(crate) fn seed(seed: u64) -> Either<f64, BigInt> {
    if seed <= MAX_SAFE_INTEGER {
        Either::A(number(seed))
    } else {
        Either::B(seed.into())
    }
}

pub(crate) fn stop_string(reason: FinishReason) -> Option<String> {
    match reason {
        FinishReason::StopString(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Counts past 2^53 lose their last digits; nothing counted here gets there.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
