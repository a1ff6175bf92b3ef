//! What steps of one sequence cost by their number of rows.

use mullama::{AsyncContext, AsyncModel, Batch, ContextOptions, MullamaError};
use std::{sync::Arc, time::Instant};

/// Most rows of a step whose cost is measured.
pub(crate) const MAX_ROWS: usize = 16;

/// Tokens before the step.
const DEPTH: usize = 200;

const TIMES: usize = 9;

/// Steps from 1 row on, in plain steps. All rows give logits. A step of another
/// size than the one before prepares its graph anew, and so does the plain
/// step after it: both are the draft's doing, and counted so.
pub(crate) async fn measure(model: &Arc<AsyncModel>) -> Result<Vec<f64>, MullamaError> {
    let mut context = AsyncContext::with_options(model.clone(), ContextOptions::default()).await?;
    let tokens: Vec<i32> = (0..DEPTH as i32).map(|n| 1000 + n * 7).collect();
    let mut prompt = Batch::new();
    prompt.add_sequence(0, &tokens);
    context.process_batch(vec![prompt]).await?;
    let mut drafted = vec![Vec::new(); MAX_ROWS];
    let mut after = vec![Vec::new(); MAX_ROWS];
    let mut plain = Vec::new();
    for _ in 0..TIMES {
        for n_rows in 2..=MAX_ROWS {
            drafted[n_rows - 1].push(step(&mut context, n_rows).await?);
            after[n_rows - 1].push(step(&mut context, 1).await?);
            plain.push(step(&mut context, 1).await?);
        }
    }
    let plain = median(plain);
    let mut costs = vec![1.0];
    costs.extend(drafted.into_iter().zip(after).skip(1).map(|(drafted, after)| {
        let more = (median(after) - plain).max(0.0);
        (median(drafted) + more) / plain
    }));
    Ok(costs)
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
