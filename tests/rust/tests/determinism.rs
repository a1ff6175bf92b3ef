//! Under `deterministic` a request gives what it gives alone, whatever runs
//! beside it: random schedules against the lone run.

use futures_util::future::join_all;
use mullama::{AsyncModel, Generation, ModelOptions, MullamaError, StreamConfig};
use mullama_test_support::{TinyModel, model::demo_model_path};
use mullama_tests::{options, run};
use std::{thread, time::Duration};

/// A small generator of numbers, so that a schedule can be repeated.
struct Numbers(u64);

impl Numbers {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn deterministic() -> ModelOptions {
    ModelOptions { deterministic: true, batch_size: 96, threads: 2, ..options() }
}

#[derive(Clone)]
struct Case {
    prompt: String,
    config: StreamConfig,
}

fn cases(numbers: &mut Numbers, n: usize, longest: u64) -> Vec<Case> {
    (0..n)
        .map(|_| {
            let is_long = numbers.below(3) == 0;
            let words = 1 + numbers.below(if is_long { longest } else { 12 });
            let prompt: String = (0..words).map(|_| format!("w{} ", numbers.below(50))).collect();
            let config = StreamConfig::new()
                .max_tokens(4 + numbers.below(12) as usize)
                .temperature([0.0, 1.0][numbers.below(2) as usize])
                .seed(numbers.below(1000))
                .ignore_eos(true)
                .logprobs(3);
            Case { prompt, config }
        })
        .collect()
}

fn assert_same(alone: &Generation, beside: &Generation, seed: u64) {
    assert_eq!(alone.tokens, beside.tokens, "of schedule {seed}");
    assert_eq!(alone.logprobs, beside.logprobs, "of schedule {seed}");
}

/// Runs every case alone, then all of them in a random schedule with
/// neighbours of which some are dropped.
async fn holds(model: &AsyncModel, seed: u64, n: usize, longest: u64) {
    let mut numbers = Numbers(seed);
    let cases = cases(&mut numbers, n, longest);
    let mut alone = Vec::new();
    for case in &cases {
        alone.push(model.generate_with(&case.prompt, case.config.clone()).await.unwrap());
    }
    let beside = join_all(cases.iter().map(|case| {
        let wait = Duration::from_millis(numbers.below(40));
        let give_up = (numbers.below(4) == 0).then(|| Duration::from_millis(numbers.below(30)));
        async move {
            tokio::time::sleep(wait).await;
            if let Some(limit) = give_up {
                let dropped = model.generate_with("a neighbour that is dropped ", case.config.clone().max_tokens(50));
                let _ = tokio::time::timeout(limit, dropped).await;
            }
            model.generate_with(&case.prompt, case.config.clone()).await.unwrap()
        }
    }))
    .await;
    alone.iter().zip(&beside).for_each(|(alone, beside)| assert_same(alone, beside, seed));
}

#[test]
fn neighbours_change_nothing_of_a_real_model() {
    run(async {
        let options = ModelOptions { max_concurrent: 4, context_size: 1024, ..deterministic() };
        let model = AsyncModel::load_with(demo_model_path(), options).await.unwrap();
        holds(&model, 1, 6, 150).await;
    });
}

#[test]
fn threads_and_the_size_of_a_step_change_nothing() {
    run(async {
        let case = cases(&mut Numbers(5), 1, 1).remove(0);
        let prompt = case.prompt.repeat(40);
        let mut before: Option<Generation> = None;
        let most = thread::available_parallelism().map_or(1, usize::from);
        for (threads, batch_size) in [(1, 512), (most, 512), (most, 16), (1, 75)] {
            let options = ModelOptions { threads, batch_size, ..deterministic() };
            let model = AsyncModel::load_with(demo_model_path(), options).await.unwrap();
            let now = model.generate_with(&prompt, case.config.clone()).await.unwrap();
            if let Some(before) = &before {
                assert_same(before, &now, 5);
            }
            before = Some(now);
        }
    });
}

#[test]
fn a_model_that_can_not_be_deterministic_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for model in [TinyModel::recurrent(), TinyModel::llama(), TinyModel::sliding_window()] {
            let path = dir.path().join("tiny.gguf");
            model.write_to(&path).unwrap();
            let failed = AsyncModel::load_with(&path, deterministic()).await.err();
            assert!(matches!(failed, Some(MullamaError::Unsupported(_))), "{failed:?}");
        }
    });
}

#[test]
fn prompt_lookup_changes_no_token() {
    run(async {
        let list = "one apple, two pears, three plums, four figs, five dates, six limes, seven nuts. ".repeat(2);
        let prompts = [format!("Repeat: {list}Again: {list}Again: one apple,"), "Once upon a time".to_owned()];
        let mut results: Vec<Vec<Generation>> = Vec::new();
        for prompt_lookup in [false, true] {
            let options = ModelOptions { prompt_lookup, batch_size: 512, ..deterministic() };
            let model = AsyncModel::load_with(demo_model_path(), options).await.unwrap();
            let mut of_this = Vec::new();
            for prompt in &prompts {
                for temperature in [0.0, 0.3] {
                    let config = StreamConfig::new().max_tokens(60).temperature(temperature).seed(3).logprobs(2);
                    of_this.push(model.generate_with(prompt, config.repeat_penalty(1.0)).await.unwrap());
                }
            }
            let metrics = model.metrics();
            assert_eq!(metrics.drafted_tokens > 0, prompt_lookup);
            assert!(metrics.accepted_tokens <= metrics.drafted_tokens);
            results.push(of_this);
        }
        results[0].iter().zip(&results[1]).for_each(|(off, on)| {
            assert_same(off, on, 3);
            assert_eq!((off.usage, &off.finish_reason, &off.text), (on.usage, &on.finish_reason, &on.text));
        });
    });
}
