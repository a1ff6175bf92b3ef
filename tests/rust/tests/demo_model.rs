//! The real model: greedy tokens against a naive loop over the llama layer,
//! many requests in one step against each alone, and two real models at once.

use futures_util::future::join_all;
use mullama::{AsyncModel, Model, ModelOptions, reference};
use mullama_test_support::model::demo_model_path;
use mullama_tests::{exactly, run};

const PROMPTS: [&str; 10] = [
    "Once upon a time",
    "The capital of France is",
    "def fibonacci(n):",
    "Water boils at",
    "<|im_start|>user\nWhat is a llama?<|im_end|>\n<|im_start|>assistant\n",
    "In the year 2050, people",
    "Ingredients: two eggs, flour,",
    "Dear Sir or Madam,",
    "1, 2, 3, 4,",
    "Привет, как дела?",
];

#[test]
fn greedy_tokens_equal_those_of_a_naive_loop() {
    let expected = reference::greedy(&demo_model_path(), &PROMPTS, 64).unwrap();
    let model = Model::load(demo_model_path()).unwrap();
    for (prompt, expected) in PROMPTS.iter().zip(expected) {
        // The naive loop ends at an end token, as a request does.
        let generation = model.generate_with(prompt, exactly(64).ignore_eos(false)).unwrap();
        assert_eq!(generation.tokens, expected, "{prompt:?}");
    }
}

/// From 64 rows on, and for cells of others, attention takes other ways than for
/// a lone sequence: they may differ in how they round, and in nothing else.
#[test]
fn more_rows_than_a_tile_give_what_each_gives_alone() {
    run(async {
        const REQUESTS: usize = 72;
        let options = ModelOptions {
            max_concurrent: REQUESTS,
            context_size: 128,
            prefix_cache_bytes: Some(0),
            ..ModelOptions::default()
        };
        let model = AsyncModel::load_with(demo_model_path(), options).await.unwrap();
        let prompt = |n: usize| format!("{n}. {} {}", PROMPTS[n % PROMPTS.len()], "and so on, ".repeat(n % 4));
        let prompts: Vec<String> = (0..REQUESTS).map(prompt).collect();
        let config = || exactly(6).logprobs(1);
        let beside = join_all(prompts.iter().map(|prompt| model.generate_with(prompt, config()))).await;
        let (mut looked, mut same) = (0, 0);
        for (prompt, beside) in prompts.iter().zip(beside).step_by(5) {
            let (alone, beside) = (model.generate_with(prompt, config()).await.unwrap(), beside.unwrap());
            let both = alone.logprobs.iter().flatten().zip(beside.logprobs.iter().flatten());
            for (alone, beside) in both.take_while(|(alone, beside)| alone.token_id == beside.token_id) {
                let apart = (alone.logprob - beside.logprob).abs();
                // Rounding makes it 0.24 at most.
                assert!(apart < 0.5, "{prompt:?}: {} alone, {} beside others", alone.logprob, beside.logprob);
            }
            looked += 1;
            same += usize::from(alone.tokens == beside.tokens);
        }
        assert!(same * 3 > looked * 2, "{same} of {looked} have the same tokens");
        model.close().await;
    });
}

#[test]
fn two_copies_of_the_model_serve_requests_at_once_and_free_their_memory() {
    run(async {
        let options = || ModelOptions { max_concurrent: 2, context_size: 256, ..ModelOptions::default() };
        let load = || AsyncModel::load_with(demo_model_path(), options());
        let (one, two) = tokio::join!(load(), load());
        let (one, two) = (one.unwrap(), two.unwrap());
        let requests = PROMPTS[..4].iter().enumerate().map(|(i, prompt)| {
            let model = if i % 2 == 0 { &one } else { &two };
            model.generate_with(prompt, exactly(8))
        });
        for generation in join_all(requests).await {
            assert_eq!(generation.unwrap().tokens.len(), 8);
        }
        one.close().await;
        two.close().await;
        assert!(!one.is_ready() && !two.is_ready());
    });
}
