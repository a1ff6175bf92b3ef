//! The programs in `examples/rust` run and answer.

use mullama_test_support::model::demo_model_path;
use std::{env, path::PathBuf, process::Command};

/// Cargo builds the examples beside the tests: `deps/../examples`.
fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let target: PathBuf = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let mut command = Command::new(target);
    command.arg(demo_model_path());
    command
}

fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn hello_streams_an_answer() {
    let answer = output(example("hello"));
    assert!(answer.trim().len() > 40, "{answer:?}");
}

#[test]
fn concurrent_answers_every_prompt() {
    let answers = output(example("concurrent"));
    assert_eq!(answers.matches("== ").count(), 8, "{answers}");
}
