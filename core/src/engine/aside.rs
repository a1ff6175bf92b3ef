//! Prefill of long prompts aside: in a context of its own, over the same
//! weights and with the same threads, whose graph is evaluated in pieces of
//! some milliseconds. Between two pieces the engine takes a step for all others
//! when one is due. So a long prompt is computed with as many rows at once as
//! is quickest, and holds up nobody meanwhile. Part of [`Worker`], on the
//! engine's thread.
//!
//! After each decode the new part of the memory is copied to the engine's
//! context, where the sequence has its place all along: who follows it finds
//! it there, and whatever becomes of the sequence, the context aside can be
//! dropped.
//!
//! Deliberately absent: memories of which no part can be copied, and GPUs. There
//! a prompt is computed in steps with the others (`scheduler`). A GPU needs no
//! more than a step or two for it.

use super::{loading::kv_bytes, sequence::Sequence, worker::Worker};
use crate::{
    llama::{Batch, Context, ContextParams, DecodeError},
    memory::SystemMemory,
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Fewest tokens that are worth it. Fewer fit into a step or two with the
/// others.
const WORTH: usize = 128;

/// Most rows of a decode: with more a row costs no less, but a cancelled or
/// failed decode loses more.
const ROWS: usize = 256;

/// ggml's attention on the CPU works in tiles of so many rows.
const TILE: usize = 64;

/// How long the others wait for their next step: less than the 150 ms that a
/// reader may wait, and long enough that a step of a few streams takes no tenth
/// of the time. The prefill always gets as much time as the step before took.
const TURN: Duration = Duration::from_millis(100);

/// How long the context is kept for the next long prompt. Making one takes some
/// ten milliseconds.
const KEPT: Duration = Duration::from_secs(2);

/// Cells of the context are a multiple of this, so that a slightly longer
/// prompt needs no new one.
const CELLS: usize = 1024;

/// The context may take this part of the free memory.
const SHARE_OF_FREE: u64 = 4;

/// See the module.
pub(super) struct Aside {
    context: Option<Context>,
    batch: Batch,
    n_cells: usize,
    /// The sequence, by age, and the tokens that the context holds of it.
    holds: Option<(u64, usize)>,
    used: Instant,
    /// There was no memory for it. Long prompts are computed in steps with the
    /// others then, until the engine has nothing to do.
    is_refused: bool,
    /// Whether the oldest prompt had the last turn.
    oldest_had_turn: bool,
    /// A decode is under way.
    pub(super) is_computing: bool,
    /// When the next step of the others is due.
    due: Instant,
    /// Since when the threads compute pieces, with no step between.
    since: Instant,
    /// What steps of the others took during the decode under way.
    others: Duration,
}

impl Aside {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            context: None,
            batch: Batch::new(ROWS),
            n_cells: 0,
            holds: None,
            used: now,
            is_refused: false,
            oldest_had_turn: false,
            is_computing: false,
            due: now,
            since: now,
            others: Duration::ZERO,
        }
    }

    fn refuse(&mut self) {
        self.drop_context();
        self.is_refused = true;
    }

    pub(super) fn drop_context(&mut self) {
        self.context = None;
        self.holds = None;
    }

    /// Drops the context when nobody needed it for a while; the engine has
    /// nothing to do. Gives when to ask again.
    pub(super) fn rest(&mut self) -> Option<Instant> {
        self.is_refused = false;
        self.context.as_ref()?;
        let until = self.used + KEPT;
        if until > Instant::now() {
            return Some(until);
        }
        self.drop_context();
        None
    }

    /// Drops the context when it has not been used for a while.
    pub(super) fn age(&mut self) {
        if self.context.is_some() && self.used.elapsed() > KEPT {
            self.drop_context();
        }
    }
}

impl Worker {
    /// Whether the rest of this prompt is computed aside.
    pub(super) fn goes_aside(&self, sequence: &Sequence) -> bool {
        let n = sequence.n_pending() - 1;
        (n >= WORTH || (n > 0 && sequence.is_aside)) && self.computes_aside()
    }

    /// Whether any prompt is.
    pub(super) fn computes_aside(&self) -> bool {
        !self.aside.is_refused && self.context.has_parts() && self.shared.options.gpu_layers == 0
    }

    /// The prompt whose turn it is to be computed aside: the shortest and the
    /// oldest one alternately, so that a short one does not wait for a long one
    /// and none waits for ever.
    pub(super) fn next_aside(&self) -> Option<usize> {
        let long = (0..self.active.len()).filter(|&index| {
            let sequence = &self.active[index];
            sequence.follows.is_none() && !sequence.ticket.is_full() && self.goes_aside(sequence)
        });
        if self.aside.oldest_had_turn {
            long.min_by_key(|&index| (self.active[index].n_pending(), self.active[index].age))
        } else {
            long.min_by_key(|&index| self.active[index].age)
        }
    }

    /// Evaluates some rows of a prompt aside, and meanwhile whatever the others
    /// need.
    pub(super) fn prefill_aside(&mut self, index: usize) {
        self.aside.oldest_had_turn = !self.aside.oldest_had_turn;
        if !self.open_aside(index) {
            self.aside.refuse();
            return;
        }
        let sequence = &mut self.active[index];
        sequence.is_aside = true;
        let (age, from) = (sequence.age, sequence.n_past());
        let n = rows(sequence.n_pending() - 1, ROWS.min(self.limits.batch_size));
        self.aside.batch.clear();
        for (token, position, _) in sequence.rows(n) {
            self.aside.batch.push(token, position, 0, false);
        }
        let (ticket, shared) = (sequence.ticket.share(), self.shared.clone());
        let Some(mut context) = self.aside.context.take() else { return };
        context.set_abort_check(move || shared.inbox.is_closing() || ticket.is_over(Instant::now()));
        context.set_threads(self.pace.threads());
        let mut batch = std::mem::replace(&mut self.aside.batch, Batch::new(0));
        self.aside.others = Duration::ZERO;
        self.pace.start();
        self.aside.since = Instant::now();
        let started = self.aside.since;
        self.aside.is_computing = true;
        let result = context.decode_in_pieces(&mut batch, &mut || self.between_pieces());
        self.aside.is_computing = false;
        self.adapt_to_pieces();
        self.aside.batch = batch;
        self.aside.used = Instant::now();
        self.aside.holds = None;
        match result {
            Ok(()) => {
                self.shared.metrics.steps.fetch_add(1, Relaxed);
                self.shared.metrics.step_time.observe(started.elapsed().saturating_sub(self.aside.others));
                self.take_part(&mut context, age, from, n);
            }
            Err(DecodeError::Aborted) => {}
            // It has cells for the whole prompt.
            Err(DecodeError::NoCells) => self.aside.is_refused = true,
            Err(DecodeError::Failed(error)) => {
                let rows: Vec<usize> =
                    self.active.iter().map(|sequence| if sequence.age == age { n } else { 0 }).collect();
                self.fail_step(&rows, &error);
            }
        }
        self.aside.context = Some(context);
    }

    /// Makes the context aside, unless it is there, and has it hold what is
    /// evaluated of the sequence. `false` when there is no memory for that.
    fn open_aside(&mut self, index: usize) -> bool {
        let sequence = &self.active[index];
        let (age, seq_id, n_past) = (sequence.age, sequence.seq_id, sequence.n_past());
        let n_cells = sequence.tokens().len().next_multiple_of(CELLS).min(self.limits.cache_size);
        if self.aside.context.is_none() || self.aside.n_cells < n_cells {
            self.aside.drop_context();
            let options = &self.shared.options;
            let free = SystemMemory::read().free;
            if free > 0 && kv_bytes(self.context.model(), options, n_cells) > free / SHARE_OF_FREE {
                return false;
            }
            let params = ContextParams {
                n_ctx: n_cells,
                n_batch: ROWS.min(self.limits.batch_size),
                n_rows_at_once: ROWS,
                n_seq_max: 1,
                n_outputs_max: 1,
                n_threads: self.limits.threads,
                flash_attention: options.flash_attention,
                type_k: options.kv_type_k,
                type_v: options.kv_type_v,
                unified: true,
                parts: true,
                pieces: true,
            };
            match self.context.beside(&params) {
                Ok(context) if context.has_parts() => {
                    (self.aside.context, self.aside.n_cells) = (Some(context), n_cells);
                }
                Ok(_) => return false,
                Err(error) => {
                    tracing::warn!(%error, "long prompts are computed with the others: no context beside them");
                    return false;
                }
            }
        }
        let Some(context) = &mut self.aside.context else { return false };
        if self.aside.holds == Some((age, n_past)) {
            return true;
        }
        context.clear_sequence(0);
        n_past == 0 || self.context.part_state(seq_id, 0..n_past).is_some_and(|state| context.append_state(0, &state))
    }

    /// Copies what was computed aside to the sequence's place. Others make room
    /// for it when there is none.
    fn take_part(&mut self, context: &mut Context, age: u64, from: usize, n: usize) {
        let Some(part) = context.part_state(0, from..from + n) else {
            self.aside.is_refused = true;
            return;
        };
        // Meanwhile it may have ended, or made room itself.
        let is_there = |sequence: &Sequence| sequence.age == age && sequence.n_past() == from;
        while let Some(index) = self.active.iter().position(is_there) {
            if self.context.append_state(self.active[index].seq_id, &part) {
                let n_prompt = self.active[index].evaluated(n);
                self.shared.metrics.prompt_tokens.fetch_add(n_prompt as u64, Relaxed);
                self.aside.holds = Some((age, from + n));
                break;
            }
            self.make_room();
        }
        self.note_load();
    }

    /// The engine's turn, between two pieces: what arrived, and a step of the
    /// others if one is due.
    fn between_pieces(&mut self) {
        let now = Instant::now();
        if now < self.aside.due || self.shared.inbox.is_closing() {
            return;
        }
        self.shared.inbox.drain(&mut self.waiting);
        self.drop_what_is_over(now);
        self.let_in();
        let rows = self.plan();
        let steps = rows.iter().any(|&n| n > 0);
        if !steps && self.aside.since.elapsed() < TURN {
            return;
        }
        self.adapt_to_pieces();
        if steps {
            let started = Instant::now();
            self.step(&rows);
            self.wake_readers();
            let took = started.elapsed();
            self.aside.others += took;
            self.aside.due = Instant::now() + took.max(TURN);
        }
        self.pace.start();
        self.aside.since = Instant::now();
    }

    /// How long threads waited in the last pieces counts as in a step. One
    /// piece would be too short to tell.
    fn adapt_to_pieces(&mut self) {
        self.adapt_threads(None, self.aside.since.elapsed());
    }
}

/// Rows of the next decode, of `left` ones: as few decodes as can be, none with
/// few rows, and whole tiles.
fn rows(left: usize, most: usize) -> usize {
    let n_decodes = left.div_ceil(most).max(1);
    left.div_ceil(n_decodes).next_multiple_of(TILE).min(most).min(left)
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn a_prompt_is_computed_in_few_decodes_of_whole_tiles() {
        assert_eq!(rows(2000, 256), 256);
        assert_eq!(rows(257, 256), 192);
        assert_eq!(rows(65, 256), 65);
        assert_eq!(rows(1, 256), 1);
        assert_eq!(rows(100, 32), 32);
    }

    #[test]
    fn all_rows_are_computed() {
        for most in [16, 100, 256] {
            for whole in 1..1100 {
                let mut left = whole;
                let mut n = 0;
                while left > 0 {
                    left -= rows(left, most);
                    n += 1;
                }
                assert_eq!(n, whole.div_ceil(most), "{whole} of {most}");
            }
        }
    }
}
