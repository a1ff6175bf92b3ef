//! Configures the shared runtime in a process of its own, which can be done
//! once: early, twice and late, as the argument says. Prints the codes of the
//! answers and what the runtime is then like.

use mullama::{MullamaError, MullamaRuntime};

fn main() {
    let order = std::env::args().nth(1).expect("an order of steps");
    for step in order.split(',') {
        let answer = match step {
            "use" => MullamaRuntime::shared().map(drop),
            "bad" => MullamaRuntime::configure_shared(MullamaRuntime::new().worker_threads(0)),
            "configure" => MullamaRuntime::configure_shared(
                MullamaRuntime::new().worker_threads(3).max_blocking_threads(2).thread_name("configured"),
            ),
            _ => panic!("unknown step {step:?}"),
        };
        println!("{step} {}", answer.as_ref().map_or_else(MullamaError::code, |()| "ok"));
    }
    let runtime = MullamaRuntime::shared().expect("it starts");
    // Time is on, whatever was configured.
    let task = runtime.spawn(async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        std::thread::current().name().unwrap_or_default().to_owned()
    });
    let name = runtime.tokio().block_on(task).expect("the task ends");
    let metrics = runtime.tokio().block_on(runtime.metrics());
    println!("{} workers, named {name}", metrics.worker_threads);
}
