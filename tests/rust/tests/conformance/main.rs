//! Runs the conformance cases (`tests/conformance/README.md`) through
//! `AsyncModel` and through the blocking `Model`.

#![forbid(unsafe_code)]

mod api;
mod calls;
mod convert;
mod expectation;
mod objects;
mod value;

use api::{Api, Asynchronous, Blocking};
use calls::{Outcome, Scene, World, outcome};
use objects::needs_tasks;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Deserialize)]
struct File {
    model: String,
    #[serde(default)]
    load: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model: Option<String>,
    load: Option<Value>,
    #[serde(default)]
    own_model: bool,
    languages: Option<Vec<String>>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    call: String,
    #[serde(default)]
    with: Value,
    save: Option<String>,
    expect: Option<Value>,
    error: Option<Value>,
    languages: Option<Vec<String>>,
}

fn applies(languages: Option<&Vec<String>>) -> bool {
    languages.is_none_or(|languages| languages.iter().any(|language| language == "rust"))
}

#[test]
fn every_case_holds_for_the_asynchronous_model() {
    run_all::<Asynchronous>();
}

#[test]
fn every_case_holds_for_the_blocking_model() {
    run_all::<Blocking>();
}

fn run_all<A: Api>() {
    // One after the other: two engines at once would wait for each other's
    // threads.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/cases");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut world = World::<A>::new();
    let mut n_cases = 0;
    let mut failures = Vec::new();
    for path in paths {
        let file: File = serde_json::from_slice(&fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("'{}' is no case file: {error}", path.display()));
        let about = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for case in file.cases.iter().filter(|case| applies(case.languages.as_ref())) {
            n_cases += 1;
            if let Err(fault) = run_case(&mut world, &file, case) {
                failures.push(format!("{about}: {}\n    {fault}", case.name));
            }
        }
    }
    assert!(n_cases >= 40, "only {n_cases} cases were found");
    assert!(failures.is_empty(), "{} of {n_cases} cases failed:\n\n{}", failures.len(), failures.join("\n\n"));
}

fn run_case<A: Api>(world: &mut World<A>, file: &File, case: &Case) -> Result<(), String> {
    let load = case.load.as_ref().unwrap_or(&file.load);
    let name = case.model.as_ref().unwrap_or(&file.model);
    let model = world.model(name, load, case.own_model);
    let scene = world.scene(name, model);
    let result = run_steps(&scene, case);
    scene.objects.close();
    if case.own_model {
        A::close(&scene.model);
    }
    result
}

fn run_steps<A: Api>(scene: &Arc<Scene<A>>, case: &Case) -> Result<(), String> {
    if A::for_tasks(&scene.model).is_none() && case.steps.iter().any(|step| needs_tasks(&step.call)) {
        return Ok(());
    }
    let mut saved = Map::new();
    for (index, step) in case.steps.iter().enumerate().filter(|(_, step)| applies(step.languages.as_ref())) {
        let outcome = outcome(scene, &step.call, &value::resolve(&step.with, &saved));
        let result = check(step, outcome, &saved).map_err(|fault| format!("step {}: {fault}", index + 1))?;
        if let Some(name) = &step.save {
            saved.insert(name.clone(), result);
        }
    }
    Ok(())
}

/// Gives what the step may save.
fn check(step: &Step, outcome: Outcome, saved: &Map<String, Value>) -> Result<Value, String> {
    let (kind, expected, found) = match (&step.error, outcome) {
        (Some(expected), Err(error)) => ("error", expected.clone(), error),
        (None, Ok(result)) => ("result", step.expect.clone().unwrap_or_else(|| json!({ "$and": [] })), result),
        (Some(_), Ok(result)) => return Err(format!("expected an error, got the result {result}")),
        (None, Err(error)) => return Err(format!("expected a result, got the error {error}")),
    };
    expectation::check(&value::resolve(&expected, saved), &found)
        .map_err(|fault| format!("{kind}{fault}\n    in {found}"))?;
    Ok(found)
}
