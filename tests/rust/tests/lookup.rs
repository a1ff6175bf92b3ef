//! Prompt lookup changes no result, wherever in a draft a request ends or
//! pauses. A bias leaves a tiny model two or three tokens to choose from, so
//! its text repeats itself and what it says does not hang on how rows are put
//! into steps.

#![forbid(unsafe_code)]

use futures_util::StreamExt;
use mullama::{AsyncModel, EngineMetrics, FinishReason, Generation, ModelOptions, StreamConfig};
use mullama_test_support::vocab::EOS;
use mullama_tests::{Tiny, options, run, tiny, until, until_idle};
use std::time::Duration;

/// The same model without and with lookup.
async fn pair(change: impl Fn(ModelOptions) -> ModelOptions) -> [Tiny; 2] {
    let load = |prompt_lookup| tiny(change(ModelOptions { prompt_lookup, ..options() }));
    [load(false).await, load(true).await]
}

async fn token(model: &AsyncModel, text: &str) -> i32 {
    *model.tokenize_async(text, false).await.unwrap().last().unwrap()
}

/// Says nothing but `a`, now and then `b` and, if `ends`, at last the end: each
/// with a chance that the seed makes a place of.
async fn config(model: &AsyncModel, ends: bool) -> StreamConfig {
    let config = StreamConfig::new().max_tokens(100).temperature(1.0).top_k(0).top_p(1.0).min_p(0.0);
    let (a, b) = (token(model, "a").await, token(model, "b").await);
    let mut bias = vec![(a, 400.0), (b, 394.0)];
    if ends {
        bias.push((EOS, 437.0));
    }
    config.logit_bias(bias).ignore_eos(!ends)
}

async fn same(models: &[Tiny; 2], prompt: &str, config: &StreamConfig) -> Generation {
    let [off, on] = [&models[0].model, &models[1].model].map(|model| model.generate_with(prompt, config.clone()));
    let (off, on) = (off.await.unwrap(), on.await.unwrap());
    assert_eq!(off.tokens, on.tokens, "{config:?}");
    assert_eq!((&off.text, &off.finish_reason, off.usage), (&on.text, &on.finish_reason, on.usage), "{config:?}");
    assert_eq!(on.usage.completion_tokens, on.tokens.len());
    on
}

/// What the metrics say of requests that were served alone.
fn assert_counts(metrics: &EngineMetrics, n_tokens: usize) {
    assert!(metrics.accepted_tokens > 0, "nothing was guessed right: {metrics:?}");
    assert!(metrics.accepted_tokens <= metrics.drafted_tokens);
    assert_eq!(metrics.generated_tokens, n_tokens as u64);
}

#[test]
fn each_token_is_of_a_step_or_of_a_right_guess() {
    run(async {
        let models = pair(|options| options).await;
        let config = config(&models[1].model, false).await;
        let mut n_tokens = 0;
        for seed in 0..12 {
            n_tokens += same(&models, "a a a a", &config.clone().seed(seed)).await.tokens.len();
        }
        let [off, on] = [&models[0], &models[1]].map(|tiny| tiny.model.metrics());
        assert_counts(&on, n_tokens);
        assert_eq!((off.drafted_tokens, off.accepted_tokens), (0, 0));
        assert_eq!(on.steps + on.accepted_tokens, off.steps);
        assert_eq!((on.completed, on.failed), (off.completed, off.failed));
        assert_eq!(on.prompt_tokens + on.cached_tokens, off.prompt_tokens + off.cached_tokens);
    });
}

#[test]
fn limits_stops_and_ends_count_wherever_they_fall() {
    run(async {
        let models = pair(|options| options).await;
        let free = config(&models[1].model, false).await;
        let ends = config(&models[1].model, true).await;
        let (mut n_tokens, mut stopped, mut ended) = (0, 0, 0);
        for n in 1..40 {
            let got = same(&models, "a a a", &free.clone().seed(1).max_tokens(n)).await;
            assert_eq!((got.tokens.len(), &got.finish_reason), (n, &FinishReason::Length));
            n_tokens += n;

            // The end of what a longer one says, so that it comes at each place.
            let whole = same(&models, "a a a", &free.clone().seed(2).max_tokens(n + 3)).await;
            let stop = whole.text[whole.text.len().saturating_sub(n)..].to_owned();
            let got = same(&models, "a a a", &free.clone().seed(2).stop([stop.as_str()])).await;
            assert!(!got.text.contains(&stop), "'{}' has '{stop}'", got.text);
            stopped += usize::from(matches!(got.finish_reason, FinishReason::StopString(_)));
            n_tokens += whole.tokens.len() + got.tokens.len();

            let got = same(&models, "a a a", &ends.clone().seed(n as u64)).await;
            ended += usize::from(got.finish_reason == FinishReason::Stop);
            n_tokens += got.tokens.len();
        }
        assert!(stopped > 20 && ended > 10, "{stopped} stop strings, {ended} ends");
        assert_counts(&models[1].model.metrics(), n_tokens);
    });
}

#[test]
fn a_context_that_is_full_ends_a_request_at_the_same_token() {
    run(async {
        for context_size in [40, 41, 47, 64] {
            let models = pair(|options| ModelOptions { context_size, max_concurrent: 1, ..options }).await;
            let config = config(&models[1].model, false).await;
            for seed in 0..4 {
                let got = same(&models, "a a a", &config.clone().seed(seed).max_tokens(1000)).await;
                assert_eq!(got.finish_reason, FinishReason::ContextFull);
                assert_eq!(got.usage.prompt_tokens + got.usage.completion_tokens, context_size);
            }
        }
    });
}

#[test]
fn a_reader_that_is_slow_gets_every_token_and_nobody_is_ahead_of_it() {
    run(async {
        for buffer_size in [1, 2, 5] {
            let models = pair(|options| options).await;
            let config = config(&models[1].model, false).await.seed(3).max_tokens(60).buffer_size(buffer_size);
            let expected = models[0].model.generate_with("a a a", config.clone()).await.unwrap();
            let model = &models[1].model;
            let mut stream = model.generate_stream("a a a", config).await.unwrap();
            let (mut tokens, mut text) = (Vec::new(), String::new());
            loop {
                let wanted = (tokens.len() + buffer_size).min(60) as u64;
                until(model, |metrics| metrics.generated_tokens >= wanted).await;
                assert_eq!(model.metrics().generated_tokens, wanted, "no more than are buffered");
                let Some(token) = stream.next().await else { break };
                let token = token.unwrap();
                assert_eq!(token.index, tokens.len());
                tokens.push(token.token_id);
                text.push_str(&token.text);
            }
            assert_eq!((tokens, text), (expected.tokens, expected.text));
            assert_eq!(stream.usage(), expected.usage);
        }
    });
}

#[test]
fn requests_that_are_cancelled_anywhere_leave_nothing_behind() {
    run(async {
        let models = pair(|options| options).await;
        let model = &models[1].model;
        let config = config(model, false).await;
        for n in 0..60 {
            let long = config.clone().seed(n).max_tokens(900);
            let mut stream = model.generate_stream("a a a", long).await.unwrap();
            for _ in 0..n % 7 {
                stream.next().await.unwrap().unwrap();
            }
            tokio::time::sleep(Duration::from_micros(137 * n)).await;
            if n % 2 == 0 {
                stream.cancel();
            }
            drop(stream);
            if n % 10 == 0 {
                same(&models, "a a a", &config.clone().seed(n)).await;
            }
        }
        until_idle(model).await;
        let metrics = model.metrics();
        assert_eq!(metrics.cache_bytes, 0);
        assert!(metrics.accepted_tokens > 0);
        same(&models, "a a a", &config.seed(9)).await;
    });
}

#[test]
fn penalties_see_the_tokens_of_a_draft() {
    run(async {
        let models = pair(|options| options).await;
        let config = config(&models[1].model, false).await;
        let mut n_tokens = 0;
        for seed in 0..6 {
            // The bias outweighs them until there are many.
            let config = config.clone().seed(seed).frequency_penalty(0.3).repeat_last_n(30).logprobs(2);
            let got = same(&models, "a a a", &config).await;
            assert_eq!(got.logprobs.map(|logprobs| logprobs.len()), Some(got.tokens.len()));
            n_tokens += got.tokens.len();
        }
        assert_counts(&models[1].model.metrics(), n_tokens);
    });
}
