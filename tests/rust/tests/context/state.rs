//! Saved states that are whole: another process goes on from them.

use crate::{KINDS, Tiny, assert_agree, config, generate, ids, long_text, read};
use mullama::{AsyncContext, AsyncModel, Batch, ContextOptions, KvType, TokenId};
use mullama_test_support::{Kind, TinyModel, model::demo_model_path};
use mullama_tests::{exactly, options, run};
use std::{path::Path, process::Command, sync::Arc};

/// The next `n` tokens after a saved state, of a new process.
fn continue_in_new_process(model: &Path, state: &Path, seed: Option<u64>, n: usize) -> Vec<TokenId> {
    let output = Command::new(env!("CARGO_BIN_EXE_continue-state"))
        .args([model, state])
        .arg(seed.map_or("greedy".to_owned(), |seed| seed.to_string()))
        .arg(n.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

async fn check_round_trip(model: Arc<AsyncModel>, path: &Path, prompt: &[TokenId], what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for seed in [None, Some(23)] {
        let mut whole = AsyncContext::new(model.clone()).await.unwrap();
        let expected = generate(&mut whole, prompt, config(seed, 50)).await;
        let mut context = AsyncContext::new(model.clone()).await.unwrap();
        let first = generate(&mut context, prompt, config(seed, 20)).await;
        context.save_state(&state).await.unwrap();
        assert_eq!(first, expected[..20]);
        // Saving changes nothing for the one who goes on.
        assert_eq!(generate(&mut context, &[], config(seed, 30)).await, expected[20..], "{what}, same context");
        let rest = continue_in_new_process(path, &state, seed, 30);
        assert_eq!(rest, expected[20..], "{what}, seed {seed:?}");
    }
}

#[test]
fn a_new_process_goes_on_token_for_token_on_every_kind_of_memory() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            // More than a sliding window, so that some of it is out of sight.
            let prompt = tiny.tokens(&long_text(200));
            check_round_trip(tiny.model.clone(), &tiny.path, &prompt, &format!("{kind:?}")).await;
        }
    });
}

#[test]
fn a_new_process_goes_on_token_for_token_on_the_real_model() {
    run(async {
        let model = Arc::new(AsyncModel::load_with(demo_model_path(), options()).await.unwrap());
        let prompt = model.tokenize("It was a dark and stormy night", true, false).unwrap();
        check_round_trip(model, &demo_model_path(), &prompt, "the real model").await;
    });
}

#[test]
fn a_state_holds_all_sequences_and_what_they_share() {
    run(async {
        for kind in [Kind::Llama, Kind::SlidingWindow] {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let state = tiny.dir.path().join("state");
            let mut batch = Batch::new();
            (0..100).for_each(|place| batch.add(300 + place as TokenId % 50, place, &[0, 3], false));
            batch.add_sequence(0, &[301]);
            batch.add_sequence(3, &[302]);
            batch.add_sequence(1, &[303, 304]);
            let mut next = Batch::new();
            [(0, 305), (1, 306), (3, 307)].into_iter().for_each(|(id, token)| next.add_sequence(id, &[token]));

            // Just enough room, so that rows that are shared must still be so.
            let options = ContextOptions { context_size: Some(107), ..Default::default() };
            let mut context = tiny.context_with(options.clone()).await;
            context.process_batch(vec![batch]).await.unwrap();
            context.save_state(&state).await.unwrap();
            let expected = context.process_batch(vec![next.clone()]).await.unwrap();
            let mut other = tiny.context_with(options).await;
            generate(&mut other, &[310], exactly(5)).await;
            other.load_state(&state).await.unwrap();
            assert_eq!(other.n_past(), 101);
            assert_eq!(other.process_batch(vec![next]).await.unwrap(), expected, "{kind:?}");
        }
    });
}

#[test]
fn a_state_holds_the_recurrent_states_of_all_sequences() {
    run(async {
        let tiny = Tiny::load(TinyModel::recurrent().seed(5)).await;
        let state = tiny.dir.path().join("state");
        let mut batch = Batch::new();
        [(4, 30), (0, 50), (2, 10)].into_iter().for_each(|(id, n)| batch.add_sequence(id, &vec![300 + id; n]));
        let mut next = Batch::new();
        [(0, 305), (4, 306), (2, 307), (1, 308)].into_iter().for_each(|(id, token)| next.add_sequence(id, &[token]));
        let mut context = tiny.context().await;
        context.process_batch(vec![batch]).await.unwrap();
        context.save_state(&state).await.unwrap();
        let expected = context.process_batch(vec![next.clone(), next.clone()]).await.unwrap();
        let mut other = tiny.context().await;
        generate(&mut other, &[310], exactly(5)).await;
        for _ in 0..2 {
            other.load_state(&state).await.unwrap();
            assert_eq!(other.n_past(), 50);
            assert_eq!(other.process_batch(vec![next.clone(), next.clone()]).await.unwrap(), expected);
        }
    });
}

#[test]
fn a_state_of_a_generation_under_way_and_of_nothing() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let (state, nothing) = (tiny.dir.path().join("state"), tiny.dir.path().join("nothing"));
        let mut context = tiny.context().await;
        context.save_state(&nothing).await.unwrap();
        let expected = generate(&mut context, &[300], config(None, 30)).await;
        context.load_state(&nothing).await.unwrap();
        assert_eq!(context.n_past(), 0);
        // Appended and not evaluated yet.
        assert!(generate(&mut context, &[300], exactly(0)).await.is_empty());
        context.save_state(&state).await.unwrap();
        context.clear().await.unwrap();
        context.load_state(&state).await.unwrap();
        assert_eq!(context.n_past(), 1);
        assert_eq!(generate(&mut context, &[], config(None, 30)).await, expected);
    });
}

#[test]
fn a_larger_context_takes_a_state_and_truncates_it() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let state = tiny.dir.path().join("state");
            let prompt = tiny.tokens(&long_text(200));
            let small = ContextOptions { context_size: Some(300), max_sequences: 2, ..Default::default() };
            let mut context = tiny.context_with(small.clone()).await;
            let expected = read(context.generate_stream_with(&prompt, exactly(30).logprobs(2)).await.unwrap()).await;
            context.save_state(&state).await.unwrap();
            let large = ContextOptions { context_size: Some(900), max_sequences: 2, ..small };
            let mut other = tiny.context_with(large).await;
            other.load_state(&state).await.unwrap();
            assert_eq!(other.n_past(), prompt.len() + 30);
            other.truncate(prompt.len()).await.unwrap();
            let got = generate(&mut other, &[], exactly(30)).await;
            let n_sure = assert_agree(&expected, &got, &format!("{kind:?}"));
            assert!(n_sure >= 5, "{kind:?}: only {n_sure}");
        }
    });
}

#[test]
fn number_types_of_the_cache_belong_to_the_state() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5).n_embd(128)).await;
        let state = tiny.dir.path().join("state");
        let quantized = ContextOptions { kv_type_k: Some(KvType::Q8_0), ..Default::default() };
        let mut context = tiny.context_with(quantized.clone()).await;
        generate(&mut context, &[300], exactly(10)).await;
        context.save_state(&state).await.unwrap();
        let expected = generate(&mut context, &[], exactly(10)).await;
        let mut same = tiny.context_with(quantized).await;
        same.load_state(&state).await.unwrap();
        assert_eq!(generate(&mut same, &[], exactly(10)).await, expected);

        let mut plain = tiny.context().await;
        let before = generate(&mut plain, &[301], exactly(10).logprobs(2)).await;
        let refused = plain.load_state(&state).await.unwrap_err();
        assert!(refused.to_string().contains("its KV types are q8_0 and f16"), "{refused}");
        plain.truncate(1).await.unwrap();
        assert_eq!(ids(&read(plain.generate_stream_with(&[], exactly(10)).await.unwrap()).await), before);
    });
}
