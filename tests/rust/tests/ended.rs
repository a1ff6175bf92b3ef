//! Requests that end while others run: what they had computed stays where it is
//! for a while, is found by whoever begins like them, and takes nothing from
//! anybody. `prefix.rs` has what is kept in general.

#![forbid(unsafe_code)]

use futures_util::future::join_all;
use mullama::{AsyncModel, Generation, ModelOptions, TokenStream};
use mullama_tests::{agree, exactly, options, run, tiny, until, until_idle};

/// A prompt of `n` tokens that no other `name` begins with.
fn prompt(name: usize, n: usize) -> String {
    let text: String = (0..n).map(|i| char::from(b'a' + ((name + i) * (i + 3) % 23) as u8)).collect();
    format!("{name} {text}")
}

async fn ask(model: &AsyncModel, prompt: &str, n: usize) -> Generation {
    model.generate_with(prompt, exactly(n).logprobs(2)).await.unwrap()
}

fn is_cached(answer: &Generation) -> bool {
    answer.usage.cached_tokens == answer.usage.prompt_tokens - 1
}

/// A request that has begun and stays until it is dropped: nobody reads it.
async fn endless(model: &AsyncModel) -> TokenStream {
    let stream = model.generate_stream("@", exactly(900)).await.unwrap();
    until(model, |metrics| metrics.generated_tokens > 0).await;
    stream
}

/// As many cells as two requests of these tests need, and room in RAM for all.
fn small(max_concurrent: usize) -> ModelOptions {
    ModelOptions { max_concurrent, cache_size: Some(1100), prefix_cache_bytes: Some(1 << 26), ..options() }
}

#[test]
fn who_ended_beside_others_is_found_at_once_and_later() {
    run(async {
        let beside = tiny(ModelOptions { max_concurrent: 8, ..options() }).await;
        let alone = tiny(ModelOptions { prefix_cache_bytes: Some(0), ..options() }).await;
        let mut compared = 0;
        let other = endless(&beside.model).await;
        for name in 0..4 {
            let text = prompt(name, 200);
            let first = ask(&beside.model, &text, 20).await;
            let second = ask(&beside.model, &text, 20).await;
            assert!(is_cached(&second), "{:?}", second.usage);
            let expected = ask(&alone.model, &text, 20).await;
            compared += agree(&expected, &first) + agree(&expected, &second);
        }
        assert!(compared > 10, "{compared}");
        assert_eq!(beside.model.metrics().active, 1);
        drop(other);
        until_idle(&beside.model).await;
        for name in 0..4 {
            assert!(is_cached(&ask(&beside.model, &prompt(name, 200), 20).await));
        }
    });
}

#[test]
fn all_of_a_burst_is_in_ram_when_the_engine_rests() {
    run(async {
        let (burst, one_by_one) = tokio::join!(tiny(small(8)), tiny(small(8)));
        let prompts: Vec<String> = (0..8).map(|name| prompt(name, 100)).collect();
        for (prompt, n) in prompts.iter().zip(3..) {
            ask(&one_by_one.model, prompt, n).await;
        }
        let bytes = one_by_one.model.metrics().prefix_cache_bytes;
        join_all(prompts.iter().zip(3..).map(|(prompt, n)| ask(&burst.model, prompt, n))).await;
        until(&burst.model, |metrics| metrics.prefix_cache_bytes == bytes).await;
        for prompt in &prompts {
            assert!(is_cached(&ask(&burst.model, prompt, 3).await));
        }
    });
}

#[test]
fn ended_requests_take_neither_cells_nor_places_from_others() {
    run(async {
        for max_concurrent in [2, 8] {
            let tiny = tiny(small(max_concurrent)).await;
            let other = endless(&tiny.model).await;
            // Six times as many cells as there are, in turn and together.
            for name in 0..12 {
                ask(&tiny.model, &prompt(name, 300), 30).await;
            }
            let prompts: Vec<String> = (12..24).map(|name| prompt(name, 300)).collect();
            join_all(prompts.iter().map(|prompt| ask(&tiny.model, prompt, 30))).await;
            let metrics = tiny.model.metrics();
            assert_eq!((metrics.failed, metrics.preemptions), (0, 0), "{max_concurrent}");
            for name in 0..24 {
                assert!(is_cached(&ask(&tiny.model, &prompt(name, 300), 3).await), "{name}");
            }
            drop(other);
        }
    });
}
