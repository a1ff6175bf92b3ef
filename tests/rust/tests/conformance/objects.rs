//! The calls on a case's own objects: contexts, pools with their leases, task
//! managers, and calls that go on in the background.

use crate::{
    api::{Api, Dropped, cancel_by, wait},
    calls::{Outcome, Scene, generate, outcome as call_outcome, streamed, told},
    convert, expectation,
    value::{list, text},
};
use mullama::{GenerationTask, MullamaError, MullamaRuntime, TaskManager};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The calls that only an API with tasks has.
pub(crate) fn needs_tasks(call: &str) -> bool {
    call.starts_with("task") || call == "cancel"
}

/// By name.
pub(crate) struct Objects<A: Api> {
    contexts: Named<Arc<Mutex<A::Context>>>,
    pools: Named<A::Pool>,
    /// A lease and a copy of its model; without the lease when it is back.
    leases: Named<(Option<A::Lease>, A::Model)>,
    managers: Named<Arc<TaskManager>>,
    tasks: Named<GenerationTask>,
    started: Named<(CancellationToken, JoinHandle<Outcome>)>,
}

struct Named<T>(Mutex<HashMap<String, T>>);

impl<T> Named<T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &Value, object: T) -> Value {
        self.all().insert(text(name).to_owned(), object);
        Value::Null
    }

    fn take(&self, name: &Value) -> T {
        self.all().remove(text(name)).unwrap_or_else(|| panic!("there is no {name}"))
    }
}

impl<T: Clone> Named<T> {
    fn get(&self, name: &Value) -> T {
        self.all().get(text(name)).unwrap_or_else(|| panic!("there is no {name}")).clone()
    }
}

impl<A: Api> Objects<A> {
    pub(crate) fn new() -> Self {
        Self {
            contexts: Named::new(),
            pools: Named::new(),
            leases: Named::new(),
            managers: Named::new(),
            tasks: Named::new(),
            started: Named::new(),
        }
    }

    /// Ends all of them, at the end of a case.
    pub(crate) fn close(&self) {
        for (_, (token, thread)) in self.started.all().drain() {
            token.cancel();
            // A blocking call ends with its pool.
            self.pools.all().values().for_each(A::close_pool);
            let _ = thread.join();
        }
        self.tasks.all().clear();
        for manager in self.managers.all().values() {
            wait(manager.stop_all()).expect("no worker failed");
        }
        for context in self.contexts.all().values() {
            A::close_context(&locked(context));
        }
        self.leases.all().clear();
        self.pools.all().values().for_each(A::close_pool);
    }
}

pub(crate) fn outcome<A: Api>(scene: &Arc<Scene<A>>, call: &str, with: &Value) -> Outcome {
    result(scene, call, with).unwrap_or_else(|error| Err(convert::error(&error)))
}

/// The outer result is a call's own; the inner one already an outcome.
fn result<A: Api>(scene: &Arc<Scene<A>>, call: &str, with: &Value) -> Result<Outcome, MullamaError> {
    let objects = &scene.objects;
    let on = &with["on"];
    let size = || convert::count(&with["size"]);
    let path = || scene.path(text(&with["file"]));
    let done = |()| Value::Null;
    Ok(Ok(match call {
        "context_create" => {
            let context = A::context(&scene.model, convert::context_options(&with["options"]))?;
            objects.contexts.put(&with["as"], Arc::new(Mutex::new(context)))
        }
        "context_generate" => {
            let tokens: Vec<_> = list(&with["tokens"]).iter().map(convert::token).collect();
            let config = convert::stream_config(&with["options"]);
            let cancel_after = with["cancel_after"].as_u64().map(|n| n as usize);
            let context = objects.contexts.get(on);
            let found = A::context_stream(&mut locked(&context), &tokens, config, cancel_after)?;
            return Ok(streamed(found));
        }
        "context_batch" => {
            let batches = list(&with["batches"]).iter().map(convert::batch).collect();
            json!(A::process_batch(&mut locked(&objects.contexts.get(on)), batches)?)
        }
        "context_save" => A::save_state(&mut locked(&objects.contexts.get(on)), &path()).map(done)?,
        "context_load" => A::load_state(&mut locked(&objects.contexts.get(on)), &path()).map(done)?,
        "context_truncate" => {
            A::truncate(&mut locked(&objects.contexts.get(on)), convert::count(&with["n"])).map(done)?
        }
        "context_clear" => A::clear(&mut locked(&objects.contexts.get(on))).map(done)?,
        "context_n_past" => json!(A::n_past(&locked(&objects.contexts.get(on)))),
        "context_close" => {
            A::close_context(&locked(&objects.contexts.get(on)));
            Value::Null
        }
        "alter_file" => alter(&path(), with),
        "pool_create" => {
            let pool = A::pool(&scene.model_path, convert::model_options(&with["options"]), size())?;
            objects.pools.put(&with["as"], pool)
        }
        "pool_acquire" => {
            let limit = with["timeout_ms"].as_u64().map(Duration::from_millis);
            let lease = A::acquire(&objects.pools.get(on), limit)?;
            let model = A::leased(&lease);
            objects.leases.put(&with["as"], (Some(lease), model))
        }
        "pool_try_acquire" => match A::try_acquire(&objects.pools.get(on))? {
            None => json!(false),
            Some(lease) => {
                let model = A::leased(&lease);
                objects.leases.put(&with["as"], (Some(lease), model));
                json!(true)
            }
        },
        "pool_stats" => convert::pool_stats(&A::stats(&objects.pools.get(on))),
        "pool_resize" => A::resize(&objects.pools.get(on), size()).map(done)?,
        "pool_close" => {
            A::close_pool(&objects.pools.get(on));
            Value::Null
        }
        "lease_generate" => {
            let model = objects.leases.all().get(text(on)).unwrap_or_else(|| panic!("there is no {on}")).1.clone();
            return Ok(generate::<A>(&model, with));
        }
        "lease_release" => {
            let lease = objects.leases.all().get_mut(text(on)).unwrap_or_else(|| panic!("there is no {on}")).0.take();
            drop(lease);
            Value::Null
        }
        "backends" => convert::backends(&mullama::backends()?),
        "devices" => convert::devices(&mullama::devices()?),
        "runtime_metrics" => convert::runtime_metrics(&wait(MullamaRuntime::shared()?.metrics())),
        "metrics_text" => wait(MullamaRuntime::shared()?.metrics_text()).into(),
        "start" => {
            let (scene, call, token) = (scene.clone(), with["run"].clone(), CancellationToken::new());
            let canceller = token.clone();
            let thread = thread::spawn(move || {
                cancel_by(token);
                call_outcome(&scene, text(&call["call"]), &call["with"])
            });
            objects.started.put(&with["as"], (canceller, thread))
        }
        "finish" => told(objects.started.take(on).1.join().expect("a call does not panic")),
        "cancel" => {
            let (token, thread) = objects.started.take(on);
            token.cancel();
            if let Err(panic) = thread.join() {
                assert!(panic.is::<Dropped>(), "a call does not panic");
            }
            Value::Null
        }
        "until" => loop {
            let found = call_outcome(scene, text(&with["run"]["call"]), &with["run"]["with"]);
            match found {
                Ok(found) if expectation::check(&with["is"], &found).is_err() => {
                    thread::sleep(Duration::from_millis(1));
                }
                found => return Ok(found),
            }
        },
        _ => return tasks_result(scene, call, with),
    }))
}

fn tasks_result<A: Api>(scene: &Arc<Scene<A>>, call: &str, with: &Value) -> Result<Outcome, MullamaError> {
    let objects = &scene.objects;
    let on = &with["on"];
    Ok(Ok(match call {
        "tasks_create" => objects.managers.put(&with["as"], Arc::new(TaskManager::new(MullamaRuntime::shared()?))),
        "tasks_worker" => objects.managers.get(on).spawn_generation_worker()?.into(),
        "tasks_collector" => {
            let manager = objects.managers.get(on);
            let name = match (with["interval_ms"].as_u64(), with["capacity"].as_u64()) {
                (None, None) => manager.spawn_metrics_collector()?,
                (ms, capacity) => manager.spawn_metrics_collector_with(
                    Duration::from_millis(ms.unwrap_or(1000)),
                    capacity.map_or(3600, |n| n as usize),
                )?,
            };
            name.into()
        }
        "tasks_submit" => {
            let model = A::for_tasks(&scene.model).expect("cases with tasks are left out otherwise");
            let config = convert::stream_config(&with["options"]);
            objects.tasks.put(&with["as"], objects.managers.get(on).submit(model, text(&with["prompt"]), config)?)
        }
        "task_result" => convert::generation(&wait(objects.tasks.take(on))?),
        "task_cancel" => {
            objects.tasks.all().get(text(on)).unwrap_or_else(|| panic!("there is no {on}")).cancel();
            Value::Null
        }
        "tasks_status" => convert::statuses(&objects.managers.get(on).worker_status()),
        "tasks_history" => objects.managers.get(on).metrics_history().iter().map(convert::runtime_metrics).collect(),
        "tasks_stop" => wait(objects.managers.get(on).stop_all()).map(|()| Value::Null)?,
        _ => panic!("there is no call '{call}'"),
    }))
}

/// Cuts a file, or inverts one of its bytes.
fn alter(path: &std::path::Path, with: &Value) -> Value {
    let mut bytes = fs::read(path).expect("the file is there");
    if let Some(keep) = with["keep"].as_u64() {
        bytes.truncate(keep as usize);
    }
    if let Some(at) = with["at"].as_i64() {
        let place = if at < 0 { bytes.len() - at.unsigned_abs() as usize } else { at as usize };
        bytes[place] ^= 0xff;
    }
    fs::write(path, bytes).expect("the file can be written");
    Value::Null
}

/// A case whose call panicked has failed already.
fn locked<T>(object: &Mutex<T>) -> MutexGuard<'_, T> {
    object.lock().unwrap_or_else(PoisonError::into_inner)
}
