//! Full memories, and other ones than a plain cache.

use crate::long_prompt;
use futures_util::future::join_all;
use mullama::ModelOptions;
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, load, options, run, tiny};

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
