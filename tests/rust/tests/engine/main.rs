//! Scheduling, queueing, cancellation, deadlines and closing, on tiny models.

mod cancel;
mod memory;
mod streams;

use futures_util::{StreamExt, future::join_all};
use mullama::{FinishReason, ModelOptions, MullamaError, StreamConfig};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, load, options, run, tiny, until};

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
