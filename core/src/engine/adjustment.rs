//! The bias and the penalties of a request, put into a row of logits in its
//! place and taken out again: a copy of the row would cost as much as drawing
//! from it. Pure.
//!
//! Nothing is allocated for a token, but when a buffer grows for the first time.

use crate::{StreamConfig, TokenId};

/// See the module.
pub(super) struct Adjustment {
    /// Bias of the caller, and negative infinity for the end-of-generation
    /// tokens under `ignore_eos`.
    bias: Vec<(TokenId, f32)>,
    /// Tokens that penalties look back at; 0 where there are none.
    n_seen: usize,
    repeat_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    /// Those tokens, in order of their ids.
    seen: Vec<TokenId>,
    /// What stood where something was changed, in the order of the changes.
    before: Vec<(usize, f32)>,
}

impl Adjustment {
    /// `config` was validated; `eog` are the end-of-generation tokens.
    pub(super) fn new(config: &StreamConfig, eog: &[TokenId]) -> Self {
        let mut bias = config.logit_bias.clone();
        if config.ignore_eos {
            bias.extend(eog.iter().map(|&token| (token, f32::NEG_INFINITY)));
        }
        let has_penalties =
            config.repeat_penalty != 1.0 || config.frequency_penalty != 0.0 || config.presence_penalty != 0.0;
        Self {
            bias,
            n_seen: if has_penalties { config.repeat_last_n } else { 0 },
            repeat_penalty: config.repeat_penalty,
            frequency_penalty: config.frequency_penalty,
            presence_penalty: config.presence_penalty,
            seen: Vec::new(),
            before: Vec::new(),
        }
    }

    /// Puts bias and penalties into a row; `history` holds all tokens so far.
    pub(super) fn apply(&mut self, row: &mut [f32], history: &[TokenId]) {
        let before = &mut self.before;
        let mut change = |token: TokenId, changed: &dyn Fn(f32) -> f32| {
            if let Some(logit) = row.get_mut(token as usize) {
                before.push((token as usize, *logit));
                *logit = changed(*logit);
            }
        };
        for &(token, bias) in &self.bias {
            change(token, &|logit| logit + bias);
        }
        self.seen.clear();
        self.seen.extend_from_slice(&history[history.len().saturating_sub(self.n_seen)..]);
        // Equal ones side by side, to be counted.
        self.seen.sort_unstable();
        for run in self.seen.chunk_by(|a, b| a == b) {
            let penalty = run.len() as f32 * self.frequency_penalty + self.presence_penalty;
            let factor = self.repeat_penalty;
            change(run[0], &|logit| (if logit > 0.0 { logit / factor } else { logit * factor }) - penalty);
        }
    }

    /// Gives a row back what [`Self::apply`] changed.
    pub(super) fn undo(&mut self, row: &mut [f32]) {
        while let Some((index, logit)) = self.before.pop() {
            row[index] = logit;
        }
    }
}
