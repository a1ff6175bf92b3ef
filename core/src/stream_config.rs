//! How one request generates: [`StreamConfig`] and its validation.

use crate::{MullamaError, TokenId};
use std::time::Duration;

/// Most entries of [`StreamConfig::stop`], and longest of them in bytes. Each
/// generated character is compared with all of them.
const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 4096;

/// Most alternatives that [`StreamConfig::logprobs`] may ask for.
const MAX_LOGPROBS: usize = 100;

/// Sampling and limits of one request.
///
/// All fields are public and have a builder method of the same name.
///
/// ```
/// use mullama::StreamConfig;
/// let config = StreamConfig::new().max_tokens(200).temperature(0.7).stop(["\n\n"]);
/// assert_eq!(config.top_k, 40);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// Most tokens to generate; 0 evaluates nothing. Default 256.
    pub max_tokens: usize,
    /// 0 takes the likeliest token (greedy); above 0 divides the logits
    /// before sampling; at most 100. Default 0.8.
    pub temperature: f32,
    /// Sample among the `top_k` likeliest tokens; 0 is off. Default 40.
    pub top_k: usize,
    /// Sample among the likeliest tokens whose probabilities sum to `top_p`;
    /// 0 to 1, and 1 is off. Default 0.95.
    pub top_p: f32,
    /// Drop tokens less likely than `min_p` times the likeliest; 0 to 1, and
    /// 0 is off. Default 0.05.
    pub min_p: f32,
    /// Locally typical sampling (Meister et al., arXiv:2202.00666) over this
    /// mass; 0 to 1, and 1 is off. Default 1.
    pub typical_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens seen
    /// lately (Keskar et al., arXiv:1909.05858); above 0, and 1 is off.
    /// Default 1.
    pub repeat_penalty: f32,
    /// How many of the last tokens (prompt included) the penalties look at; 0
    /// turns them off. Default 64.
    pub repeat_last_n: usize,
    /// Taken from a token's logit for each time it was seen lately; -100 to
    /// 100. Default 0.
    pub frequency_penalty: f32,
    /// Taken once from the logit of each token seen lately; -100 to 100.
    /// Default 0.
    pub presence_penalty: f32,
    /// Seed of the request's own random numbers. `None` (the default) draws a
    /// fresh one, which the result reports.
    pub seed: Option<u64>,
    /// Texts that end the answer, none of which is returned; at most 64, none
    /// empty. Default none.
    pub stop: Vec<String>,
    /// `Some(n)` reports the log-probability of each token and of the `n`
    /// likeliest ones at its place, of the model's own distribution (before
    /// temperature, penalties and filters); `n` at most 100. Default `None`.
    pub logprobs: Option<usize>,
    /// Added to the logits of single tokens; finite, or negative infinity to
    /// ban a token. Default none.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Never end by an end-of-generation token. Default `false`.
    pub ignore_eos: bool,
    /// Tokens that may wait for a slow reader of a stream before its
    /// sequence pauses; at least 1. Default 32.
    pub buffer_size: usize,
    /// Time from submission to the last token; zero is no limit, `None` (the
    /// default) takes the model's.
    pub timeout: Option<Duration>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            stop: Vec::new(),
            logprobs: None,
            logit_bias: Vec::new(),
            ignore_eos: false,
            buffer_size: 32,
            timeout: None,
        }
    }
}

/// One builder method a field whose argument is the field's own type.
macro_rules! builder {
    ($($field:ident: $type:ty),* $(,)?) => {$(
        #[doc = concat!("Sets [`StreamConfig::", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )*};
}

impl StreamConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    builder! {
        max_tokens: usize,
        temperature: f32,
        top_k: usize,
        top_p: f32,
        min_p: f32,
        typical_p: f32,
        repeat_penalty: f32,
        repeat_last_n: usize,
        frequency_penalty: f32,
        presence_penalty: f32,
        ignore_eos: bool,
        buffer_size: usize,
    }

    /// Sets [`StreamConfig::seed`](Self#structfield.seed).
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets [`StreamConfig::stop`](Self#structfield.stop).
    #[must_use]
    pub fn stop<S: Into<String>>(mut self, stop: impl IntoIterator<Item = S>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`StreamConfig::logprobs`](Self#structfield.logprobs).
    #[must_use]
    pub fn logprobs(mut self, logprobs: impl Into<Option<usize>>) -> Self {
        self.logprobs = logprobs.into();
        self
    }

    /// Sets [`StreamConfig::logit_bias`](Self#structfield.logit_bias).
    #[must_use]
    pub fn logit_bias(mut self, bias: impl IntoIterator<Item = (TokenId, f32)>) -> Self {
        self.logit_bias = bias.into_iter().collect();
        self
    }

    /// Sets [`StreamConfig::timeout`](Self#structfield.timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Checks every field against its range; token ids are checked against
    /// a vocabulary of `n_vocab` entries.
    ///
    /// # Errors
    /// `InvalidInput` naming the first field that is out of range.
    pub fn validate(&self, n_vocab: usize) -> Result<(), MullamaError> {
        use MullamaError as E;
        let float = |field: &str, value: f32, least: f32, most: f32| {
            if value >= least && value <= most {
                Ok(())
            } else {
                Err(E::invalid(field, value, format!("use {least} to {most}")))
            }
        };
        float("temperature", self.temperature, 0.0, 100.0)?;
        float("top_p", self.top_p, 0.0, 1.0)?;
        float("min_p", self.min_p, 0.0, 1.0)?;
        float("typical_p", self.typical_p, 0.0, 1.0)?;
        float("frequency_penalty", self.frequency_penalty, -100.0, 100.0)?;
        float("presence_penalty", self.presence_penalty, -100.0, 100.0)?;
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0) {
            return Err(E::invalid("repeat_penalty", self.repeat_penalty, "use a number above 0, up to 100"));
        }
        if self.buffer_size == 0 {
            return Err(E::invalid("buffer_size", 0, "use 1 or more"));
        }
        if self.stop.len() > MAX_STOPS {
            return Err(E::invalid("stop", format!("{} strings", self.stop.len()), format!("use at most {MAX_STOPS}")));
        }
        for stop in &self.stop {
            if stop.is_empty() {
                return Err(E::invalid("stop", "", "an empty string would stop at once; leave it out"));
            }
            if stop.len() > MAX_STOP_BYTES {
                let value = format!("a string of {} bytes", stop.len());
                return Err(E::invalid("stop", value, format!("use at most {MAX_STOP_BYTES} bytes")));
            }
        }
        if let Some(n) = self.logprobs.filter(|&n| n > MAX_LOGPROBS) {
            return Err(E::invalid("logprobs", n, format!("use 0 to {MAX_LOGPROBS}")));
        }
        for &(token, bias) in &self.logit_bias {
            if usize::try_from(token).map_or(true, |id| id >= n_vocab) {
                return Err(E::invalid("logit_bias", token, format!("token ids go from 0 to {}", n_vocab - 1)));
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(E::invalid(
                    "logit_bias",
                    bias,
                    "use a finite number, or negative infinity to ban the token",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: StreamConfig, field: &str) {
        match config.validate(100) {
            Err(MullamaError::InvalidInput { field: f, .. }) => assert_eq!(f, field),
            other => panic!("expected {field} to be refused, got {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        StreamConfig::new().validate(100).unwrap();
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let c = StreamConfig::new;
        for bad in [f32::NAN, -0.1, f32::INFINITY] {
            refused(c().temperature(bad), "temperature");
            refused(c().top_p(bad), "top_p");
            refused(c().min_p(bad), "min_p");
            refused(c().typical_p(bad), "typical_p");
            refused(c().repeat_penalty(bad), "repeat_penalty");
        }
        refused(c().repeat_penalty(0.0), "repeat_penalty");
        refused(c().frequency_penalty(f32::NAN), "frequency_penalty");
        refused(c().presence_penalty(101.0), "presence_penalty");
        refused(c().buffer_size(0), "buffer_size");
        refused(c().stop([""]), "stop");
        refused(c().stop(vec!["a"; 65]), "stop");
        refused(c().stop(["a".repeat(4097)]), "stop");
        refused(c().logprobs(101), "logprobs");
        refused(c().logit_bias([(100, 1.0)]), "logit_bias");
        refused(c().logit_bias([(-1, 1.0)]), "logit_bias");
        refused(c().logit_bias([(1, f32::NAN)]), "logit_bias");
    }

    #[test]
    fn a_token_can_be_banned() {
        StreamConfig::new().logit_bias([(1, f32::NEG_INFINITY)]).validate(100).unwrap();
    }
}
