//! Backends, devices, where layers go, and `gpu_layers` without a GPU. A GPU is
//! on few machines, so what needs one is left to them: the tests hold on both.

use mullama::{DeviceKind, Model, ModelOptions, StreamConfig};
use mullama_test_support::TinyModel;
use mullama_tests::{events, options};
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;
use tracing::Level;

/// One load at a time, so that warnings can be told apart; gives what this one
/// warned of.
fn loaded(gpu_layers: i32) -> (Model, Vec<String>, TempDir) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one: MutexGuard<'_, ()> = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    TinyModel::llama().seed(7).n_layer(3).write_to(&path).unwrap();
    events::from(Level::WARN);
    let model = Model::load_with(&path, ModelOptions { gpu_layers, ..options() }).unwrap();
    let warnings = events::seen();
    (model, warnings, dir)
}

fn has_gpu() -> bool {
    mullama::devices().unwrap().iter().any(|d| matches!(d.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu))
}

#[test]
fn every_device_belongs_to_a_backend_and_one_is_the_cpu() {
    let (backends, devices) = (mullama::backends().unwrap(), mullama::devices().unwrap());
    for backend in &backends {
        let found = devices.iter().filter(|device| device.backend == backend.name).count();
        assert_eq!(found, backend.n_devices, "{backend:?}");
    }
    assert_eq!(devices.len(), backends.iter().map(|backend| backend.n_devices).sum::<usize>());
    let names: BTreeSet<_> = devices.iter().map(|device| &device.name).collect();
    assert_eq!(names.len(), devices.len(), "names are unique");
    let cpus: Vec<_> = devices.iter().filter(|device| device.kind == DeviceKind::Cpu).collect();
    let [cpu] = cpus.as_slice() else { panic!("one CPU, not {cpus:?}") };
    assert_eq!((cpu.name.as_str(), cpu.backend.as_str()), ("CPU", "CPU"));
    assert!(!cpu.description.is_empty());
    assert!(0 < cpu.memory_free && cpu.memory_free <= cpu.memory_total, "{cpu:?}");
}

#[test]
fn the_kinds_have_the_names_of_all_languages() {
    assert_eq!(DeviceKind::ALL.map(DeviceKind::name), ["cpu", "gpu", "integrated_gpu", "accelerator"]);
}

#[test]
fn without_gpu_layers_all_layers_are_on_the_cpu_and_nothing_is_warned_of() {
    let (model, warnings, _dir) = loaded(0);
    assert_eq!(warnings, Vec::<String>::new());
    let placement = model.placement();
    let [cpu] = placement.as_slice() else { panic!("one device, not {placement:?}") };
    assert_eq!((cpu.device.as_str(), cpu.n_layers), ("CPU", model.info().n_layer + 1));
    model.close();
    assert_eq!(model.placement(), placement, "known after the end, too");
}

#[test]
fn every_layer_is_somewhere_whatever_is_asked_for() {
    let names: BTreeSet<_> = mullama::devices().unwrap().into_iter().map(|device| device.name).collect();
    for gpu_layers in [-1, 1, 2, 4, 1000] {
        let (model, _, _dir) = loaded(gpu_layers);
        let placement = model.placement();
        assert_eq!(placement.iter().map(|entry| entry.n_layers).sum::<usize>(), model.info().n_layer + 1);
        assert!(placement.iter().all(|entry| names.contains(&entry.device)), "{placement:?}");
        let off_cpu: usize = placement.iter().filter(|e| e.device != "CPU").map(|e| e.n_layers).sum();
        let wanted = usize::try_from(gpu_layers).unwrap_or(usize::MAX).min(model.info().n_layer + 1);
        assert_eq!(off_cpu, if has_gpu() { wanted } else { 0 }, "gpu_layers {gpu_layers}");
    }
}

#[test]
fn gpu_layers_without_a_gpu_warn_once_a_load_and_the_model_runs() {
    for gpu_layers in [-1, 7, 7] {
        let (model, warnings, _dir) = loaded(gpu_layers);
        if has_gpu() {
            assert_eq!(warnings, Vec::<String>::new());
        } else {
            let [warning] = warnings.as_slice() else { panic!("one warning, not {warnings:?}") };
            for part in [&format!("gpu_layers '{gpu_layers}'"), "runs on the CPU", "set gpu_layers to 0", "CPU"] {
                assert!(warning.contains(part), "{part:?} is in {warning:?}");
            }
        }
        let config = StreamConfig::new().max_tokens(3).temperature(0.0).ignore_eos(true);
        assert_eq!(model.generate_with("a", config).unwrap().tokens.len(), 3);
    }
}
