//! Under `deterministic` a request gives what it gives alone, whatever runs
//! beside it: random schedules against the lone run, for all kinds of kernels
//! that quantized matrices have.

use futures_util::future::join_all;
use mullama::{AsyncModel, Generation, ModelOptions, ModelPool, MullamaError, StreamConfig};
use mullama_test_support::{Quant, TinyModel, model::demo_model_path};
use mullama_tests::{Tiny, load, options, run};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

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

/// A tiny model whose matrices are quantized, the last one in another way.
fn quantized(quant: Quant, output: Quant) -> TinyModel {
    TinyModel::llama().seed(3).n_embd(256).n_head(4, 2).n_ff(512).quantized(quant, output)
}

async fn tiny(options: ModelOptions) -> Tiny {
    load(quantized(Quant::Q4K, Quant::Q6K), options).await
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

/// Says where they part, not all that they have.
#[track_caller]
fn assert_same(alone: &Generation, beside: &Generation, seed: u64) {
    assert_eq!(alone.tokens, beside.tokens, "of schedule {seed}");
    let (alone, beside) = (alone.logprobs.iter().flatten(), beside.logprobs.iter().flatten());
    if let Some((place, (alone, beside))) = alone.zip(beside).enumerate().find(|(_, (alone, beside))| alone != beside) {
        panic!("of schedule {seed} at {place}: {} alone, {} beside others", alone.logprob, beside.logprob);
    }
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
fn neighbours_change_nothing_whatever_the_quantization() {
    let outputs = Quant::ALL.iter().cycle().skip(1);
    for (seed, ((_, quant), (_, output))) in Quant::ALL.iter().zip(outputs).enumerate() {
        run(async {
            for (quant, output) in [(*quant, *quant), (*quant, *output)] {
                let options = ModelOptions { max_concurrent: 5, ..deterministic() };
                let tiny = load(quantized(quant, output), options).await;
                holds(&tiny.model, seed as u64, 14, 150).await;
                assert!(tiny.model.metrics().cached_tokens > 0, "{quant:?}");
            }
        });
    }
}

#[test]
fn what_was_kept_gives_exactly_what_computing_it_gives() {
    run(async {
        for seed in 0..4 {
            let mut numbers = Numbers(seed);
            let (keeps, fresh) = tokio::join!(
                tiny(deterministic()),
                tiny(ModelOptions { prefix_cache_bytes: Some(0), ..deterministic() })
            );
            for case in cases(&mut numbers, 8, 120) {
                let all = case.prompt.len();
                for end in [all, all, all / 2, all - 1, 1 + numbers.below(all as u64) as usize] {
                    let prompt = &case.prompt[..end.max(1)];
                    let kept = keeps.model.generate_with(prompt, case.config.clone()).await.unwrap();
                    let computed = fresh.model.generate_with(prompt, case.config.clone()).await.unwrap();
                    assert_same(&computed, &kept, seed);
                    assert_eq!(computed.usage.cached_tokens, 0);
                }
            }
            assert!(keeps.model.metrics().cached_tokens > 100);
        }
    });
}

#[test]
fn a_beginning_that_is_shared_while_it_is_computed_changes_nothing() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 6, prefix_cache_bytes: Some(0), ..deterministic() }).await;
        let mut numbers = Numbers(11);
        let start: String = (0..200).map(|_| format!("w{} ", numbers.below(50))).collect();
        let mut cases = cases(&mut numbers, 6, 20);
        cases.iter_mut().for_each(|case| case.prompt.insert_str(0, &start));
        let mut alone = Vec::new();
        for case in &cases {
            alone.push(tiny.model.generate_with(&case.prompt, case.config.clone()).await.unwrap());
        }
        let together = cases.iter().map(|case| tiny.model.generate_with(&case.prompt, case.config.clone()));
        for (alone, beside) in alone.iter().zip(join_all(together).await) {
            assert_same(alone, &beside.unwrap(), 11);
        }
        assert!(tiny.model.metrics().cached_tokens > 0, "nothing was shared");
    });
}

#[test]
fn a_pool_that_changes_its_size_meanwhile_changes_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        quantized(Quant::Q8_0, Quant::Q6K).write_to(&path).unwrap();
        let pool =
            ModelPool::with_options(&path, ModelOptions { context_size: 512, ..deterministic() }, 2).await.unwrap();
        let cases = cases(&mut Numbers(21), 12, 100);
        let mut alone = Vec::new();
        for case in &cases {
            let lease = pool.acquire().await.unwrap();
            alone.push(lease.generate_with(&case.prompt, case.config.clone().max_tokens(40)).await.unwrap());
        }
        let resized = async {
            for size in [5, 1, 4, 2, 6, 3] {
                pool.resize(size).await.unwrap();
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let together = join_all(cases.iter().map(async |case| {
            let lease = pool.acquire().await.unwrap();
            lease.generate_with(&case.prompt, case.config.clone().max_tokens(40)).await.unwrap()
        }));
        let (together, ()) = tokio::join!(together, resized);
        alone.iter().zip(&together).for_each(|(alone, beside)| assert_same(alone, beside, 21));
    });
}

#[test]
fn a_busy_machine_changes_nothing() {
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 4, ..deterministic() }).await;
        let cases = cases(&mut Numbers(31), 6, 100);
        let ask = async || {
            let all =
                cases.iter().map(|case| tiny.model.generate_with(&case.prompt, case.config.clone().max_tokens(60)));
            join_all(all).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let quiet = ask().await;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // As many as there are processors: threads are given up, and taken
            // back while they rest.
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let busy = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(ask()));
            is_over.store(true, Relaxed);
            quiet.iter().zip(&busy).for_each(|(quiet, busy)| assert_same(quiet, busy, 31));
        });
        quiet.iter().zip(&ask().await).for_each(|(quiet, after)| assert_same(quiet, after, 31));
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
