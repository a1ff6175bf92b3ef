//! What steps of one sequence cost by their number of rows.

use mullama::{AsyncContext, AsyncModel, Batch, ContextOptions, MullamaError};
use std::{sync::Arc, time::Instant};

/// Most rows of a step whose cost is measured.
pub(crate) const MAX_ROWS: usize = 16;

/// Tokens before the step.
const DEPTH: usize = 200;

const TIMES: usize = 7;

/// In plain steps.
pub(crate) struct Costs {
    /// Of steps of 1 row and more, among their like. All rows give logits.
    rows: Vec<f64>,
    /// What a step costs more after one of another size: it prepares its graph
    /// anew.
    pub(crate) change: f64,
}

impl Costs {
    pub(crate) fn of(&self, n_rows: usize) -> f64 {
        self.rows[n_rows - 1]
    }

    /// Measures them as medians. A step of a context costs more than one of the
    /// engine by what it takes to hand it over, so the plain step that all is
    /// told in is the engine's, of `engine_step` seconds.
    pub(crate) async fn measure(model: &Arc<AsyncModel>, engine_step: f64) -> Result<Self, MullamaError> {
        let mut context = AsyncContext::with_options(model.clone(), ContextOptions::default()).await?;
        let tokens: Vec<i32> = (0..DEPTH as i32).map(|n| 1000 + n * 7).collect();
        let mut prompt = Batch::new();
        prompt.add_sequence(0, &tokens);
        context.process_batch(vec![prompt]).await?;
        let (mut first, mut later) = (vec![Vec::new(); MAX_ROWS], vec![Vec::new(); MAX_ROWS]);
        for _ in 0..TIMES {
            for n_rows in 1..=MAX_ROWS {
                first[n_rows - 1].push(step(&mut context, n_rows).await?);
                for _ in 0..2 {
                    later[n_rows - 1].push(step(&mut context, n_rows).await?);
                }
            }
        }
        let [first, later] = [first, later].map(|times| times.into_iter().map(median).collect::<Vec<_>>());
        let changes = first.iter().zip(&later).map(|(first, later)| (first - later) / engine_step).collect();
        let rows = later.iter().map(|seconds| 1.0 + (seconds - later[0]) / engine_step).collect();
        Ok(Self { rows, change: median(changes).max(0.0) })
    }
}

/// Seconds of a step, whose rows are forgotten.
async fn step(context: &mut AsyncContext, n_rows: usize) -> Result<f64, MullamaError> {
    let mut batch = Batch::new();
    for row in 0..n_rows {
        batch.add(2000 + row as i32, DEPTH + row, &[0], true);
    }
    let started = Instant::now();
    context.process_batch(vec![batch]).await?;
    let seconds = started.elapsed().as_secs_f64();
    context.truncate(DEPTH).await?;
    Ok(seconds)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
