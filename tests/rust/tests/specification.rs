//! The specification's seven examples on the real model, as a user would type
//! them: word for word, but for the model's path, and with assertions where
//! they would end. They take turns: each loads a model of its own.

use futures_util::StreamExt;
use mullama::{AsyncConfig, AsyncModel, Model, ModelPool, MullamaError, MullamaRuntime, StreamConfig};
use mullama_test_support::model::demo_model_path;
use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

static TURN: Mutex<()> = Mutex::new(());

/// What stands where the specification has the path of a model.
fn path() -> String {
    demo_model_path().to_str().expect("a path in UTF-8").to_owned()
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn example_1_loads_generates_and_tells_about_the_model() -> Result {
    #[tokio::main]
    async fn main() -> Result {
        let model = AsyncModel::load(path()).await?;
        let text = model.generate("The quick brown fox", 200).await?;
        println!("{text}");

        let info = model.model_info();
        println!("{} has {} parameters", info.name, info.n_params);
        assert!(!text.is_empty());
        assert_eq!(info.architecture, "llama");
        assert!(info.n_params > 100_000_000 && info.n_vocab > 40_000);
        Ok(())
    }
    let _turn = turn();
    main()
}

#[test]
fn example_2_configures_with_all_seven_fields() -> Result {
    #[tokio::main]
    async fn main() -> Result {
        let config = AsyncConfig {
            model_path: path(),
            gpu_layers: 0,
            context_size: 4096,
            threads: 8,
            flash_attention: true,
            max_concurrent: 4,
            timeout_ms: 30000,
        };
        let model = AsyncModel::load_with_config(config).await?;
        assert!(model.is_ready());
        assert!(!model.generate("Hello", 5).await?.is_empty());
        Ok(())
    }
    let _turn = turn();
    main()
}

#[test]
fn example_3_cancels_with_a_token() -> Result {
    async fn generate_with_cancellation(
        model: &AsyncModel,
        token: CancellationToken,
    ) -> std::result::Result<String, MullamaError> {
        tokio::select! {
            result = model.generate("Write a very long story", 5000) => result,
            _ = token.cancelled() => Err(MullamaError::OperationFailed("Cancelled".to_string())),
        }
    }

    #[tokio::main]
    async fn main() -> Result {
        let model = AsyncModel::load(path()).await?;
        // The model may end its story at once.
        loop {
            let before = model.metrics();
            let token = CancellationToken::new();
            let cancel = async {
                let runs = |now: &mullama::EngineMetrics| now.generated_tokens > before.generated_tokens + 3;
                mullama_tests::until(&model, |now| runs(now) || now.completed > before.completed).await;
                token.cancel();
            };
            match tokio::join!(generate_with_cancellation(&model, token.clone()), cancel) {
                (Ok(_), ()) => {}
                (Err(error), ()) => {
                    assert!(matches!(error, MullamaError::OperationFailed(why) if why == "Cancelled"));
                    break;
                }
            }
        }
        mullama_tests::until_idle(&model).await;
        assert_eq!(model.metrics().cancelled, 1);
        Ok(())
    }
    let _turn = turn();
    main()
}

#[test]
fn example_4_builds_a_runtime() -> Result {
    let runtime = MullamaRuntime::new()
        .worker_threads(4)
        .max_blocking_threads(8)
        .thread_stack_size(4 * 1024 * 1024)
        .thread_name("mullama-worker")
        .enable_io()
        .enable_time()
        .build()?;
    assert!(runtime.is_running());
    assert_eq!(runtime.tokio().block_on(runtime.metrics()).worker_threads, 4);
    Ok(())
}

#[test]
fn example_5_takes_models_from_a_pool() -> Result {
    #[tokio::main]
    async fn main() -> Result {
        let pool = ModelPool::new(AsyncConfig { model_path: path(), ..Default::default() }, 4).await?;

        let model = pool.acquire().await?;
        let text = model.generate("Hello", 100).await?;
        assert_eq!((pool.stats().available, pool.stats().in_use), (3, 1));
        drop(model);

        println!("{text}");
        println!("available: {}, in use: {}", pool.stats().available, pool.stats().in_use);
        assert_eq!((pool.stats().available, pool.stats().in_use), (4, 0));
        Ok(())
    }
    let _turn = turn();
    main()
}

#[test]
fn example_6_tokenizes_without_and_with_async() -> Result {
    fn synchronous() -> std::result::Result<Vec<i32>, MullamaError> {
        let model = Model::load(path())?;
        let tokens = model.tokenize("Hello", true, false)?;
        Ok(tokens)
    }

    #[tokio::main]
    async fn asynchronous() -> std::result::Result<Vec<i32>, MullamaError> {
        let model = AsyncModel::load(path()).await?;
        let tokens = model.tokenize_async("Hello", true).await?;
        Ok(tokens)
    }
    let _turn = turn();
    let tokens = synchronous()?;
    assert!(!tokens.is_empty());
    assert_eq!(tokens, asynchronous()?);
    Ok(())
}

#[test]
fn example_7_puts_everything_together() -> Result {
    #[tokio::main]
    async fn main() -> Result {
        let runtime = Arc::new(
            MullamaRuntime::new().worker_threads(4).max_blocking_threads(8).enable_io().enable_time().build()?,
        );
        let model = AsyncModel::load_with_config(AsyncConfig {
            model_path: path(),
            context_size: 4096,
            max_concurrent: 2,
            ..Default::default()
        })
        .await?;

        let text = model.generate("Once upon a time", 100).await?;
        println!("{text}");

        let config = StreamConfig::new().max_tokens(200).temperature(0.7);
        let mut stream = model.generate_stream("Once upon a time", config).await?;
        let mut n_tokens = 0;
        while let Some(token) = stream.next().await {
            let token = token?;
            print!("{}", token.text);
            n_tokens += 1;
        }

        let metrics = runtime.metrics().await;
        println!("\n{} generations, {} active tasks", metrics.total_generations, metrics.active_tasks);
        assert!(!text.is_empty() && (1..=200).contains(&n_tokens));
        // Of the process, in which the other examples run too.
        assert!(metrics.total_generations >= 2);
        assert_eq!((metrics.active_tasks, metrics.worker_threads), (0, 4));
        Ok(())
    }
    let _turn = turn();
    main()
}
