//! Requests that begin alike: what they share while they run, what is kept of
//! them in RAM, and what a full memory does to them. Texts are compared as far
//! as their tokens win by a margin, because rows are computed in other batches.

#![forbid(unsafe_code)]

use futures_util::future::join_all;
use mullama::{AsyncModel, Generation, ModelOptions, MullamaError};
use mullama_test_support::TinyModel;
use mullama_tests::{agree, exactly, load, options, run, tiny, until, until_idle};
use std::time::Duration;

/// A prompt of at least `n` tokens, which ends with `last`.
fn prompt(n: usize, last: &str) -> String {
    let mut text: String = (0..n).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect();
    text.push_str(last);
    text
}

async fn ask(model: &AsyncModel, prompt: &str, n: usize) -> Generation {
    model.generate_with(prompt, exactly(n).logprobs(2)).await.unwrap()
}

/// Loads without anything kept in RAM.
fn keeping_nothing() -> ModelOptions {
    ModelOptions { prefix_cache_bytes: Some(0), ..options() }
}

#[test]
fn requests_that_come_together_compute_their_common_beginning_once() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 8, ..keeping_nothing() }).await;
        let prompts: Vec<String> = (0..8).map(|i| prompt(600, &format!("{i} and so on"))).collect();
        let results = join_all(prompts.iter().map(|prompt| ask(&tiny.model, prompt, 12))).await;
        let metrics = tiny.model.metrics();
        let all: usize = results.iter().map(|result| result.usage.prompt_tokens).sum();
        let cached: usize = results.iter().map(|result| result.usage.cached_tokens).sum();
        assert!(cached >= 7 * 600, "{cached}");
        assert_eq!(metrics.cached_tokens, cached as u64);
        assert_eq!(metrics.prompt_tokens, (all - cached) as u64, "each token is computed once");
        assert_eq!((metrics.prefix_cache_bytes, metrics.cache_bytes, metrics.preemptions), (0, 0, 0));
        let mut compared = 0;
        for (prompt, got) in prompts.iter().zip(&results) {
            compared += agree(&ask(&tiny.model, prompt, 12).await, got);
        }
        assert!(compared > 10, "{compared}");
    });
}

#[test]
fn requests_that_come_later_take_the_beginning_from_ram() {
    run(async {
        let (fresh, tiny) = tokio::join!(tiny(keeping_nothing()), tiny(options()));
        let mut compared = 0;
        ask(&tiny.model, &prompt(600, "first"), 4).await;
        for i in 0..6 {
            let prompt = prompt(600, &format!("{i} later"));
            let got = ask(&tiny.model, &prompt, 12).await;
            assert!(got.usage.cached_tokens >= 600, "{:?}", got.usage);
            assert!(got.usage.cached_tokens < got.usage.prompt_tokens);
            let expected = ask(&fresh.model, &prompt, 12).await;
            assert_eq!(expected.usage.cached_tokens, 0, "0 keeps nothing");
            compared += agree(&expected, &got);
        }
        assert!(compared > 10, "{compared}");
        let again = ask(&tiny.model, &prompt(600, "first"), 4).await;
        assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1, "the last token is always evaluated");
        let metrics = tiny.model.metrics();
        assert!(metrics.prefix_cache_bytes > 0 && metrics.cache_bytes == 0);
    });
}

#[test]
fn a_conversation_goes_on_from_its_last_answer() {
    run(async {
        let tiny = tiny(options()).await;
        let mut text = prompt(100, "");
        let mut before = 0;
        for turn in 0..4 {
            let answer = ask(&tiny.model, &text, 20).await;
            assert!(answer.usage.cached_tokens >= before, "turn {turn}: {:?}", answer.usage);
            before = answer.usage.prompt_tokens - 1;
            text.push_str(&prompt(30, &turn.to_string()));
        }
    });
}

#[test]
fn the_budget_is_kept_and_what_was_used_longest_ago_goes_first() {
    run(async {
        let budget = 1 << 18;
        let tiny = tiny(ModelOptions { prefix_cache_bytes: Some(budget), ..options() }).await;
        for i in 0..40 {
            ask(&tiny.model, &format!("{i} {}", prompt(200, "x")), 2).await;
            assert!(tiny.model.metrics().prefix_cache_bytes <= budget);
        }
        assert!(tiny.model.metrics().prefix_cache_bytes > 0);
        let newest = ask(&tiny.model, &format!("39 {}", prompt(200, "y")), 2).await;
        assert!(newest.usage.cached_tokens >= 64, "{:?}", newest.usage);
        let too_small = mullama_tests::tiny(ModelOptions { prefix_cache_bytes: Some(100), ..options() }).await;
        for _ in 0..2 {
            assert_eq!(ask(&too_small.model, &prompt(200, "x"), 2).await.usage.cached_tokens, 0);
        }
        assert_eq!(too_small.model.metrics().prefix_cache_bytes, 0);
    });
}

#[test]
fn followers_of_a_request_that_is_dropped_go_on_from_what_it_has() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 8, ..keeping_nothing() }).await;
        for round in 0..12 {
            let before = tiny.model.metrics();
            let leader = tiny.model.generate_stream(&prompt(900, "leader"), exactly(5)).await.unwrap();
            let followers: Vec<String> = (0..6).map(|i| prompt(880, &format!("{i}"))).collect();
            let dropped = async {
                until(&tiny.model, |metrics| metrics.steps > before.steps + round % 4).await;
                drop(leader);
            };
            let (results, ()) =
                tokio::join!(join_all(followers.iter().map(|follower| ask(&tiny.model, follower, 3))), dropped);
            let all: usize = results.iter().map(|result| result.usage.prompt_tokens).sum();
            until_idle(&tiny.model).await;
            let computed = tiny.model.metrics().prompt_tokens - before.prompt_tokens;
            assert!(computed < all as u64 / 2, "{computed} of {all}");
        }
        assert_eq!(tiny.model.metrics().failed, 0);
    });
}

#[test]
fn followers_of_a_request_that_times_out_go_on() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 4, ..keeping_nothing() }).await;
        for ms in [1, 3, 6, 10] {
            let leader = prompt(900, "leader");
            let leading = tiny.model.generate_with(&leader, exactly(100).timeout(Duration::from_millis(ms)));
            let following = async {
                join_all([0, 1, 2].map(|i| {
                    let model = tiny.model.clone();
                    async move { ask(&model, &prompt(880, &format!("{i}")), 3).await }
                }))
                .await
            };
            let (leader, followers) = tokio::join!(leading, following);
            assert!(leader.is_ok() || matches!(leader, Err(MullamaError::Timeout { .. })), "{leader:?}");
            assert!(followers.iter().all(|follower| follower.tokens.len() == 3));
        }
        until_idle(&tiny.model).await;
        assert_eq!(tiny.model.metrics().cache_bytes, 0);
    });
}

#[test]
fn a_slow_reader_holds_up_nobody_that_begins_alike() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 3, ..options() }).await;
        let slow = tiny.model.generate_stream(&prompt(300, "slow"), exactly(50).buffer_size(1)).await.unwrap();
        let quick = join_all([0, 1, 2, 3].map(|i| {
            let model = tiny.model.clone();
            async move { ask(&model, &prompt(300, &format!("{i}")), 20).await }
        }))
        .await;
        assert!(quick.iter().all(|quick| quick.tokens.len() == 20 && quick.usage.cached_tokens >= 300));
        drop(slow);
    });
}

#[test]
fn other_memories_share_what_they_can() {
    run(async {
        for kind in [TinyModel::sliding_window(), TinyModel::recurrent()] {
            let keeping = ModelOptions { max_concurrent: 6, prefix_cache_bytes: Some(1 << 26), ..options() };
            let tiny = load(kind.seed(3), keeping).await;
            // What is shared is kept if the others come before the first one
            // has passed the end of it, which is a matter of luck.
            for attempt in 0.. {
                let prompts: Vec<String> =
                    (0..6).map(|i| format!("{attempt}{}", prompt(300, &format!("{i} and more")))).collect();
                let together = join_all(prompts.iter().map(|prompt| ask(&tiny.model, prompt, 20))).await;
                let cached: usize = together.iter().map(|result| result.usage.cached_tokens).sum();
                let mut kept = 0;
                for (prompt, together) in prompts.iter().zip(&together) {
                    let later = ask(&tiny.model, prompt, 20).await;
                    kept += usize::from(later.usage.cached_tokens >= 290);
                    agree(&later, together);
                }
                until_idle(&tiny.model).await;
                if cached >= 5 * 290 && kept == 6 {
                    break;
                }
                assert!(attempt < 20, "{cached} cached, {kept} kept");
            }
        }
    });
}

#[test]
fn what_is_kept_outlives_a_change_of_the_pools_size() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        TinyModel::llama().seed(7).write_to(&path).unwrap();
        let pool = mullama::ModelPool::with_options(&path, options(), 2).await.unwrap();
        {
            let lease = pool.acquire().await.unwrap();
            ask(&lease, &prompt(300, "a"), 3).await;
        }
        pool.resize(6).await.unwrap();
        let lease = pool.acquire().await.unwrap();
        assert!(ask(&lease, &prompt(300, "b"), 3).await.usage.cached_tokens >= 300);
    });
}

#[test]
fn whatever_comes_and_goes_in_a_full_memory_each_request_completes() {
    run(async {
        let kinds = [TinyModel::llama(), TinyModel::sliding_window(), TinyModel::recurrent()];
        for (seed, (kind, kept)) in
            (1u64..).zip(kinds.into_iter().flat_map(|kind| [(kind.clone(), 0), (kind, 1 << 22)]))
        {
            let small = ModelOptions {
                max_concurrent: 12,
                context_size: 256,
                cache_size: Some(400),
                prefix_cache_bytes: Some(kept),
                ..options()
            };
            let tiny = load(kind.seed(5), small).await;
            let model = &tiny.model;
            let mut state = seed;
            let mut next = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let plans: Vec<_> = (0..60).map(|_| (next(3), next(120), next(60) + 1, next(4), next(20))).collect();
            let requests = plans.iter().enumerate().map(|(i, &(family, n, wanted, fate, ms))| async move {
                let prompt = format!("{}{}", prompt(40 * family as usize, ""), prompt(n as usize, &i.to_string()));
                tokio::time::sleep(Duration::from_millis(ms)).await;
                if fate == 0 {
                    let stream = model.generate_stream(&prompt, exactly(wanted as usize)).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    drop(stream);
                } else {
                    let got = model.generate_with(&prompt, exactly(wanted as usize)).await.unwrap();
                    assert_eq!(got.tokens.len(), wanted as usize);
                }
            });
            join_all(requests).await;
            until_idle(model).await;
            let metrics = model.metrics();
            assert_eq!((metrics.failed, metrics.completed + metrics.cancelled, metrics.cache_bytes), (0, 60, 0));
        }
    });
}
