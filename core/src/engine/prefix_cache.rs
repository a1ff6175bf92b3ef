//! What the engine keeps of evaluated tokens in RAM: a tree over tokens whose
//! nodes hold the native state of a block of positions. Sequences that begin
//! alike share the nodes of what they have in common. Pure: a state is bytes,
//! and who has it taken and put back is the caller.
//!
//! Deliberately absent: splitting a node. A block that only begins as wanted
//! is put back whole and trimmed, so blocks are short instead.

use crate::TokenId;
use std::ops::Range;

/// Positions of a node. Short, so that little is stored twice where two
/// sequences part; long enough for a copy to cost little beside its bytes.
const BLOCK: usize = 64;

/// Which parts of a sequence's memory can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any range of positions.
    Parts,
    /// A sequence from its first token on; it may be trimmed when it is put
    /// back.
    Whole,
    /// As `Whole`, and never trimmed: a recurrent state, or a sliding window.
    Exact,
}

/// See the module.
pub(super) struct PrefixCache {
    shape: Shape,
    /// Most bytes of all states; 0 keeps nothing.
    budget: u64,
    bytes: u64,
    /// By node id; holes are reused. The root is node 0.
    nodes: Vec<Option<Node>>,
    /// Counts lookups and insertions.
    clock: u64,
}

#[derive(Default)]
struct Node {
    parent: usize,
    tokens: Vec<TokenId>,
    state: Vec<u8>,
    children: Vec<usize>,
    /// The clock when it was last looked up or inserted.
    used: u64,
}

/// What was found of some tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// How many of the first tokens.
    pub(super) n: usize,
    /// The nodes to put back one after the other. The last may hold more than
    /// its share of `n`.
    pub(super) nodes: Vec<usize>,
}

const ROOT: usize = 0;

impl PrefixCache {
    pub(super) fn new(shape: Shape, budget: u64) -> Self {
        Self { shape, budget, bytes: 0, nodes: vec![Some(Node::default())], clock: 0 }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether it keeps anything at all.
    pub(super) fn is_on(&self) -> bool {
        self.budget > 0
    }

    /// Bytes of the states that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The state of a node that [`Self::find`] gave just now.
    pub(super) fn state(&self, node: usize) -> &[u8] {
        &self.node(node).state
    }

    /// The most that is kept of the first of `tokens`. Counts as a use only
    /// when the caller says so, with [`Self::touch`].
    pub(super) fn find(&self, tokens: &[TokenId]) -> Found {
        let mut found = Found::default();
        let mut at = ROOT;
        loop {
            let rest = &tokens[found.n..];
            let common = |&child: &usize| {
                let n = common_prefix(&self.node(child).tokens, rest);
                let usable = self.shape != Shape::Exact || n == self.node(child).tokens.len();
                (if usable { n } else { 0 }, child)
            };
            let Some((n, child)) = self.node(at).children.iter().map(common).max().filter(|(n, _)| *n > 0) else {
                return found;
            };
            found.n += n;
            found.nodes.push(child);
            if n < self.node(child).tokens.len() {
                return found;
            }
            at = child;
        }
    }

    /// The nodes were put to use.
    pub(super) fn touch(&mut self, found: &Found) {
        self.clock += 1;
        for &node in &found.nodes {
            self.node_mut(node).used = self.clock;
        }
    }

    /// Takes in what is not kept yet of a sequence's evaluated tokens. `take`
    /// gives the state of a range of positions, or nothing when it can't be
    /// had. What was used longest ago makes room; what does not fit into the
    /// budget is left out, from the end.
    pub(super) fn insert(&mut self, tokens: &[TokenId], mut take: impl FnMut(Range<usize>) -> Option<Vec<u8>>) {
        if !self.is_on() {
            return;
        }
        self.clock += 1;
        let mut at = ROOT;
        let mut start = 0;
        while start < tokens.len() {
            let end = match self.shape {
                Shape::Parts => tokens.len().min(start + BLOCK),
                Shape::Whole | Shape::Exact => tokens.len(),
            };
            let block = &tokens[start..end];
            match self.covering(at, block) {
                Some(child) => {
                    self.node_mut(child).used = self.clock;
                    at = child;
                }
                None => {
                    let Some(state) = take(start..end) else { return };
                    if state.len() as u64 > self.budget {
                        return;
                    }
                    self.drop_prefixes(at, block);
                    if !self.make_room(state.len() as u64) {
                        return;
                    }
                    at = self.add(at, block.to_vec(), state);
                }
            }
            start = end;
        }
    }

    /// Goes over to another context over the same model, with the same number
    /// types. What it can't keep in that shape or budget is forgotten.
    pub(super) fn adapt(&mut self, shape: Shape, budget: u64) {
        if shape != self.shape {
            *self = Self::new(shape, budget);
            return;
        }
        self.budget = budget;
        self.clock += 1;
        self.make_room(0);
    }

    /// The child that holds all of `block`.
    fn covering(&self, at: usize, block: &[TokenId]) -> Option<usize> {
        let covers = |&child: &usize| {
            let tokens = &self.node(child).tokens;
            if self.shape == Shape::Exact {
                tokens == block
            } else {
                tokens.starts_with(block)
            }
        };
        self.node(at).children.iter().copied().find(covers)
    }

    /// Children that hold only the beginning of `block` are of no more use.
    fn drop_prefixes(&mut self, at: usize, block: &[TokenId]) {
        if self.shape == Shape::Exact {
            return;
        }
        // A node that is shorter than a block has no children.
        let is_prefix = |&child: &usize| block.starts_with(&self.node(child).tokens);
        let prefixes: Vec<usize> = self.node(at).children.iter().copied().filter(is_prefix).collect();
        prefixes.into_iter().for_each(|child| self.remove(child));
    }

    /// Frees room for `n` bytes by dropping leaves that were used longest ago,
    /// none of those that were used just now.
    fn make_room(&mut self, n: u64) -> bool {
        if n > self.budget {
            return false;
        }
        while self.bytes + n > self.budget {
            let leaves = self.nodes.iter().enumerate().skip(1).filter_map(|(id, node)| {
                node.as_ref().filter(|node| node.children.is_empty() && node.used < self.clock).map(|n| (n.used, id))
            });
            let Some((_, oldest)) = leaves.min() else { return false };
            self.remove(oldest);
        }
        true
    }

    fn add(&mut self, parent: usize, tokens: Vec<TokenId>, state: Vec<u8>) -> usize {
        self.bytes += state.len() as u64;
        let node = Some(Node { parent, tokens, state, children: Vec::new(), used: self.clock });
        let id = match self.nodes.iter().position(Option::is_none) {
            Some(hole) => {
                self.nodes[hole] = node;
                hole
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.node_mut(parent).children.push(id);
        id
    }

    fn remove(&mut self, id: usize) {
        let Some(node) = self.nodes[id].take() else { return };
        self.bytes -= node.state.len() as u64;
        self.node_mut(node.parent).children.retain(|&child| child != id);
    }

    fn node(&self, id: usize) -> &Node {
        self.nodes[id].as_ref().expect("ids of nodes in the tree are of nodes that exist")
    }

    fn node_mut(&mut self, id: usize) -> &mut Node {
        self.nodes[id].as_mut().expect("ids of nodes in the tree are of nodes that exist")
    }
}

/// How many of the first tokens two lists have in common.
pub(super) fn common_prefix(one: &[TokenId], other: &[TokenId]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte a token, so that what was put together can be checked.
    fn insert(cache: &mut PrefixCache, tokens: &[TokenId]) -> usize {
        let mut taken = 0;
        cache.insert(tokens, |range| {
            taken += range.len();
            Some(tokens[range].iter().map(|&token| token as u8).collect())
        });
        taken
    }

    fn check(cache: &PrefixCache, tokens: &[TokenId], n: usize) {
        let found = cache.find(tokens);
        assert_eq!(found.n, n);
        let held: Vec<TokenId> =
            found.nodes.iter().flat_map(|&node| cache.state(node)).map(|&byte| TokenId::from(byte)).collect();
        assert_eq!(held[..n], tokens[..n]);
        let sum: usize = cache.nodes.iter().flatten().map(|node| node.state.len()).sum();
        assert_eq!(cache.bytes(), sum as u64);
        assert!(cache.bytes() <= cache.budget);
    }

    fn tokens(n: usize, last: TokenId) -> Vec<TokenId> {
        let mut tokens: Vec<TokenId> = (0..n as TokenId).map(|i| i % 100).collect();
        tokens.push(last);
        tokens
    }

    #[test]
    fn what_is_kept_is_found_token_by_token() {
        let mut cache = PrefixCache::new(Shape::Parts, 10_000);
        assert_eq!(insert(&mut cache, &tokens(200, 7)), 201);
        check(&cache, &tokens(200, 7), 201);
        check(&cache, &tokens(200, 8), 200);
        check(&cache, &tokens(100, 8), 100);
        check(&cache, &tokens(64, 111), 64);
        check(&cache, &[5, 6], 0);
    }

    #[test]
    fn conversations_over_one_prefix_store_it_once() {
        let mut cache = PrefixCache::new(Shape::Parts, 10_000);
        insert(&mut cache, &tokens(640, 1));
        for last in 2..50 {
            assert_eq!(insert(&mut cache, &tokens(640, last)), 1);
        }
        assert_eq!(cache.bytes(), 640 + 49);
        assert_eq!(insert(&mut cache, &tokens(640, 3)), 0, "what is kept is not taken again");
    }

    #[test]
    fn a_conversation_that_goes_on_takes_its_last_block_again_and_no_other() {
        let mut cache = PrefixCache::new(Shape::Parts, 10_000);
        insert(&mut cache, &tokens(150, 50));
        assert_eq!(insert(&mut cache, &tokens(180, 80)), 181 - 128);
        check(&cache, &tokens(180, 80), 181);
        insert(&mut cache, &tokens(170, 70));
        assert_eq!(cache.bytes(), 181, "a shorter one adds nothing");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_leaves_before_their_parents() {
        let mut cache = PrefixCache::new(Shape::Parts, 640 + 3);
        for last in 1..=3 {
            insert(&mut cache, &tokens(640, last));
        }
        let used = cache.find(&tokens(640, 1));
        cache.touch(&used);
        insert(&mut cache, &tokens(640, 4));
        check(&cache, &tokens(640, 2), 640);
        for last in [1, 3, 4] {
            check(&cache, &tokens(640, last), 641);
        }
        insert(&mut cache, &[vec![110], tokens(300, 9)].concat());
        check(&cache, &[vec![110], tokens(300, 9)].concat(), 302);
        let left = cache.find(&tokens(640, 1)).n;
        assert!((64..=341).contains(&left), "{left} of the older one are left, its first ones");
    }

    #[test]
    fn a_budget_that_is_too_small_keeps_the_beginning() {
        let mut cache = PrefixCache::new(Shape::Parts, 100);
        insert(&mut cache, &tokens(300, 1));
        check(&cache, &tokens(300, 1), 64);
        let mut off = PrefixCache::new(Shape::Parts, 0);
        assert_eq!(insert(&mut off, &tokens(300, 1)), 0);
        assert!(!off.is_on());
        let mut tiny = PrefixCache::new(Shape::Whole, 100);
        insert(&mut tiny, &tokens(300, 1));
        check(&tiny, &tokens(300, 1), 0);
    }

    #[test]
    fn a_whole_memory_serves_whatever_it_begins_with() {
        let mut cache = PrefixCache::new(Shape::Whole, 10_000);
        insert(&mut cache, &tokens(150, 50));
        insert(&mut cache, &tokens(180, 80));
        assert_eq!(cache.bytes(), 181, "the longer one takes the place of its beginning");
        insert(&mut cache, &tokens(100, 99));
        check(&cache, &tokens(170, 99), 170);
        check(&cache, &tokens(100, 99), 101);
    }

    #[test]
    fn an_exact_memory_serves_only_what_goes_on_from_it() {
        let mut cache = PrefixCache::new(Shape::Exact, 10_000);
        insert(&mut cache, &tokens(150, 50));
        insert(&mut cache, &tokens(180, 80));
        check(&cache, &tokens(170, 99), 151);
        check(&cache, &tokens(190, 99), 181);
        check(&cache, &tokens(140, 99), 0);
    }

    #[test]
    fn a_state_that_can_not_be_had_ends_the_insertion() {
        let mut cache = PrefixCache::new(Shape::Parts, 10_000);
        let all = tokens(200, 1);
        cache.insert(&all, |range| (range.start < 128).then(|| all[range].iter().map(|&t| t as u8).collect()));
        check(&cache, &all, 128);
    }

    #[test]
    fn a_smaller_budget_drops_what_was_used_longest_ago() {
        let mut cache = PrefixCache::new(Shape::Parts, 10_000);
        let other = [vec![110], tokens(299, 1)].concat();
        insert(&mut cache, &tokens(300, 1));
        insert(&mut cache, &other);
        cache.adapt(Shape::Parts, 320);
        check(&cache, &other, 301);
        check(&cache, &tokens(300, 1), 0);
        cache.adapt(Shape::Whole, 320);
        check(&cache, &other, 0);
    }
}
