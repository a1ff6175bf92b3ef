//! The calls of a case, and the models and files that they use.

use crate::{
    api::{Api, Streamed},
    convert,
    objects::{self, Objects},
    value::{length, list, text},
};
use mullama_test_support::{Corruption, Kind, TinyModel, lora, model::demo_model_path};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tempfile::TempDir;

/// What a call gave: its result, or its error.
pub(crate) type Outcome = Result<Value, Value>;

/// The models that cases share, by name and options, and a folder for files.
pub(crate) struct World<A: Api> {
    folder: TempDir,
    models: HashMap<String, A::Model>,
}

impl<A: Api> World<A> {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder can be made"), models: HashMap::new() }
    }

    /// A shared model, or one of the case's own.
    pub(crate) fn model(&mut self, name: &str, load: &Value, own: bool) -> A::Model {
        let fresh = |folder: &Path| {
            A::load(&file(folder, name), convert::model_options(load)).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        if own {
            return fresh(self.folder.path());
        }
        self.models.entry(format!("{name} {load}")).or_insert_with(|| fresh(self.folder.path())).clone()
    }

    /// What the calls of a case share.
    pub(crate) fn scene(&self, model_name: &str, model: A::Model) -> Arc<Scene<A>> {
        let folder = self.folder.path().to_owned();
        Arc::new(Scene { model_path: file(&folder, model_name), folder, model, objects: Objects::new() })
    }
}

/// A case's model and the objects it has made.
pub(crate) struct Scene<A: Api> {
    folder: PathBuf,
    pub(crate) model_path: PathBuf,
    pub(crate) model: A::Model,
    pub(crate) objects: Objects<A>,
}

impl<A: Api> Scene<A> {
    /// The path of a file of that name that the case makes.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.state"))
    }
}

pub(crate) fn outcome<A: Api>(scene: &Arc<Scene<A>>, call: &str, with: &Value) -> Outcome {
    let failed = |error| convert::error(&error);
    let (folder, model) = (scene.folder.as_path(), &scene.model);
    match call {
        "generate" => generate::<A>(model, with),
        "generate_text" => {
            let max_tokens = with["max_tokens"].as_u64().expect("a count") as usize;
            A::generate(model, text(&with["prompt"]), max_tokens).map(Value::from).map_err(failed)
        }
        "stream" => {
            let cancel_after = with["cancel_after"].as_u64().map(|n| n as usize);
            A::stream(model, text(&with["prompt"]), convert::stream_config(&with["options"]), cancel_after)
                .map_err(failed)
                .and_then(streamed)
        }
        "tokenize" => {
            let switch = |name: &str, default| with.get(name).map_or(default, |value| value == &json!(true));
            A::tokenize(model, text(&with["text"]), switch("add_bos", true), switch("parse_special", false))
                .map(Value::from)
                .map_err(failed)
        }
        "detokenize" => {
            let tokens: Vec<_> = list(&with["tokens"]).iter().map(convert::token).collect();
            A::detokenize(model, &tokens).map(Value::from).map_err(failed)
        }
        "load" => {
            let path = file(folder, text(&with["file"]));
            let loaded = A::load(&path, convert::model_options(&with["options"])).map_err(failed)?;
            let info = convert::info(&A::info(&loaded));
            A::close(&loaded);
            Ok(info)
        }
        "info" => Ok(convert::info(&A::info(model))),
        "metadata" => Ok(json!(A::metadata(model))),
        "metrics" => Ok(convert::metrics(&A::metrics(model))),
        "placement" => Ok(convert::placement(&A::placement(model))),
        "is_ready" => Ok(json!(A::is_ready(model))),
        "close" => {
            A::close(model);
            Ok(Value::Null)
        }
        "together" => Ok(together::<A>(scene, &with["calls"])),
        "value" => Ok(with["of"].clone()),
        _ => objects::outcome(scene, call, with),
    }
}

pub(crate) fn generate<A: Api>(model: &A::Model, with: &Value) -> Outcome {
    A::generate_with(model, text(&with["prompt"]), convert::stream_config(&with["options"]))
        .map(|generation| convert::generation(&generation))
        .map_err(|error| convert::error(&error))
}

/// An outcome as a value.
pub(crate) fn told(outcome: Outcome) -> Value {
    match outcome {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "error": error }),
    }
}

pub(crate) fn streamed(found: Streamed) -> Outcome {
    let Some(error) = found.error else {
        return Ok(convert::stream(&found.items, found.finish_reason.as_ref(), found.usage, found.seed));
    };
    let mut error = convert::error(&error);
    error["streamed"] = convert::joined(&found.items).into();
    Err(error)
}

/// All calls at once, each from a thread of its own.
fn together<A: Api>(scene: &Arc<Scene<A>>, calls: &Value) -> Value {
    assert!(length(calls) > 1, "{calls}");
    let one = |call: &Value| told(outcome(scene, text(&call["call"]), &call["with"]));
    thread::scope(|scope| {
        let threads: Vec<_> = list(calls).iter().map(|call| scope.spawn(|| one(call))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a call does not panic")).collect()
    })
}

/// The path of a file of that kind, made when first needed.
fn file(folder: &Path, name: &str) -> PathBuf {
    if name == "demo" {
        return demo_model_path();
    }
    let path = folder.join(format!("{name}.gguf"));
    if name == "missing" || path.exists() {
        return path;
    }
    let kind = match name {
        "tiny" => "llama",
        other => other.trim_start_matches("tiny-"),
    };
    let made = match Kind::ALL.iter().find(|(known, _)| *known == kind) {
        Some((_, kind)) => TinyModel::new(*kind).write_to(&path),
        None if name == "directory" => fs::create_dir(&path),
        None if name == "lora" => lora::adapter_for(&TinyModel::llama().build(), 4, 1).write_to(&path),
        None => Corruption::named(name).unwrap_or_else(|| panic!("there is no file '{name}'")).write_to(&path),
    };
    made.expect("a file can be written");
    path
}
