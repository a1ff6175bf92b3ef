//! Scheduling, queueing, cancellation, deadlines and closing, on tiny models.

use futures_util::{StreamExt, future::join_all};
use mullama::{AsyncModel, FinishReason, ModelOptions, MullamaError, StreamConfig};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, load, options, run, tiny, until, until_idle};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A prompt of very many tokens: the tiny vocabulary has one a byte.
fn long_prompt(n: usize) -> String {
    "0123456789".chars().cycle().take(n).collect()
}

#[test]
fn more_requests_than_sequences_are_all_served() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 3, ..options() }).await;
        let prompts: Vec<String> = (0..20).map(|i| format!("prompt {i}")).collect();
        let results = join_all(prompts.iter().map(|prompt| tiny.model.generate_with(prompt, exactly(12)))).await;
        for result in results {
            let generation = result.unwrap();
            assert_eq!(generation.tokens.len(), 12);
            assert_eq!(generation.finish_reason, FinishReason::Length);
            assert_eq!(generation.usage.completion_tokens, 12);
        }
        let metrics = tiny.model.metrics();
        assert_eq!((metrics.completed, metrics.generated_tokens), (20, 240));
        // Three at once: far fewer steps than one request after the other.
        assert!(metrics.steps < 140, "{} steps", metrics.steps);
    });
}

#[test]
fn a_full_queue_refuses_one_more_and_serves_the_rest() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 1, max_queue: 2, ..options() }).await;
        let running = tiny.model.generate_stream("a", exactly(900).buffer_size(1)).await.unwrap();
        until(&tiny.model, |metrics| metrics.active == 1).await;
        let first = tiny.model.generate_stream("b", exactly(2)).await.unwrap();
        let second = tiny.model.generate_stream("c", exactly(2)).await.unwrap();
        let third = tiny.model.generate_stream("d", exactly(2)).await;
        assert!(matches!(third, Err(MullamaError::QueueFull { limit: 2 })), "{third:?}");
        drop(running);
        assert_eq!(first.collect::<Vec<_>>().await.len(), 2);
        assert_eq!(second.collect::<Vec<_>>().await.len(), 2);
    });
}

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
fn a_small_batch_takes_a_prompt_in_parts() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 2, batch_size: 16, ..options() }).await;
        let prompts = [long_prompt(40), long_prompt(300)];
        let results = join_all(prompts.iter().map(|prompt| tiny.model.generate_with(prompt, exactly(5)))).await;
        for result in results {
            assert_eq!(result.unwrap().tokens.len(), 5);
        }
    });
}

#[test]
fn requests_that_find_a_free_sequence_do_not_count_as_waiting() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 4, max_queue: 1, ..options() }).await;
        let results = join_all((0..5).map(|_| tiny.model.generate_with("a", exactly(3)))).await;
        for result in results {
            assert_eq!(result.unwrap().tokens.len(), 3);
        }
    });
}

#[test]
fn a_long_run_of_one_kind_is_tokenized() {
    run(async {
        let tiny = tiny(options()).await;
        let tokens = tiny.model.tokenize(&"a".repeat(100_000), false, false).unwrap();
        assert!(!tokens.is_empty());
        let result = tiny.model.generate_with(&"7".repeat(100_000), exactly(1)).await;
        assert!(matches!(result, Err(MullamaError::PromptTooLong { .. })), "{result:?}");
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
fn cancelling_a_stream_ends_it_without_an_error() {
    run(async {
        let tiny = tiny(options()).await;
        let mut stream = tiny.model.generate_stream("a", exactly(1000)).await.unwrap();
        stream.next().await.unwrap().unwrap();
        stream.cancel();
        while let Some(token) = stream.next().await {
            token.unwrap();
        }
        assert_eq!(stream.finish_reason(), Some(FinishReason::Cancelled));
        assert!(stream.usage().completion_tokens < 1000);
    });
}

#[test]
fn a_slow_reader_pauses_its_own_sequence_and_no_other() {
    run(async {
        let tiny = tiny(options()).await;
        let slow = tiny.model.generate_stream("slow", exactly(200).buffer_size(4)).await.unwrap();
        let quick = tiny.model.generate_with("quick", exactly(150)).await.unwrap();
        assert_eq!(quick.tokens.len(), 150);
        assert_eq!(slow.usage().completion_tokens, 4, "the slow one stopped at its buffer");
        let steps = tiny.model.metrics().steps;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(tiny.model.metrics().steps, steps, "nothing spins while all are paused");
        assert_eq!(slow.collect::<Vec<_>>().await.len(), 200, "it goes on when it is read, and loses nothing");
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

#[test]
fn a_full_memory_makes_requests_wait_and_none_fails() {
    run(async {
        let small = ModelOptions { max_concurrent: 8, context_size: 200, cache_size: Some(256), ..options() };
        let tiny = tiny(small).await;
        let prompts: Vec<String> = (0..8).map(|i| format!("{i}{}", long_prompt(20))).collect();
        let results = join_all(prompts.iter().map(|prompt| tiny.model.generate_with(prompt, exactly(120)))).await;
        for result in results {
            assert_eq!(result.unwrap().tokens.len(), 120);
        }
        let metrics = tiny.model.metrics();
        assert_eq!((metrics.completed, metrics.failed, metrics.active), (8, 0, 0));
    });
}

#[test]
fn a_request_that_gave_up_its_memory_goes_on_where_it_was() {
    run(async {
        let alone = tiny(ModelOptions { max_concurrent: 1, context_size: 200, ..options() }).await;
        let full = ModelOptions { max_concurrent: 2, context_size: 200, cache_size: Some(256), ..options() };
        let crowded = tiny(full).await;
        let prompts = [long_prompt(60), long_prompt(61)];
        let results = join_all(prompts.iter().map(|p| crowded.model.generate_with(p, exactly(130).logprobs(2)))).await;
        let mut n_prompts = 0;
        for (prompt, result) in prompts.iter().zip(results) {
            let expected = alone.model.generate_with(prompt, exactly(130).logprobs(2)).await.unwrap();
            let got = result.unwrap();
            n_prompts += got.usage.prompt_tokens;
            // Rows are computed in other batches, so near-ties may fall either
            // way; until one comes up the tokens are the same.
            for (place, want) in expected.logprobs.unwrap().iter().enumerate() {
                if want.top[0].logprob - want.top[1].logprob < 0.02 {
                    break;
                }
                assert_eq!(got.tokens[place], want.token_id, "at {place} of {prompt}");
            }
        }
        let metrics = crowded.model.metrics();
        assert!(metrics.preemptions > 0);
        assert_eq!(metrics.prompt_tokens + metrics.cached_tokens, n_prompts as u64, "nothing is computed again");
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
fn closing_ends_what_runs_and_refuses_what_comes() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 1, ..options() }).await;
        let model = tiny.model.clone();
        let running = model.generate_stream("a", exactly(1000).buffer_size(1)).await.unwrap();
        let queued = model.generate_stream("b", exactly(5)).await.unwrap();
        until(&model, |metrics| metrics.active == 1).await;
        assert!(model.is_ready());
        model.close().await;
        model.close().await;
        assert!(!model.is_ready());
        for stream in [running, queued] {
            let last = stream.collect::<Vec<_>>().await.pop().unwrap();
            assert!(matches!(last, Err(MullamaError::Closed(_))), "{last:?}");
        }
        assert!(matches!(model.generate("c", 1).await, Err(MullamaError::Closed(_))));
        assert!(matches!(model.tokenize("c", true, true), Err(MullamaError::Closed(_))));
        assert_eq!(model.model_info().architecture, "llama", "facts stay known");
        let metrics = model.metrics();
        assert_eq!((metrics.active, metrics.queued, metrics.failed), (0, 0, 2));
    });
}

#[test]
fn a_stream_keeps_the_engine_when_the_model_is_dropped() {
    run(async {
        let tiny = tiny(options()).await;
        let stream = tiny.model.generate_stream("a", exactly(40)).await.unwrap();
        drop(tiny);
        let tokens: Vec<_> = stream.collect().await;
        assert_eq!(tokens.len(), 40);
        assert!(tokens.iter().all(Result::is_ok));
    });
}

#[test]
fn two_models_work_at_once() {
    run(async {
        let (one, two) = tokio::join!(tiny(options()), load(TinyModel::llama().seed(8), options()));
        let (first, second) =
            tokio::join!(one.model.generate_with("a", exactly(50)), two.model.generate_with("a", exactly(50)));
        assert_ne!(first.unwrap().tokens, second.unwrap().tokens, "two seeds, two models");
        one.model.close().await;
        assert_eq!(two.model.generate_with("b", exactly(3)).await.unwrap().tokens.len(), 3);
    });
}

#[test]
fn other_memories_than_a_plain_cache_work_too() {
    run(async {
        for kind in [TinyModel::sliding_window(), TinyModel::recurrent()] {
            let tiny = load(kind.seed(3), ModelOptions { max_concurrent: 4, ..options() }).await;
            let prompts: Vec<String> = (0..9).map(|i| long_prompt(10 + 30 * i)).collect();
            let results = join_all(prompts.iter().map(|prompt| tiny.model.generate_with(prompt, exactly(30)))).await;
            for result in results {
                assert_eq!(result.unwrap().tokens.len(), 30);
            }
        }
    });
}

#[test]
fn a_load_can_be_stopped_by_its_progress_callback() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        TinyModel::llama().write_to(&path).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let progress = move |share: f32| {
            assert!((0.0..=1.0).contains(&share));
            counted.fetch_add(1, Ordering::Relaxed) < 2
        };
        let stopped = ModelOptions { progress: Some(Arc::new(progress)), ..options() };
        let result = AsyncModel::load_with(&path, stopped).await;
        assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");
        assert_eq!(calls.load(Ordering::Relaxed), 3, "it is not asked again");

        let panics = ModelOptions { progress: Some(Arc::new(|_| panic!("on purpose"))), ..options() };
        let result = AsyncModel::load_with(&path, panics).await;
        assert!(matches!(result, Err(MullamaError::Internal(_) | MullamaError::Cancelled)), "{result:?}");
    });
}

#[test]
fn a_load_can_be_stopped_by_a_token_or_by_dropping_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        TinyModel::llama().write_to(&path).unwrap();
        let token = tokio_util::sync::CancellationToken::new();
        token.cancel();
        let result = AsyncModel::load_with(&path, ModelOptions { cancellation: Some(token), ..options() }).await;
        assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");

        // The load waits inside its first callback until the future is gone.
        let (started, has_started) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let shares = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = shares.clone();
        let progress = move |share: f32| {
            seen.lock().unwrap().push(share);
            let _ = started.send(());
            let _ = may_go_on.lock().unwrap().recv();
            true
        };
        let loading = tokio::spawn({
            let path = path.clone();
            async move {
                AsyncModel::load_with(&path, ModelOptions { progress: Some(Arc::new(progress)), ..options() }).await
            }
        });
        tokio::task::spawn_blocking(move || has_started.recv().unwrap()).await.unwrap();
        loading.abort();
        assert!(loading.await.unwrap_err().is_cancelled());
        drop(go_on);
        // The engine's thread drops the callback when it ends.
        while Arc::strong_count(&shares) > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(*shares.lock().unwrap(), [0.0], "nothing was loaded after the drop");
    });
}

#[test]
fn invalid_requests_start_nothing() {
    run(async {
        let tiny = tiny(ModelOptions { context_size: 64, ..options() }).await;
        let refused = tiny.model.generate_with("a", StreamConfig::new().temperature(f32::NAN)).await;
        assert!(matches!(&refused, Err(MullamaError::InvalidInput { field, .. }) if field == "temperature"));
        let long = tiny.model.generate(&long_prompt(300), 5).await;
        assert!(matches!(long, Err(MullamaError::PromptTooLong { limit: 63, tokens }) if tokens > 63), "{long:?}");
        let metrics = tiny.model.metrics();
        assert_eq!((metrics.steps, metrics.queued, metrics.active), (0, 0, 0));
    });
}

#[test]
fn the_build_uses_the_vector_instructions() {
    #[cfg(target_arch = "x86_64")]
    for feature in ["AVX2 = 1", "FMA = 1", "F16C = 1", "BMI2 = 1"] {
        assert!(mullama::system_info().contains(feature), "{}", mullama::system_info());
    }
    assert!(!mullama::system_info().contains("OPENMP"), "{}", mullama::system_info());
}
