//! Batches that are put together by hand.

use crate::{KINDS, Tiny, assert_agree, generate, long_text, read, refused};
use futures_util::FutureExt;
use mullama::{AsyncContext, Batch, ContextOptions, MullamaError, SeqId, TokenId, reference};
use mullama_test_support::{Kind, TinyModel, model::demo_model_path};
use mullama_tests::{exactly, options, run};
use std::sync::Arc;

const PROMPTS: [&str; 2] = ["The capital of France is", "1, 2, 3, 4,"];

fn sequences(sequences: &[(SeqId, &[TokenId])]) -> Batch {
    let mut batch = Batch::new();
    sequences.iter().for_each(|(seq_id, tokens)| batch.add_sequence(*seq_id, tokens));
    batch
}

/// Greedy tokens of several prompts, one sequence each, a step at a time.
async fn greedy(context: &mut AsyncContext, prompts: &[Vec<TokenId>], n: usize) -> Vec<Vec<TokenId>> {
    let mut tokens = vec![Vec::new(); prompts.len()];
    let mut next: Vec<Vec<TokenId>> = prompts.to_vec();
    for _ in 0..n {
        let rows: Vec<_> = next.iter().enumerate().map(|(id, tokens)| (id as SeqId, tokens.as_slice())).collect();
        let greedy = context.process_batch(vec![sequences(&rows)]).await.unwrap().remove(0);
        tokens.iter_mut().zip(&greedy).for_each(|(tokens, token)| tokens.push(*token));
        next = greedy.into_iter().map(|token| vec![token]).collect();
    }
    tokens
}

#[test]
fn one_sequence_gives_the_greedy_tokens_of_a_naive_loop() {
    let expected = reference::greedy(&demo_model_path(), &PROMPTS, 10).unwrap();
    run(async {
        let model = Arc::new(mullama::AsyncModel::load_with(demo_model_path(), options()).await.unwrap());
        for (prompt, expected) in PROMPTS.iter().zip(expected) {
            let mut context = AsyncContext::new(model.clone()).await.unwrap();
            let prompt = model.tokenize(prompt, true, true).unwrap();
            let got = greedy(&mut context, &[prompt], expected.len()).await;
            assert_eq!(got[0], expected);
        }
    });
}

#[test]
fn several_sequences_do_not_see_each_other() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(9)).await;
            let prompts: Vec<_> = (0..4).map(|i| tiny.tokens(&long_text(20 + 30 * i)[i..])).collect();
            let mut n_sure = 0;
            let mut together = tiny.context().await;
            let got = greedy(&mut together, &prompts, 15).await;
            for (prompt, got) in prompts.iter().zip(got) {
                let mut alone = tiny.context().await;
                let expected = alone.generate_stream_with(prompt, exactly(15).logprobs(2)).await.unwrap();
                n_sure += assert_agree(&read(expected).await, &got, &format!("{kind:?}"));
            }
            assert!(n_sure >= 15, "{kind:?}: only {n_sure}");
        }
    });
}

#[test]
fn rows_that_sequences_share_are_those_of_each() {
    run(async {
        for kind in [Kind::Llama, Kind::SlidingWindow] {
            let tiny = Tiny::load(TinyModel::new(kind).seed(9)).await;
            let beginning = tiny.tokens(&long_text(100));
            let endings: [&[TokenId]; 3] = [&[300, 301], &[302], &[303, 304, 305]];
            let mut context = tiny.context().await;
            let mut batch = Batch::new();
            for (position, token) in beginning.iter().enumerate() {
                batch.add(*token, position, &[0, 1, 2], false);
            }
            endings.iter().enumerate().for_each(|(id, ending)| batch.add_sequence(id as SeqId, ending));
            let first = context.process_batch(vec![batch]).await.unwrap().remove(0);
            let mut n_sure = 0;
            let next: Vec<Vec<TokenId>> = first.iter().map(|token| vec![*token]).collect();
            let rest = greedy(&mut context, &next, 14).await;
            for (id, ending) in endings.iter().enumerate() {
                let prompt = [beginning.as_slice(), ending].concat();
                let mut alone = tiny.context().await;
                let expected = alone.generate_stream_with(&prompt, exactly(15).logprobs(2)).await.unwrap();
                let got = [vec![first[id]], rest[id].clone()].concat();
                n_sure += assert_agree(&read(expected).await, &got, &format!("{kind:?}, sequence {id}"));
            }
            assert!(n_sure >= 15, "{kind:?}: only {n_sure}");
        }
    });
}

#[test]
fn sequences_that_came_to_hold_the_same_share_what_follows() {
    run(async {
        for kind in [Kind::Llama, Kind::SlidingWindow] {
            let tiny = Tiny::load(TinyModel::new(kind).seed(9)).await;
            let beginning = tiny.tokens(&long_text(100));
            let mut context = tiny.context().await;
            context.process_batch(vec![sequences(&[(2, &beginning), (0, &beginning)])]).await.unwrap();
            let mut batch = Batch::new();
            batch.add(300, beginning.len(), &[0, 2], true);
            batch.add(301, beginning.len() + 1, &[2], true);
            let got = context.process_batch(vec![batch]).await.unwrap().remove(0);
            let mut alone = tiny.context().await;
            let prompt = [beginning.as_slice(), &[300, 301]].concat();
            let mut all = Batch::new();
            prompt
                .iter()
                .enumerate()
                .for_each(|(place, token)| all.add(*token, place, &[0], place >= prompt.len() - 2));
            assert_eq!(alone.process_batch(vec![all]).await.unwrap().remove(0), got, "{kind:?}");
            // Sequence 0 goes on by itself, and goes back without the other.
            assert_eq!(generate(&mut context, &[], exactly(4)).await.len(), 4);
            context.truncate(beginning.len() - 10).await.unwrap();
            assert_eq!(generate(&mut context, &[], exactly(4)).await.len(), 4);
        }
    });
}

#[test]
fn every_row_can_give_its_token() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(9)).await;
        let tokens = tiny.tokens(&long_text(200));
        let mut batch = Batch::new();
        tokens.iter().enumerate().for_each(|(place, token)| batch.add(*token, place, &[0], true));
        let mut context = tiny.context().await;
        // More rows with logits than one decode gives.
        let all = context.process_batch(vec![batch]).await.unwrap().remove(0);
        assert_eq!(all.len(), tokens.len());
        let mut one_by_one = tiny.context().await;
        let mut n_same = 0;
        for (token, greedy) in tokens.iter().zip(&all) {
            let got = one_by_one.process_batch(vec![sequences(&[(0, &[*token])])]).await.unwrap();
            n_same += usize::from(got[0][0] == *greedy);
        }
        // Near ties may fall either way.
        assert!(n_same * 100 >= tokens.len() * 97, "{n_same} of {}", tokens.len());
    });
}

#[test]
fn batches_come_one_after_the_other_and_add_to_the_history() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(9)).await;
        let mut context = tiny.context().await;
        let batches = vec![sequences(&[(0, &[300, 301])]), Batch::new(), sequences(&[(1, &[302]), (0, &[303])])];
        let greedy = context.process_batch(batches).await.unwrap();
        assert_eq!(greedy.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(context.n_past(), 3);
        let mut fresh = tiny.context().await;
        let expected = generate(&mut fresh, &[300, 301, 303], exactly(6)).await;
        assert_eq!(greedy[2][1], expected[0]);
        assert_eq!(generate(&mut context, &[], exactly(6)).await, expected);
        assert!(context.process_batch(Vec::new()).await.unwrap().is_empty());
    });
}

#[test]
fn one_bad_row_keeps_all_batches_from_being_evaluated() {
    run(async {
        let tiny = Tiny::load(TinyModel::recurrent().seed(9)).await;
        let mut context = tiny.context_with(ContextOptions { context_size: Some(64), ..Default::default() }).await;
        let good = sequences(&[(0, &[300, 301])]);
        let bad = |token, position, seq_ids: &[SeqId]| {
            let mut batch = Batch::new();
            batch.add(token, position, seq_ids, true);
            vec![good.clone(), batch]
        };
        refused(context.process_batch(bad(9999, 2, &[0])).await, "token");
        refused(context.process_batch(bad(300, 3, &[0])).await, "position");
        refused(context.process_batch(bad(300, 0, &[8])).await, "seq_ids");
        refused(context.process_batch(bad(300, 0, &[])).await, "seq_ids");
        assert_eq!(context.process_batch(bad(300, 0, &[1, 2])).await.unwrap_err().code(), "unsupported");
        let long = context.process_batch(vec![good.clone(), sequences(&[(1, &[300; 63])])]).await;
        assert!(matches!(long, Err(MullamaError::PromptTooLong { tokens: 65, limit: 64 })), "{long:?}");
        assert_eq!(context.n_past(), 0);
        context.process_batch(vec![good, sequences(&[(1, &[300; 62])])]).await.unwrap();
        assert_eq!(context.n_past(), 2);
    });
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Sequences of equal tokens share a row; the others get one each.
fn random_batch(numbers: &mut Numbers, held: &mut [Vec<TokenId>], can_share: bool) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=numbers.below(20) {
        let (seq_id, token) = (numbers.below(held.len()), 300 + numbers.below(20) as TokenId);
        let position = held[seq_id].len();
        let equal = |id: &usize| *id != seq_id && held[*id] == held[seq_id];
        let mut seq_ids = vec![seq_id];
        if can_share && numbers.below(4) > 0 {
            seq_ids.extend((0..held.len()).filter(equal));
        }
        let ids: Vec<SeqId> = seq_ids.iter().map(|id| *id as SeqId).collect();
        batch.add(token, position, &ids, true);
        seq_ids.into_iter().for_each(|id| held[id].push(token));
    }
    batch
}

#[test]
fn no_order_of_calls_mixes_the_sequences_up() {
    run(async {
        let (mut n_same, mut n_checked) = (0, 0);
        for (kind, seed) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 2)]) {
            let tiny = Tiny::load(TinyModel::new(kind).seed(9).n_window(16)).await;
            let state = tiny.dir.path().join("state");
            let mut context = tiny.context().await;
            let mut fresh = tiny.context().await;
            let mut numbers = Numbers(seed);
            let mut held: Vec<Vec<TokenId>> = vec![Vec::new(); 4];
            let mut saved = held.clone();
            context.save_state(&state).await.unwrap();
            for _ in 0..40 {
                match numbers.below(8) {
                    0 => {
                        let n = numbers.below(held[0].len() + 1);
                        context.truncate(n).await.unwrap();
                        held[0].truncate(n);
                    }
                    1 => {
                        context.save_state(&state).await.unwrap();
                        saved.clone_from(&held);
                    }
                    2 => {
                        context.load_state(&state).await.unwrap();
                        held.clone_from(&saved);
                    }
                    3 if !held[0].is_empty() => held[0].extend(generate(&mut context, &[], exactly(3)).await),
                    4 => {
                        let before = held.clone();
                        let batch = random_batch(&mut numbers, &mut held, kind != Kind::Recurrent);
                        // Dropped: done in part, or, before its turn, not at all.
                        let _ = context.process_batch(vec![batch]).now_or_never();
                        context.process_batch(Vec::new()).await.unwrap();
                        let n_past = context.n_past();
                        assert!(n_past == held[0].len() || n_past == before[0].len());
                        // Which of the two can be told by the next position.
                        let place = (0..4).find(|&id| held[id].len() != before[id].len()).unwrap();
                        let mut probe = Batch::new();
                        probe.add(300, held[place].len(), &[place as SeqId], false);
                        if context.process_batch(vec![probe]).await.is_ok() {
                            held[place].push(300);
                        } else {
                            held = before;
                        }
                    }
                    _ => {
                        let batch = random_batch(&mut numbers, &mut held, kind != Kind::Recurrent);
                        let n_rows = batch.len();
                        let greedy = context.process_batch(vec![batch]).await.unwrap();
                        assert_eq!(greedy[0].len(), n_rows);
                    }
                }
                assert_eq!(context.n_past(), held[0].len());
                // Each sequence alone, in a context that never did anything else.
                let id = numbers.below(4);
                if !held[id].is_empty() {
                    held[id].push(310);
                    let got = context.process_batch(vec![sequences(&[(id as SeqId, &[310])])]).await.unwrap();
                    fresh.clear().await.unwrap();
                    let expected = fresh.process_batch(vec![sequences(&[(0, &held[id])])]).await.unwrap();
                    n_same += usize::from(got == expected);
                    n_checked += 1;
                }
            }
        }
        // Near ties may fall either way.
        assert!(n_checked > 150 && n_same * 100 >= n_checked * 95, "{n_same} of {n_checked}");
    });
}
