//! Cancelled requests and deadlines.

use crate::long_prompt;
use futures_util::{StreamExt, future::join_all};
use mullama::{ModelOptions, MullamaError};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, load, options, run, tiny, until, until_idle};
use std::time::Duration;

#[test]
fn a_cancelled_request_frees_its_place_in_every_phase() {
    run(async {
        let model = TinyModel::llama().seed(7).n_layer(4).n_ctx_train(16_384);
        let tiny = load(model, ModelOptions { max_concurrent: 1, context_size: 16_384, ..options() }).await;
        let model = &tiny.model;

        let decoding = model.generate_stream("a", exactly(5000)).await.unwrap();
        until(model, |metrics| metrics.generated_tokens > 0).await;
        let queued = model.generate_stream("b", exactly(5)).await.unwrap();
        until(model, |metrics| metrics.queued == 1).await;
        drop(queued);
        until(model, |metrics| metrics.queued == 0 && metrics.cancelled == 1).await;
        assert_eq!(model.metrics().active, 1, "the running request goes on");
        drop(decoding);
        until_idle(model).await;

        let before = model.metrics();
        let prefilling = model.generate_stream(&long_prompt(16_000), exactly(5)).await.unwrap();
        until(model, |metrics| metrics.prompt_tokens > before.prompt_tokens).await;
        drop(prefilling);
        until_idle(model).await;
        let after = model.metrics();
        assert!(after.prompt_tokens < before.prompt_tokens + 16_000, "the prefill ended early");
        assert_eq!(after.cancelled, 3);
        assert_eq!(after.cache_bytes, 0, "no sequence keeps its memory");
        assert_eq!(model.generate_with("after", exactly(3)).await.unwrap().tokens.len(), 3);
    });
}

#[test]
fn a_cancelled_prefill_leaves_its_neighbours_as_they_were() {
    run(async {
        let model = TinyModel::llama().seed(7).n_ctx_train(8192);
        let tiny = load(model, ModelOptions { max_concurrent: 4, context_size: 8192, ..options() }).await;
        let model = &tiny.model;
        let alone = model.generate_with("neighbour", exactly(300).logprobs(2)).await.unwrap();
        let beside = async {
            for i in 0..12 {
                let prompt = format!("{i}{}", long_prompt(7000));
                let stream = model.generate_stream(&prompt, exactly(5)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(3 + i)).await;
                drop(stream);
            }
        };
        let (disturbed, ()) = tokio::join!(model.generate_with("neighbour", exactly(300)), beside);
        let disturbed = disturbed.unwrap();
        assert_eq!(disturbed.tokens.len(), 300);
        // Near-ties may fall either way in other batches; up to the first one
        // the tokens are the same.
        for (place, want) in alone.logprobs.unwrap().iter().enumerate() {
            if want.top[0].logprob - want.top[1].logprob < 0.02 {
                break;
            }
            assert_eq!(disturbed.tokens[place], want.token_id, "at {place}");
        }
        until_idle(model).await;
        assert_eq!(model.metrics().cancelled, 12);
    });
}

#[test]
fn dropping_the_future_of_generate_stops_the_work() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 1, ..options() }).await;
        {
            let generate = tiny.model.generate_with("a", exactly(1000));
            let started = until(&tiny.model, |metrics| metrics.generated_tokens > 0);
            tokio::select! {
                result = generate => panic!("ended by itself: {result:?}"),
                () = started => {}
            }
        }
        until_idle(&tiny.model).await;
        assert_eq!(tiny.model.metrics().cancelled, 1);
    });
}

#[test]
fn cancelled_neighbours_change_nothing() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 8, ..options() }).await;
        let model = &tiny.model;
        // Prompts whose greedy tokens win by a margin, so that the batch they
        // are computed in can't change them.
        let mut sure = Vec::new();
        for i in 0..60 {
            let prompt = format!("{i} sure");
            let alone = model.generate_with(&prompt, exactly(8).logprobs(2)).await.unwrap();
            let margin = |place: &mullama::TokenLogprobs| place.top[0].logprob - place.top[1].logprob;
            if alone.logprobs.iter().flatten().all(|place| margin(place) > 0.02) {
                sure.push((prompt, alone.tokens));
            }
        }
        assert!(sure.len() >= 5, "only {} sure prompts", sure.len());
        let requests = (0..1000).map(|i| {
            let sure = &sure;
            async move {
                let (prompt, tokens) = &sure[i % sure.len()];
                // Three of ten are dropped at various moments.
                if i % 10 < 3 {
                    let stream = model.generate_stream(prompt, exactly(500)).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(700 * (i as u64 % 17))).await;
                    drop(stream);
                } else {
                    let generation = model.generate_with(prompt, exactly(8)).await.unwrap();
                    assert_eq!(&generation.tokens, tokens, "{prompt}");
                }
            }
        });
        join_all(requests).await;
        until_idle(model).await;
        let metrics = model.metrics();
        assert_eq!((metrics.completed, metrics.cancelled, metrics.failed), (760, 300, 0));
        assert_eq!(metrics.cache_bytes, 0);
    });
}

#[test]
fn a_deadline_ends_a_request_with_its_text_so_far() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 1, ..options() }).await;
        // The reader never takes a token, so the request can't end by itself.
        let timeout = Duration::from_millis(200);
        let mut stream = tiny.model.generate_stream("a", exactly(50).buffer_size(2).timeout(timeout)).await.unwrap();
        let queued = tiny.model.generate_with("b", exactly(5).timeout(Duration::from_millis(50))).await;
        match queued {
            Err(MullamaError::Timeout { partial, after_ms }) => assert_eq!((partial.as_str(), after_ms), ("", 50)),
            other => panic!("{other:?}"),
        }
        until_idle(&tiny.model).await;
        let mut text = String::new();
        let end = loop {
            match stream.next().await.expect("a timed-out stream ends with its error") {
                Ok(token) => text.push_str(&token.text),
                Err(error) => break error,
            }
        };
        match end {
            MullamaError::Timeout { partial, after_ms } => assert_eq!((partial, after_ms), (text, 200)),
            other => panic!("{other:?}"),
        }
        assert!(stream.next().await.is_none(), "the error is the last item");
    });
}

#[test]
fn the_models_timeout_is_the_default() {
    run(async {
        let tiny = tiny(ModelOptions { timeout: Some(Duration::from_millis(100)), ..options() }).await;
        let stream = tiny.model.generate_stream("a", exactly(500).buffer_size(1)).await.unwrap();
        until_idle(&tiny.model).await;
        let last = stream.collect::<Vec<_>>().await.pop().unwrap();
        assert!(matches!(last, Err(MullamaError::Timeout { after_ms: 100, .. })), "{last:?}");
    });
}
