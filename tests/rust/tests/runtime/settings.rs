//! What the builder takes, and what the threads are like.

use crate::*;

#[test]
fn impossible_settings_are_refused_by_name() {
    let refusals: &[(&str, MullamaRuntimeBuilder)] = &[
        ("worker_threads", builder().worker_threads(0)),
        ("worker_threads", builder().worker_threads(1025)),
        ("worker_threads", builder().worker_threads(usize::MAX)),
        ("max_blocking_threads", builder().max_blocking_threads(0)),
        ("max_blocking_threads", builder().max_blocking_threads(usize::MAX)),
        ("thread_stack_size", builder().thread_stack_size(0)),
        ("thread_stack_size", builder().thread_stack_size(4096)),
        ("thread_stack_size", builder().thread_stack_size(usize::MAX)),
        ("thread_name", builder().thread_name("")),
        ("thread_name", builder().thread_name("a\0b")),
    ];
    for (wanted, builder) in refusals {
        for error in [builder.clone().build().map(drop), MullamaRuntime::configure_shared(builder.clone())] {
            match error {
                Err(MullamaError::InvalidInput { field, .. }) => assert_eq!(&field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_threads_are_as_the_builder_says() {
    let runtime = builder().worker_threads(3).thread_name("named-so").build().unwrap();
    let name = || std::thread::current().name().map(str::to_owned);
    run(async {
        assert_eq!(runtime.spawn(async move { name() }).await.unwrap().as_deref(), Some("named-so"));
        assert_eq!(runtime.spawn_blocking(name).await.unwrap().as_deref(), Some("named-so"));
        assert_eq!(runtime.metrics().await.worker_threads, 3);
    });
}

#[test]
fn by_default_there_is_a_worker_for_every_processor() {
    let runtime = MullamaRuntime::new().build().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(run(runtime.metrics()).worker_threads, processors);
}

#[test]
fn time_and_io_are_there_when_they_were_enabled() {
    async fn uses_time() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    async fn uses_io() {
        drop(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let cases = [
        (builder(), false, false),
        (builder().enable_time(), true, false),
        (builder().enable_io(), false, true),
        (builder().enable_all(), true, true),
    ];
    for (builder, has_time, has_io) in cases {
        let runtime = builder.build().unwrap();
        run(async {
            assert_eq!(runtime.spawn(uses_time()).await.is_ok(), has_time);
            assert_eq!(runtime.spawn(uses_io()).await.is_ok(), has_io);
        });
    }
}

#[test]
fn the_smallest_stack_is_enough_to_tokenize_and_generate_on() {
    let runtime = builder().thread_stack_size(128 * 1024).build().unwrap();
    run(async {
        let tiny = tiny(options()).await;
        let model = tiny.model.clone();
        let prompt = "1234567890 abc, ".repeat(1000);
        let task = runtime.spawn(async move {
            let tokens = model.tokenize_async(&prompt, true).await.unwrap();
            assert_eq!(model.detokenize(&tokens[1..]).unwrap().trim_start(), prompt);
            let long = model.tokenize_async(&"7".repeat(200_000), false).await.unwrap();
            assert!(!long.is_empty());
            model.generate_with("a", exactly(4)).await.unwrap()
        });
        assert_eq!(task.await.unwrap().tokens.len(), 4);
    });
}

#[test]
fn a_panic_in_a_task_stays_in_its_handle() {
    let runtime = runtime();
    run(async {
        assert!(runtime.spawn(async { panic!("on purpose") }).await.unwrap_err().is_panic());
        assert!(runtime.spawn_blocking(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(runtime.spawn(async { 1 }).await.unwrap(), 1);
    });
}

#[test]
fn the_shared_runtime_is_configured_once_and_before_its_first_use() {
    let check = |steps: &str, wanted: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_configure_shared")).arg(steps).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().replace('\n', "; "), wanted);
    };
    check("use", "use ok; 1 workers, named mullama-runtime; ");
    check(
        "bad,configure,configure,use",
        "bad invalid_input; configure ok; configure unsupported; use ok; 3 workers, named configured; ",
    );
    check("use,configure", "use ok; configure unsupported; 1 workers, named mullama-runtime; ");
}
