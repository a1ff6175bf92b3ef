//! Prefill aside: in a context of its own, over the same weights and with the
//! same threads, whose graph is evaluated in pieces of some milliseconds.
//! Between two pieces the engine takes a step for all others when one is due.
//! So prompts are computed with as many rows at once as is quickest, and hold
//! up nobody meanwhile. Which prompts is [`turns`]. Part of [`Worker`], on the
//! engine's thread.
//!
//! After each decode the new part of the memory is copied to the engine's
//! context, where each sequence has its place all along: who follows it finds
//! it there, and whatever becomes of the sequence, the context aside can be
//! dropped.
//!
//! Deliberately absent: memories of which no part can be copied, and GPUs. There
//! a prompt is computed in steps with the others (`scheduler`). A GPU needs no
//! more than a step or two for it.
//!
//! [`turns`]: super::turns

use super::{
    loading::kv_bytes,
    sequence::{InFlight, Sequence},
    turns::{Part, ROWS, is_long},
    worker::{Limits, Worker},
};
use crate::{
    llama::{Batch, CellMemory, Context, ContextParams, DecodeError},
    memory::{Promised, SystemMemory},
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Most prompts of a decode. Each may cost the context room for a row of
/// logits.
const PROMPTS: usize = 32;

/// From the end of a step of the others to the end of their next one, where that
/// takes as long and two steps and a piece take less: less than the 150 ms that a
/// reader may wait, and long enough that a step of a few streams takes a tenth of
/// the time.
const GAP: Duration = Duration::from_millis(135);

/// Pieces without a step, after which it is looked at how their threads fared.
const SAMPLE: Duration = Duration::from_millis(100);

/// How long the context is kept for the next long prompt. Another one has to
/// plan its graphs and to get its memory again.
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
    /// What the context has not written to of its memory.
    promised: Promised,
    /// The lone sequence, by age, and the tokens that the context holds of it.
    holds: Option<(u64, usize)>,
    used: Instant,
    /// There was no memory for it. Long prompts are computed in steps with the
    /// others then, until the engine has nothing to do.
    is_refused: bool,
    /// Whether the oldest prompt had the last turn.
    oldest_had_turn: bool,
    /// A decode is under way.
    pub(super) is_computing: bool,
    /// It is one of a long prompt.
    pub(super) computes_long: bool,
    /// When the next step of the others is due.
    due: Instant,
    /// Since when the threads compute pieces, with no step between.
    since: Instant,
    /// When the piece under way began.
    piece: Instant,
    /// What the two longest pieces took, of the decode before and of this one.
    longest: [Longest; 2],
    /// The last decode ended just now, and no step came after it.
    pub(super) goes_on: bool,
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
            promised: Promised::new(0),
            holds: None,
            used: now,
            is_refused: false,
            oldest_had_turn: false,
            is_computing: false,
            computes_long: false,
            due: now,
            since: now,
            piece: now,
            longest: [Longest::default(); 2],
            goes_on: false,
            others: Duration::ZERO,
        }
    }

    /// Whether there was no memory for it.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn oldest_had_turn(&self) -> bool {
        self.oldest_had_turn
    }

    /// Most prompts of a decode.
    pub(super) fn most_together(limits: &Limits) -> usize {
        // The context has one sequence more, for parts, and a row for each.
        PROMPTS.min(limits.max_concurrent).min(ROWS.min(limits.batch_size) - 1)
    }

    fn refuse(&mut self) {
        self.drop_context();
        self.is_refused = true;
    }

    pub(super) fn drop_context(&mut self) {
        self.context = None;
        self.promised = Promised::new(0);
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
    /// Evaluates rows of a prompt aside, or of several, and meanwhile whatever
    /// the others need.
    pub(super) fn prefill_aside(&mut self, parts: &[Part]) {
        self.aside.oldest_had_turn = !self.aside.oldest_had_turn;
        if !self.open_aside(parts) {
            self.aside.refuse();
            return;
        }
        self.aside.batch.clear();
        let mut in_flight = InFlight::new(true);
        for (seq_id, part) in parts.iter().enumerate() {
            let Some(sequence) = self.active.iter_mut().find(|sequence| sequence.age == part.age) else { return };
            self.aside.computes_long |= is_long(sequence);
            sequence.is_aside = true;
            in_flight.push(sequence.ticket.share(), part.n);
            for (token, position, _) in sequence.rows(part.n) {
                self.aside.batch.push(token, position, seq_id, false);
            }
        }
        let shared = self.shared.clone();
        let Some(mut context) = self.aside.context.take() else { return };
        context.set_abort_check(move |now| shared.inbox.is_closing() || in_flight.is_not_worth_it(now));
        context.set_threads(self.pace.threads());
        let mut batch = std::mem::replace(&mut self.aside.batch, Batch::new(0));
        self.aside.others = Duration::ZERO;
        self.pace.start();
        let started = Instant::now();
        self.aside.since = started;
        if !self.aside.goes_on {
            self.aside.piece = started;
        }
        self.aside.longest = [self.aside.longest[1], Longest::default()];
        self.aside.is_computing = true;
        let result = context.decode_in_pieces(&mut batch, &mut || self.between_pieces());
        (self.aside.is_computing, self.aside.computes_long, self.aside.goes_on) = (false, false, true);
        self.adapt_to_pieces();
        self.aside.batch = batch;
        self.aside.used = Instant::now();
        self.aside.holds = None;
        match result {
            Ok(()) => {
                self.shared.metrics.steps.fetch_add(1, Relaxed);
                let took = started.elapsed().saturating_sub(self.aside.others);
                self.shared.metrics.step_time.observe(took);
                if parts.len() > 1 {
                    // What a row of a step that takes a burst would cost.
                    self.cost.observe(self.aside.batch.len(), self.aside.batch.len(), took);
                }
                let n_written = parts.iter().map(|part| part.from + part.n).sum();
                self.aside.promised.note_written(n_written, self.aside.n_cells);
                for (seq_id, part) in parts.iter().enumerate() {
                    let is_taken = self.take_part(&mut context, seq_id, *part);
                    if is_taken && parts.len() == 1 {
                        self.aside.holds = Some((part.age, part.from + part.n));
                    }
                }
            }
            Err(DecodeError::Aborted) => {}
            // It has cells for the whole prompt.
            Err(DecodeError::NoCells) => self.aside.is_refused = true,
            Err(DecodeError::Failed(error)) => {
                let rows_of =
                    |sequence: &Sequence| parts.iter().find(|part| part.age == sequence.age).map_or(0, |p| p.n);
                let rows: Vec<usize> = self.active.iter().map(rows_of).collect();
                self.fail_step(&rows, &error);
            }
        }
        if parts.len() > 1 {
            // Whoever is not done belongs to the next burst, or to none.
            self.active.iter_mut().filter(|sequence| sequence.n_past() == 0).for_each(|s| s.is_aside = false);
        }
        self.aside.context = Some(context);
    }

    /// Makes the context aside, unless it is there, and has it hold what is
    /// evaluated of the sequence, if it is one. `false` when there is no memory
    /// for that.
    fn open_aside(&mut self, parts: &[Part]) -> bool {
        let of_part = |part: &Part| self.active.iter().find(|sequence| sequence.age == part.age);
        let lone = if let [part] = parts { of_part(part) } else { None };
        let n_tokens = lone.map_or(ROWS, |sequence| sequence.tokens().len());
        let n_cells = n_tokens.next_multiple_of(CELLS).min(self.limits.cache_size);
        let held = lone.map(|sequence| (sequence.age, sequence.n_past()));
        let seq_id = lone.map(|sequence| sequence.seq_id);
        if self.aside.context.is_none() || self.aside.n_cells < n_cells {
            self.aside.drop_context();
            let options = &self.shared.options;
            let free = SystemMemory::read().free;
            let n_bytes = kv_bytes(self.context.model().header(), options, n_cells);
            if free > 0 && n_bytes > free / SHARE_OF_FREE {
                return false;
            }
            let params = ContextParams {
                n_ctx: n_cells,
                n_batch: ROWS.min(self.limits.batch_size),
                n_rows_at_once: ROWS,
                n_seq_max: Aside::most_together(&self.limits),
                n_outputs_max: 1,
                n_threads: self.limits.threads,
                flash_attention: options.flash_attention,
                type_k: options.kv_type_k,
                type_v: options.kv_type_v,
                unified: true,
                parts: true,
                pieces: true,
                memory: CellMemory::Promised,
            };
            match self.context.beside(&params) {
                Ok(context) if context.has_parts() => {
                    (self.aside.context, self.aside.n_cells) = (Some(context), n_cells);
                    self.aside.promised = Promised::new(n_bytes);
                }
                Ok(_) => return false,
                Err(error) => {
                    tracing::warn!(%error, "long prompts are computed with the others: no context beside them");
                    return false;
                }
            }
        }
        let Some(context) = &mut self.aside.context else { return false };
        if held.is_some() && self.aside.holds == held {
            return true;
        }
        if self.shared.options.flash_attention == Some(false) {
            context.clear()
        } else {
            context.clear_sequences()
        }
        let (Some(seq_id), Some((_, n_past @ 1..))) = (seq_id, held) else { return true };
        self.context.part_state(seq_id, 0..n_past).is_some_and(|state| context.append_state(0, &state))
    }

    /// Copies what was computed aside, as sequence `seq_id`, to the sequence's
    /// place. Others make room for it when there is none. `false` when the
    /// sequence is there no more.
    fn take_part(&mut self, context: &mut Context, seq_id: usize, part: Part) -> bool {
        let Part { age, from, n } = part;
        let Some(state) = context.part_state(seq_id, from..from + n) else {
            self.aside.is_refused = true;
            return false;
        };
        // Meanwhile it may have ended, or made room itself.
        let is_there = |sequence: &Sequence| sequence.age == age && sequence.n_past() == from;
        while let Some(index) = self.active.iter().position(is_there) {
            if self.context.append_state(self.active[index].seq_id, &state) {
                let n_prompt = self.active[index].evaluated(n);
                self.shared.metrics.prompt_tokens.fetch_add(n_prompt as u64, Relaxed);
                self.note_load();
                return true;
            }
            self.make_room();
        }
        self.note_load();
        false
    }

    /// The engine's turn, between two pieces.
    fn between_pieces(&mut self) {
        self.aside.longest[1].note(self.aside.piece.elapsed());
        self.take_turn();
        self.aside.piece = Instant::now();
    }

    /// What arrived, and a step of the others if one is due.
    fn take_turn(&mut self) {
        let now = Instant::now();
        if now < self.aside.due || self.shared.inbox.is_closing() {
            return;
        }
        self.shared.inbox.drain(&mut self.waiting);
        self.drop_what_is_over(now);
        self.let_in();
        self.readers.wake();
        let rows = self.plan();
        let steps = rows.iter().any(|&n| n > 0);
        if !steps && self.aside.since.elapsed() < SAMPLE {
            return;
        }
        self.adapt_to_pieces();
        if steps {
            self.step(&rows);
            self.readers.wake();
            let took = now.elapsed();
            self.aside.others += took;
            self.aside.due = Instant::now() + until_next(took, self.aside.longest);
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

/// What pieces took. The attention of a layer is one: with many tokens before it
/// that can be 40 ms, in each layer. What took long once was held up.
#[derive(Debug, Default, Clone, Copy)]
struct Longest {
    first: Duration,
    second: Duration,
}

impl Longest {
    fn note(&mut self, took: Duration) {
        self.second = self.second.max(took.min(self.first));
        self.first = self.first.max(took);
    }
}

/// How long pieces are computed until the next step, if that takes as long as the
/// one before did: as much as the gap allows, and at least as long as the step.
fn until_next(step: Duration, longest: [Longest; 2]) -> Duration {
    let piece = longest[0].second.max(longest[1].second);
    GAP.saturating_sub(step + piece).max(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pieces(took: &[u64]) -> Longest {
        let mut longest = Longest::default();
        took.iter().for_each(|&n| longest.note(ms(n)));
        longest
    }

    #[test]
    fn a_gap_has_room_for_a_piece_and_the_step_and_the_prefill_for_as_much() {
        assert_eq!(until_next(ms(5), [pieces(&[9, 10, 10]), pieces(&[8, 8])]), ms(120));
        assert_eq!(until_next(ms(12), [pieces(&[10, 10]), pieces(&[38, 10, 40, 10])]), ms(85));
        assert_eq!(until_next(ms(70), [pieces(&[10, 10]), pieces(&[])]), ms(70));
        assert_eq!(until_next(ms(20), [pieces(&[300, 300]), pieces(&[])]), ms(20));
    }

    #[test]
    fn what_was_held_up_once_shortens_no_turn() {
        assert_eq!(until_next(ms(5), [pieces(&[10, 300, 9]), pieces(&[200])]), ms(120));
    }
}
