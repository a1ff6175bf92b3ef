//! Long prompts are computed aside: others go on meanwhile, and what is
//! computed there is the same.

#![forbid(unsafe_code)]

use futures_util::{StreamExt, future::join_all};
use mullama::ModelOptions;
use mullama_test_support::TinyModel;
use mullama_tests::{Tiny, agree, exactly, load, options, run, until, until_idle};

/// Its prefill takes long enough for others to come and go meanwhile.
async fn slow(options: ModelOptions) -> Tiny {
    let model = TinyModel::llama().seed(7).n_layer(8).n_ctx_train(8192);
    load(model, ModelOptions { context_size: 8192, cache_size: Some(20_000), ..options }).await
}

/// A prompt of `n` tokens that begins unlike others.
fn prompt(first: char, n: usize) -> String {
    std::iter::once(first).chain((1..n).map(|i| char::from(b'a' + (i * i % 23) as u8))).collect()
}

#[test]
fn streams_go_on_and_short_prompts_are_answered_while_a_long_one_is_computed() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 4, ..options() }).await;
        let model = &slow.model;
        let mut stream = model.generate_stream("running", exactly(10_000)).await.unwrap();
        stream.next().await.unwrap().unwrap();
        let reader = tokio::spawn(stream.count());
        let long = model.generate_stream(&prompt('x', 6000), exactly(1)).await.unwrap();
        until(model, |metrics| metrics.active == 2).await;
        let before = model.metrics().generated_tokens;
        let short = model.generate_with("short", exactly(3)).await.unwrap();
        assert_eq!(short.tokens.len(), 3);
        let metrics = model.metrics();
        assert!(metrics.active >= 2, "the long prompt was computed before the short one was answered");
        assert!(metrics.generated_tokens >= before + 3 + 2, "the stream stood still");
        assert!(metrics.prompt_tokens < 6000);
        reader.abort();
        assert_eq!(long.collect::<Vec<_>>().await.len(), 1);
        until_idle(model).await;
    });
}

#[test]
fn a_shorter_long_prompt_does_not_wait_for_a_longer_one() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 4, ..options() }).await;
        let model = &slow.model;
        let longer = model.generate_stream(&prompt('x', 7500), exactly(1)).await.unwrap();
        until(model, |metrics| metrics.prompt_tokens > 0).await;
        model.generate_with(&prompt('y', 600), exactly(1)).await.unwrap();
        assert!(model.metrics().prompt_tokens < 7500);
        assert_eq!(longer.collect::<Vec<_>>().await.len(), 1);
    });
}

#[test]
fn a_close_in_the_middle_ends_all() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 2, ..options() }).await;
        let long = slow.model.generate_stream(&prompt('x', 8000), exactly(1)).await.unwrap();
        until(&slow.model, |metrics| metrics.active == 1).await;
        slow.model.close().await;
        let ends = long.collect::<Vec<_>>().await;
        assert!(ends.last().is_some_and(Result::is_err), "{ends:?}");
    });
}

#[test]
fn what_is_computed_does_not_depend_on_how() {
    run(async {
        let prompts: Vec<String> = (0..6).map(|i| prompt(char::from(b'k' + i), 300 + 150 * usize::from(i))).collect();
        let few_rows = ModelOptions { max_concurrent: 8, batch_size: 48, prefix_cache_bytes: Some(0), ..options() };
        let many_rows = ModelOptions { batch_size: 512, ..few_rows.clone() };
        let (few, many) = (slow(few_rows).await, slow(many_rows).await);
        let expected =
            join_all(prompts.iter().map(|prompt| few.model.generate_with(prompt, exactly(16).logprobs(2)))).await;
        let mut compared = 0;
        for (prompt, expected) in prompts.iter().zip(expected) {
            let got = many.model.generate_with(prompt, exactly(16).logprobs(2)).await.unwrap();
            compared += agree(&expected.unwrap(), &got);
        }
        assert!(compared > 10, "{compared}");
        let n: usize = prompts.iter().map(String::len).sum();
        assert!(many.model.metrics().prompt_tokens >= n as u64);
    });
}

#[test]
fn who_begins_like_a_long_prompt_waits_for_no_more_than_that() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 4, ..options() }).await;
        let model = &slow.model;
        let long = prompt('x', 7500);
        let leader = model.generate_stream(&long, exactly(1)).await.unwrap();
        until(model, |metrics| metrics.active == 1).await;
        let follower = model.generate_with(&format!("{} and else", &long[..500]), exactly(2)).await.unwrap();
        assert!(follower.usage.cached_tokens >= 490, "{:?}", follower.usage);
        assert!(model.metrics().prompt_tokens < 7500);
        assert_eq!(leader.collect::<Vec<_>>().await.len(), 1);
    });
}

#[test]
fn short_prompts_that_come_at_once_are_computed_together() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 32, prefix_cache_bytes: Some(0), ..options() }).await;
        let model = &slow.model;
        let prompts: Vec<String> = (0..24).map(|i| prompt(char::from(b'A' + i), 100)).collect();
        let together =
            |n| join_all(prompts.iter().map(move |prompt| model.generate_with(prompt, exactly(n).logprobs(2))));
        // 12 for the burst, and some for what came before it and for first
        // tokens; with at most 63 rows a step it would take 39. How many come
        // before it is a matter of luck.
        for attempt in 0.. {
            let before = model.metrics().steps;
            assert!(together(1).await.iter().all(Result::is_ok));
            let steps = model.metrics().steps - before;
            if steps < 30 {
                break;
            }
            assert!(attempt < 10, "{steps}");
        }
        let mut compared = 0;
        for (prompt, got) in prompts.iter().zip(together(6).await) {
            let expected = model.generate_with(prompt, exactly(6).logprobs(2)).await.unwrap();
            compared += agree(&expected, &got.unwrap());
        }
        assert!(compared > 30, "{compared}");
    });
}

#[test]
fn a_burst_beside_a_long_prompt_does_not_wait_for_it() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 16, ..options() }).await;
        let model = &slow.model;
        let long = model.generate_stream(&prompt('x', 7500), exactly(1)).await.unwrap();
        until(model, |metrics| metrics.active == 1).await;
        let prompts: Vec<String> = (0..9).map(|i| prompt(char::from(b'A' + i), 20)).collect();
        let burst = join_all(prompts.iter().map(|prompt| model.generate_with(prompt, exactly(2)))).await;
        assert!(burst.iter().all(Result::is_ok));
        assert!(model.metrics().prompt_tokens < 7500);
        assert_eq!(long.collect::<Vec<_>>().await.len(), 1);
    });
}

#[test]
fn a_burst_of_which_some_are_dropped_serves_the_others() {
    run(async {
        let slow = slow(ModelOptions { max_concurrent: 40, ..options() }).await;
        let model = &slow.model;
        for round in 0..4 {
            let prompts: Vec<String> =
                (0..24).map(|i| format!("{round}{}", prompt(char::from(b'A' + i), 90))).collect();
            let mut streams = join_all(prompts.iter().map(|prompt| model.generate_stream(prompt, exactly(4)))).await;
            until(model, |metrics| metrics.active > 0).await;
            // More than half of them, so that what is computed for all stops.
            let kept = streams.split_off(15 + round);
            drop(streams);
            for stream in kept {
                let tokens = stream.unwrap().collect::<Vec<_>>().await;
                assert_eq!(tokens.iter().filter(|token| token.is_ok()).count(), 4);
            }
            until_idle(model).await;
        }
        assert_eq!(model.metrics().failed, 0);
    });
}
