//! How sequences come by what others have computed: a newcomer that begins
//! like a running sequence shares its cells, one that begins like a sequence
//! whose prefill is under way waits for it, and what ended sequences had
//! computed is in RAM or comes there when it is wanted. Part of [`Worker`], on the engine's thread.
//!
//! A sequence that waits, a follower, holds no cells and takes no rows. It
//! follows an older one that makes progress, so no two wait for each other,
//! and whatever ends that one has its followers look around again.

use super::{
    prefix_cache::{Found, Shape, common_prefix},
    sequence::{Sequence, Shared},
    worker::Worker,
};
use crate::TokenId;
use std::sync::atomic::Ordering::Relaxed;

/// Fewest tokens that are worth a copy, or shared cells.
pub(super) const WORTH_TAKING: usize = 16;

/// Tokens that waiting must gain over computing at once.
const WORTH_WAITING: usize = 32;

/// In which state a sequence's memory is when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It holds what was evaluated, for those who follow; then it is cleared.
    Sound,
    /// As `Sound`, but it is not cleared.
    InItsCells,
    /// Part of it may be missing; it is cleared.
    Unsound,
}

/// Where a sequence can have the beginning of its tokens from.
#[derive(Default)]
pub(super) struct Beginning {
    /// Tokens that an active sequence has evaluated, and its index.
    ready: Option<(usize, usize)>,
    /// Tokens that one will have evaluated, as it has them, too.
    coming: Option<Shared>,
    /// What is kept in RAM.
    kept: Found,
}

impl Beginning {
    /// Tokens of it whose cells are shared with an active sequence.
    pub(super) fn n_shared(&self) -> usize {
        let ready = self.ready.map_or(0, |(n, _)| n);
        if ready < self.kept.n && self.coming.is_none() {
            0
        } else {
            self.coming.map_or(ready, |coming| coming.n)
        }
    }
}

impl Worker {
    /// Looks where tokens come from that begin a sequence of this age, which
    /// has evaluated the first `n_past` of them. The last one is always
    /// evaluated, for its logits.
    pub(super) fn look_around(&self, tokens: &[TokenId], age: u64, n_past: usize) -> Beginning {
        let tokens = &tokens[..tokens.len().saturating_sub(1)];
        let kept = self.prefix_cache.find(tokens);
        let (mut ready, mut coming) = (None, None);
        for (index, other) in self.active.iter().enumerate().filter(|(_, other)| other.age != age) {
            let common = common_prefix(other.tokens(), tokens);
            if common < WORTH_TAKING {
                continue;
            }
            let has_too_much = other.n_past() > common && !self.context.shares_cells();
            let now = if has_too_much { 0 } else { other.n_past().min(common) };
            ready = ready.max((now >= WORTH_TAKING).then_some((now, index)));
            let moves = other.age < age && other.n_past() < common && !other.ticket.is_full();
            // Who has something keeps it until another has as much.
            if moves && other.n_past() >= n_past {
                let better = coming.is_none_or(|coming: Shared| common > coming.n);
                coming = if better { Some(Shared { with: other.age, n: common }) } else { coming };
            }
        }
        let best = n_past.max(kept.n).max(ready.map_or(0, |(n, _)| n));
        Beginning { ready, coming: coming.filter(|coming| coming.n >= best + WORTH_WAITING), kept }
    }

    /// Gives a sequence the most of its beginning that is to be had, or has it
    /// wait for that.
    pub(super) fn begin(&mut self, index: usize) {
        let sequence = &self.active[index];
        let n_past = sequence.n_past();
        let Beginning { ready, coming, kept } = self.look_around(sequence.tokens(), sequence.age, n_past);
        if coming.is_some() {
            self.forget(index);
            self.active[index].follows = coming;
            return;
        }
        if let Some((n, from)) = ready.filter(|&(n, _)| n > n_past && n >= kept.n)
            && self.fork(from, index, n)
        {
            return;
        }
        if kept.n > self.active[index].n_past() && kept.n >= WORTH_TAKING {
            self.put_back(index, &kept);
        }
    }

    /// Shares the first `n` tokens of one sequence with another, which forgets
    /// what it had. Whether that could be done.
    fn fork(&mut self, from: usize, to: usize, n: usize) -> bool {
        self.forget(to);
        let (source, target) = (self.active[from].seq_id, self.active[to].seq_id);
        if !self.context.share_first(source, target, n) {
            return false;
        }
        let shared = Shared { with: self.active[from].age, n };
        self.active[to].shares = self.context.shares_cells().then_some(shared);
        self.note_taken(to, n);
        true
    }

    /// Puts what is kept in RAM back for a sequence that holds less.
    fn put_back(&mut self, index: usize, kept: &Found) {
        self.forget(index);
        let seq_id = self.active[index].seq_id;
        self.prefix_cache.touch(kept);
        if self.prefix_cache.shape() == Shape::Parts {
            for &node in &kept.nodes {
                if !self.context.append_state(seq_id, self.prefix_cache.state(node)) {
                    break;
                }
            }
        } else if let [node] = kept.nodes[..] {
            self.context.set_sequence_state(seq_id, self.prefix_cache.state(node));
        }
        let n = self.context.sequence_len(seq_id).min(kept.n);
        if n > 0 && self.context.keep_first(seq_id, n) == n {
            self.note_taken(index, n);
        }
    }

    fn note_taken(&mut self, index: usize, n: usize) {
        let n_cached = self.active[index].took_over(n);
        self.shared.metrics.cached_tokens.fetch_add(n_cached as u64, Relaxed);
    }

    /// Followers whose part is evaluated share it; those who follow nobody
    /// that makes progress look around again.
    pub(super) fn serve_followers(&mut self) {
        for index in 0..self.active.len() {
            let Some(follows) = self.active[index].follows else { continue };
            match self.active.iter().position(|other| other.age == follows.with) {
                Some(leader) if self.active[leader].n_past() < follows.n && !self.active[leader].ticket.is_full() => {}
                Some(leader) => {
                    self.take_from(leader, index);
                    // It has shown to be a beginning of several.
                    if self.prefix_cache.shape() == Shape::Exact && self.active[leader].n_past() == follows.n {
                        let beginning = self.active[leader].tokens()[..follows.n].to_vec();
                        self.keep(self.active[leader].seq_id, &beginning);
                    }
                    if self.active[index].n_past() < follows.n {
                        self.begin(index);
                    }
                }
                None => {
                    self.active[index].follows = None;
                    self.begin(index);
                }
            }
        }
    }

    /// A follower shares what its leader has of their common beginning.
    fn take_from(&mut self, leader: usize, follower: usize) {
        let Some(follows) = self.active[follower].follows.take() else { return };
        let n = self.active[leader].n_past().min(follows.n);
        if n > 0 {
            self.fork(leader, follower, n);
        }
    }

    /// Where a leader's rows must end, for memories that can't be trimmed once
    /// they were in RAM: at the end of what a follower has in common with it,
    /// so that this can be kept. Gives the most rows.
    pub(super) fn rows_to_fork(&self, sequence: &Sequence) -> usize {
        if self.prefix_cache.shape() != Shape::Exact {
            return usize::MAX;
        }
        let of_followers = self.active.iter().filter_map(|other| other.follows);
        let ends = of_followers.filter(|follows| follows.with == sequence.age).map(|follows| follows.n);
        ends.filter_map(|end| end.checked_sub(sequence.n_past())).filter(|&n| n > 0).min().unwrap_or(usize::MAX)
    }

    /// Keeps in RAM what a sequence holds, whose rows are those of `tokens`,
    /// unless it is there.
    pub(super) fn keep(&mut self, seq_id: usize, tokens: &[TokenId]) {
        let n = tokens.len();
        if n < WORTH_TAKING || !self.prefix_cache.is_on() {
            return;
        }
        let context = &mut self.context;
        let in_parts = self.prefix_cache.shape() == Shape::Parts;
        self.prefix_cache.insert(tokens, |range| {
            if in_parts {
                context.part_state(seq_id, range)
            } else {
                (context.sequence_len(seq_id) == n).then(|| context.sequence_state(seq_id)).flatten()
            }
        });
        self.shared.metrics.prefix_cache_bytes.store(self.prefix_cache.bytes(), Relaxed);
    }

    /// A sequence leaves the active ones. Those that follow it take what it
    /// has, if that is to be trusted, and look around again.
    pub(super) fn leave(&mut self, index: usize, memory: Leaves) -> Sequence {
        let age = self.active[index].age;
        let mut followers = Vec::new();
        for follower in 0..self.active.len() {
            if self.active[follower].follows.is_some_and(|follows| follows.with == age) {
                followers.push(self.active[follower].age);
                if memory != Leaves::Unsound {
                    self.take_from(index, follower);
                }
                self.active[follower].follows = None;
            }
        }
        if memory == Leaves::InItsCells {
            self.pass_on(index);
        } else {
            self.forget(index);
        }
        let sequence = self.active.remove(index);
        followers.sort_unstable();
        for age in followers {
            if let Some(follower) = self.active.iter().position(|sequence| sequence.age == age) {
                self.begin(follower);
            }
        }
        sequence
    }

    /// Gives a sequence exactly its first `n` tokens, if they are to be had at
    /// once.
    pub(super) fn begin_with(&mut self, index: usize, n: usize) -> bool {
        let sequence = &self.active[index];
        // Nobody is waited for: whoever has as much has it now.
        let Beginning { ready, kept, .. } = self.look_around(&sequence.tokens()[..=n], sequence.age, 0);
        match ready.filter(|&(ready, _)| ready == n) {
            Some((_, from)) => self.fork(from, index, n),
            None if kept.n == n => {
                self.put_back(index, &kept);
                self.active[index].n_past() == n
            }
            None => false,
        }
    }

    /// Clears the memory of a sequence.
    pub(super) fn forget(&mut self, index: usize) {
        self.pass_on(index);
        self.context.clear_sequence(self.active[index].seq_id);
        self.active[index].rewind(0);
    }

    /// Cells of a sequence that others share pass to the one of them that
    /// shares most.
    fn pass_on(&mut self, index: usize) {
        let (age, inherited) = (self.active[index].age, self.active[index].shares.take());
        let shared_by = |sequence: &Sequence| sequence.shares.filter(|shared| shared.with == age);
        let heir = self.active.iter().filter_map(|s| shared_by(s).map(|shared| (shared.n, s.age))).max();
        if let Some((_, heir)) = heir {
            for sequence in &mut self.active {
                let Some(shared) = shared_by(sequence) else { continue };
                sequence.shares = if sequence.age == heir {
                    inherited.map(|inherited| Shared { n: inherited.n.min(shared.n), ..inherited })
                } else {
                    Some(Shared { with: heir, n: shared.n })
                };
            }
        }
    }
}
