//! The order of calls, slow readers, dropped futures, closing.

use crate::{Tiny, config, generate, ids, long_text, read};
use futures_util::{FutureExt, StreamExt};
use mullama::{AsyncContext, Batch, ContextOptions, MullamaError};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, options, run, until_idle};
use std::{sync::Arc, time::Duration};

/// A model whose steps take long enough to be interrupted.
fn slow() -> TinyModel {
    TinyModel::llama().seed(7).n_layer(4).n_embd(256).n_ctx_train(16_384)
}

#[test]
fn calls_behind_an_unread_stream_get_their_turn() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let stream = context.generate_stream_with(&[300, 301], exactly(50).buffer_size(1)).await.unwrap();
        let mut batch = Batch::new();
        batch.add_sequence(0, &[302]);
        batch.add_sequence(1, &[303]);
        let greedy = context.process_batch(vec![batch]).await.unwrap();
        assert_eq!((greedy[0].len(), context.n_past()), (2, 53));
        let second = context.generate_stream_with(&[], exactly(3).buffer_size(1)).await.unwrap();
        context.save_state(tiny.dir.path().join("state")).await.unwrap();
        context.truncate(1).await.unwrap();
        context.clear().await.unwrap();
        // All tokens of both are there, though nobody read them until now.
        assert_eq!((read(stream).await.len(), read(second).await.len()), (50, 3));
    });
}

#[test]
fn a_slow_reader_pauses_the_generation() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let mut stream = context.generate_stream_with(&[300], exactly(500).buffer_size(4)).await.unwrap();
        stream.next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(context.n_past() <= 1 + 1 + 4, "{} tokens", context.n_past());
        assert_eq!(read(stream).await.len(), 499);
    });
}

#[test]
fn a_dropped_batch_stays_and_is_evaluated_by_the_next_call() {
    run(async {
        for model in [slow(), TinyModel::recurrent().seed(5), TinyModel::sliding_window().seed(5)] {
            let tiny = Tiny::load(model).await;
            let prompt = tiny.tokens(&long_text(900));
            let mut batch = Batch::new();
            batch.add_sequence(0, &prompt);
            let mut fresh = tiny.context_with(ContextOptions { batch_size: Some(64), ..Default::default() }).await;
            fresh.process_batch(vec![batch.clone()]).await.unwrap();
            let expected = read(fresh.generate_stream_with(&[], exactly(10).logprobs(2)).await.unwrap()).await;

            let mut context = tiny.context_with(ContextOptions { batch_size: Some(64), ..Default::default() }).await;
            {
                let mut call = std::pin::pin!(context.process_batch(vec![batch]));
                // Sent by the first poll; dropped while it is under way, or before.
                let _ = call.as_mut().now_or_never();
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            context.process_batch(Vec::new()).await.unwrap();
            let n = context.n_past();
            assert!(n == prompt.len() || n == 0, "{n} tokens");
            if n == prompt.len() {
                let got = generate(&mut context, &[], exactly(10)).await;
                assert!(crate::assert_agree(&expected, &got, "a dropped batch") >= 3);
            }
        }
    });
}

#[test]
fn a_generation_that_was_dropped_before_its_turn_appends_nothing() {
    run(async {
        let tiny = Tiny::load(slow()).await;
        let mut context = tiny.context().await;
        let stream = context.generate_stream_with(&[300], exactly(100)).await.unwrap();
        let served = context.generate_stream_with(&[301, 302], exactly(5)).now_or_never().is_some();
        assert_eq!(read(stream).await.len(), 100);
        context.process_batch(Vec::new()).await.unwrap();
        assert!(served || context.n_past() == 101, "{} tokens", context.n_past());
    });
}

#[test]
fn a_dropped_stream_stops_a_long_prompt() {
    run(async {
        let tiny = Tiny::load_with(slow(), mullama::ModelOptions { context_size: 16_384, ..options() }).await;
        let mut context = tiny.context().await;
        let prompt = tiny.tokens(&long_text(15_000));
        let stream = context.generate_stream_with(&prompt, exactly(1)).await.unwrap();
        drop(stream);
        context.truncate(1).await.unwrap();
        assert_eq!(context.n_past(), 1);
        assert_eq!(generate(&mut context, &[300], exactly(2)).await.len(), 2);
    });
}

#[test]
fn a_deadline_ends_a_stream_and_nothing_else() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let config = exactly(500).buffer_size(1).timeout(Duration::from_millis(100));
        let stream = context.generate_stream_with(&[300], config).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        let last = stream.collect::<Vec<_>>().await.pop().unwrap();
        assert!(matches!(last, Err(MullamaError::Timeout { after_ms: 100, .. })), "{last:?}");
        assert_eq!(generate(&mut context, &[], exactly(3)).await.len(), 3);
    });
}

#[test]
fn closing_the_model_closes_its_contexts() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let mut idle = tiny.context().await;
        let stream = context.generate_stream_with(&[300], exactly(900).buffer_size(1)).await.unwrap();
        tiny.model.close().await;
        let last = stream.collect::<Vec<_>>().await.pop().unwrap();
        assert!(matches!(last, Err(MullamaError::Closed(_))), "{last:?}");
        for closed in [&mut context, &mut idle] {
            assert_eq!(closed.generate_stream(&[300]).await.unwrap_err().code(), "closed");
            assert_eq!(closed.process_batch(Vec::new()).await.unwrap_err().code(), "closed");
            assert_eq!(closed.save_state("nowhere").await.unwrap_err().code(), "closed");
            assert_eq!(closed.load_state("nowhere").await.unwrap_err().code(), "closed");
            assert_eq!(closed.clear().await.unwrap_err().code(), "closed");
            assert_eq!(closed.truncate(0).await.unwrap_err().code(), "closed");
            closed.close().await;
        }
        let late = AsyncContext::new(tiny.model.clone()).await;
        assert_eq!(late.unwrap_err().code(), "closed");
    });
}

#[test]
fn who_closes_a_model_again_waits_for_its_contexts_too() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5).n_layer(4).n_embd(256)).await;
        let mut context = tiny.context().await;
        let stream = context.generate_stream_with(&[300; 900], exactly(100)).await.unwrap();
        assert!(Box::pin(tiny.model.close()).now_or_never().is_none());
        tiny.model.close().await;
        context.close().now_or_never().expect("its thread has ended");
        drop(stream);
    });
}

#[test]
fn a_closed_context_leaves_the_model_alone() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let stream = context.generate_stream_with(&[300], exactly(900).buffer_size(1)).await.unwrap();
        context.close().await;
        context.close().await;
        let last = stream.collect::<Vec<_>>().await.pop().unwrap();
        assert!(matches!(last, Err(MullamaError::Closed(_))), "{last:?}");
        assert_eq!(context.clear().await.unwrap_err().code(), "closed");
        assert_eq!(tiny.model.generate_with("a", exactly(3)).await.unwrap().tokens.len(), 3);
    });
}

#[test]
fn a_context_keeps_the_weights_and_a_stream_its_context() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let expected = generate(&mut context, &[300], exactly(40)).await;
        context.clear().await.unwrap();
        drop(tiny);
        let stream = context.generate_stream_with(&[300], exactly(40)).await.unwrap();
        drop(context);
        assert_eq!(ids(&read(stream).await), expected);
    });
}

#[test]
fn a_context_works_while_the_engine_and_other_contexts_do() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut alone = tiny.context().await;
        let expected = generate(&mut alone, &[300], config(None, 60)).await;
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (model, expected) = (tiny.model.clone(), expected.clone());
                tokio::spawn(async move {
                    let mut context = AsyncContext::new(model).await.unwrap();
                    assert_eq!(generate(&mut context, &[300], config(None, 60)).await, expected);
                })
            })
            .collect();
        for i in 0..12 {
            let generation = tiny.model.generate_with(&format!("prompt {i}"), exactly(20)).await.unwrap();
            assert_eq!(generation.tokens.len(), 20);
        }
        for task in tasks {
            task.await.unwrap();
        }
        until_idle(&tiny.model).await;
    });
}

#[test]
fn a_process_exits_in_the_middle_of_a_contexts_stream() {
    run(async {
        let tiny = Tiny::load(slow()).await;
        let mut child =
            tokio::process::Command::new(env!("CARGO_BIN_EXE_exit-mid-stream")).arg(&tiny.path).spawn().unwrap();
        let status = child.wait().await.unwrap();
        assert_eq!(status.code(), Some(7), "{status}");
    });
}

#[test]
fn a_context_that_does_not_fit_the_memory_is_refused() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5).n_layer(2).n_embd(1024).n_head(8, 8)).await;
        let huge = ContextOptions { context_size: Some(1 << 24), ..Default::default() };
        let result = AsyncContext::with_options(Arc::clone(&tiny.model), huge).await;
        assert_eq!(result.unwrap_err().code(), "out_of_memory");
        let zero = ContextOptions { max_sequences: 0, ..Default::default() };
        crate::refused(AsyncContext::with_options(tiny.model.clone(), zero).await, "max_sequences");
    });
}
