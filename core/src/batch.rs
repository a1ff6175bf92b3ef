//! [`Batch`]: rows of tokens for a context, put together by hand. Nothing is
//! checked here: what is allowed depends on the context that evaluates it.

use crate::{SeqId, TokenId};

/// Tokens for `process_batch` of a context.
///
/// ```
/// use mullama::Batch;
/// let mut batch = Batch::new();
/// batch.add(1, 0, &[0], false);
/// batch.add_sequence(1, &[1, 2, 3]);
/// assert_eq!(batch.len(), 4);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) rows: Vec<Row>,
}

/// One token of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) token: TokenId,
    /// `None` is the place after what the sequence holds by then.
    pub(crate) position: Option<usize>,
    pub(crate) seq_ids: Vec<SeqId>,
    pub(crate) logits: bool,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token at `position` (0 is the first) of each of the sequences.
    /// `logits` asks for the greedy token that follows it.
    pub fn add(&mut self, token: TokenId, position: usize, seq_ids: &[SeqId], logits: bool) {
        self.rows.push(Row { token, position: Some(position), seq_ids: seq_ids.to_vec(), logits });
    }

    /// Adds tokens after all that the sequence holds by then, in the context
    /// and earlier in the batch. Asks for the greedy token after the last one.
    pub fn add_sequence(&mut self, seq_id: SeqId, tokens: &[TokenId]) {
        let last = tokens.len().saturating_sub(1);
        self.rows.extend(tokens.iter().enumerate().map(|(index, &token)| Row {
            token,
            position: None,
            seq_ids: vec![seq_id],
            logits: index == last,
        }));
    }

    /// How many tokens it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes all tokens out.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}
