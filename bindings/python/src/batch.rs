//! The native side of `mullama.Batch`.

use crate::arguments::{boolean, integer, integers, token_ids};
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows of tokens. Plain data without a thread behind it, so a forked child
/// may use it as well.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Batch(Mutex<mullama::Batch>);

#[pymethods]
impl Batch {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn add(
        &self,
        token: &Bound<'_, PyAny>,
        position: &Bound<'_, PyAny>,
        seq_ids: &Bound<'_, PyAny>,
        logits: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let token = integer("token", token)?;
        let position = integer("position", position)?;
        let seq_ids: Vec<_> = integers("seq_ids", seq_ids, "use a sequence of sequence ids")?;
        let logits = boolean("logits", logits)?;
        self.rows().add(token, position, &seq_ids, logits);
        Ok(())
    }

    fn add_sequence(&self, seq_id: &Bound<'_, PyAny>, tokens: &Bound<'_, PyAny>) -> PyResult<()> {
        let seq_id = integer("seq_id", seq_id)?;
        let tokens = token_ids(tokens)?;
        self.rows().add_sequence(seq_id, &tokens);
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.rows().len()
    }

    fn clear(&self) {
        self.rows().clear();
    }
}

impl Batch {
    /// The rows as they are now.
    pub(crate) fn copied(&self) -> mullama::Batch {
        self.rows().clone()
    }

    fn rows(&self) -> MutexGuard<'_, mullama::Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
