//! Generating with memory that lasts.

use crate::{KINDS, Tiny, assert_agree, config, generate, ids, long_text, read, refused};
use mullama::{Batch, ContextOptions, FinishReason, MullamaError, StreamConfig, TokenId};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, run};
use std::collections::HashSet;

#[test]
fn a_generation_in_parts_equals_the_uninterrupted_one() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let prompt = tiny.tokens(&long_text(90));
            for seed in [None, Some(11)] {
                let mut whole = tiny.context().await;
                let expected = generate(&mut whole, &prompt, config(seed, 60)).await;
                let mut context = tiny.context().await;
                let mut got = generate(&mut context, &prompt, config(seed, 1)).await;
                for n in [4, 13, 1, 0, 41] {
                    got.extend(generate(&mut context, &[], config(seed, n)).await);
                }
                assert_eq!(got, expected, "{kind:?}, seed {seed:?}");
                assert_eq!(context.n_past(), prompt.len() + 60);
            }
        }
    });
}

#[test]
fn usage_tells_the_history_and_what_of_it_was_evaluated() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let stream = context.generate_stream_with(&tiny.tokens("abc"), exactly(4)).await.unwrap();
        let n = tiny.tokens("abc").len();
        assert_eq!(read_usage(stream).await, (n, 0, 4));
        // The last of the four was never evaluated.
        let stream = context.generate_stream_with(&[], exactly(2)).await.unwrap();
        assert_eq!(read_usage(stream).await, (n + 4, n + 3, 2));
        let stream = context.generate_stream_with(&tiny.tokens("de"), exactly(1)).await.unwrap();
        assert_eq!(read_usage(stream).await, (n + 6 + tiny.tokens("de").len(), n + 5, 1));
    });
}

async fn read_usage(stream: mullama::TokenStream) -> (usize, usize, usize) {
    while !stream.next_batch().await.unwrap().is_empty() {}
    let usage = stream.usage();
    (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
}

#[test]
fn a_context_and_the_engine_generate_the_same() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        for seed in [None, Some(3)] {
            let expected = tiny.model.generate_with("Once upon", config(seed, 30)).await.unwrap();
            let mut context = tiny.context().await;
            let prompt = tiny.model.tokenize("Once upon", true, true).unwrap();
            let got = read(context.generate_stream_with(&prompt, config(seed, 30)).await.unwrap()).await;
            assert_eq!(ids(&got), expected.tokens);
            let text: String = got.iter().map(|token| token.text.as_str()).collect();
            assert_eq!(text, expected.text);
        }
    });
}

#[test]
fn a_dropped_stream_leaves_what_it_generated() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let prompt = tiny.tokens("abc");
            let mut whole = tiny.context().await;
            let expected = generate(&mut whole, &prompt, config(Some(1), 100)).await;
            let mut context = tiny.context().await;
            let stream = context.generate_stream_with(&prompt, config(Some(1), 100).buffer_size(3)).await.unwrap();
            let mut n_read = 0;
            while n_read < 10 {
                let tokens = stream.next_batch().await.unwrap();
                assert_eq!(ids(&tokens), expected[n_read..n_read + tokens.len()]);
                n_read += tokens.len();
            }
            drop(stream);
            // Waits until the stream has ended.
            context.truncate(prompt.len() + n_read).await.unwrap();
            let rest = generate(&mut context, &[], config(Some(1), 5)).await;
            if kind == mullama_test_support::Kind::Llama {
                assert_eq!(rest, expected[n_read..n_read + 5]);
            }
            assert_eq!(context.n_past(), prompt.len() + n_read + 5);
        }
    });
}

#[test]
fn what_follows_a_dropped_stream_equals_the_uninterrupted_generation() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let prompt = tiny.tokens("abc");
            let mut whole = tiny.context().await;
            let expected = generate(&mut whole, &prompt, config(None, 100)).await;
            let mut context = tiny.context().await;
            let stream = context.generate_stream_with(&prompt, config(None, 100).buffer_size(3)).await.unwrap();
            let first = stream.next_batch().await.unwrap();
            assert_eq!(ids(&first), expected[..first.len()]);
            drop(stream);
            context.process_batch(Vec::new()).await.unwrap();
            let done = context.n_past() - prompt.len();
            assert!(done < 100, "{done} tokens");
            let rest = generate(&mut context, &[], config(None, 100 - done)).await;
            assert_eq!(rest, expected[done..], "{kind:?} after {done}");
        }
    });
}

#[test]
fn truncating_goes_back_to_an_earlier_place() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let prompt = tiny.tokens(&long_text(150));
            let mut context = tiny.context().await;
            let config = exactly(40).logprobs(2);
            let expected = read(context.generate_stream_with(&prompt, config.clone()).await.unwrap()).await;
            for n in [30, 10, 0] {
                context.truncate(prompt.len() + n).await.unwrap();
                assert_eq!(context.n_past(), prompt.len() + n);
                let rest = read(context.generate_stream_with(&[], config.clone()).await.unwrap()).await;
                let n_same = ids(&rest).iter().zip(&expected[n..]).take_while(|(a, b)| **a == b.token_id).count();
                let first_other = &expected[(n + n_same).min(39)];
                let margin = first_other.top_logprobs[0].logprob - first_other.top_logprobs[1].logprob;
                assert!(n + n_same >= 40 || margin < 0.02, "{kind:?}: {n_same} tokens after {n}, then by {margin}");
            }
            refused(context.truncate(10_000).await, "n");
            context.clear().await.unwrap();
            assert_eq!(context.n_past(), 0);
            let again = generate(&mut context, &prompt, exactly(40)).await;
            assert_eq!(again, ids(&expected), "{kind:?}");
        }
    });
}

#[test]
fn appended_tokens_see_all_before_them() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(6)).await;
            let (one, two) = (tiny.tokens(&long_text(80)), tiny.model.tokenize("and then", false, false).unwrap());
            let mut context = tiny.context().await;
            let generated = generate(&mut context, &one, exactly(7)).await;
            let got = generate(&mut context, &two, exactly(20)).await;
            let history: Vec<TokenId> = [one, generated, two].concat();
            let mut fresh = tiny.context().await;
            let expected = read(fresh.generate_stream_with(&history, exactly(20).logprobs(2)).await.unwrap()).await;
            let n_sure = assert_agree(&expected, &got, &format!("{kind:?}"));
            assert!(n_sure >= 5, "{kind:?}: only {n_sure}");
        }
    });
}

#[test]
fn penalties_look_at_the_history() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        let never_again = exactly(20).presence_penalty(100.0).repeat_last_n(1000);
        let prompt = tiny.tokens("abc");
        let mut seen: Vec<TokenId> = prompt.clone();
        seen.extend(generate(&mut context, &prompt, never_again.clone()).await);
        seen.extend(generate(&mut context, &[], never_again).await);
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), prompt.len() + 40);
    });
}

#[test]
fn refused_calls_append_nothing() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context_with(ContextOptions { context_size: Some(32), ..Default::default() }).await;
        refused(context.generate_stream(&[]).await, "tokens");
        refused(context.generate_stream(&[5, 9999]).await, "tokens");
        refused(context.generate_stream(&[-1]).await, "tokens");
        refused(context.generate_stream_with(&[5], StreamConfig::new().temperature(-1.0)).await, "temperature");
        match context.generate_stream(&[300; 32]).await {
            Err(MullamaError::PromptTooLong { tokens: 32, limit: 31 }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(context.n_past(), 0);
        let first = generate(&mut context, &[300; 20], exactly(3)).await;
        match context.generate_stream(&[300; 9]).await {
            Err(MullamaError::PromptTooLong { tokens: 32, limit: 31 }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(context.n_past(), 23);
        let mut whole = tiny.context().await;
        let expected = generate(&mut whole, &[300; 20], exactly(6)).await;
        assert_eq!([first, generate(&mut context, &[], exactly(3)).await].concat(), expected);
    });
}

#[test]
fn a_full_context_ends_the_generation() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context_with(ContextOptions { context_size: Some(32), ..Default::default() }).await;
        let tokens = read(context.generate_stream_with(&[300; 20], exactly(100)).await.unwrap()).await;
        assert_eq!((tokens.len(), context.n_past()), (12, 32));
        assert_eq!(tokens[11].finish_reason, Some(FinishReason::ContextFull));
        let full = context.generate_stream(&[]).await;
        assert!(matches!(full, Err(MullamaError::PromptTooLong { tokens: 32, limit: 31 })), "{full:?}");
        context.truncate(30).await.unwrap();
        assert_eq!(generate(&mut context, &[], exactly(100)).await, ids(&tokens[10..]));
    });
}

#[test]
fn going_on_from_a_row_that_is_shared_takes_one_more() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let options = ContextOptions { context_size: Some(32), max_sequences: 2, ..Default::default() };
        let state = tiny.dir.path().join("state");
        for (n, n_generated) in [(32, 0), (31, 0), (30, 1)] {
            let mut context = tiny.context_with(options.clone()).await;
            let mut batch = Batch::new();
            (0..n).for_each(|place| batch.add(300, place, &[0, 1], false));
            context.process_batch(vec![batch]).await.unwrap();
            match context.generate_stream_with(&[], exactly(100)).await {
                Ok(stream) => assert_eq!(read(stream).await.len(), n_generated),
                Err(error) => assert_eq!((error.code(), n_generated), ("prompt_too_long", 0)),
            }
            // It holds no more than it could load.
            context.save_state(&state).await.unwrap();
            context.load_state(&state).await.unwrap();
            assert_eq!(context.n_past(), n + n_generated);
        }
    });
}

#[test]
fn asking_for_no_token_only_appends() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        assert!(generate(&mut context, &[300, 301], exactly(0)).await.is_empty());
        assert_eq!(context.n_past(), 2);
        let mut whole = tiny.context().await;
        let expected = generate(&mut whole, &[300, 301, 302], exactly(5)).await;
        assert_eq!(generate(&mut context, &[302], exactly(5)).await, expected);
    });
}

#[test]
fn the_real_model_goes_on_token_for_token() {
    run(async {
        let path = mullama_test_support::model::demo_model_path();
        let model = std::sync::Arc::new(mullama::AsyncModel::load_with(path, mullama_tests::options()).await.unwrap());
        let prompt = model.tokenize("Once upon a time", true, false).unwrap();
        for seed in [None, Some(7)] {
            let mut whole = mullama::AsyncContext::new(model.clone()).await.unwrap();
            let expected = generate(&mut whole, &prompt, config(seed, 20)).await;
            let mut context = mullama::AsyncContext::new(model.clone()).await.unwrap();
            let mut got = generate(&mut context, &prompt, config(seed, 8)).await;
            got.extend(generate(&mut context, &[], config(seed, 12)).await);
            assert_eq!(got, expected);
        }
    });
}
