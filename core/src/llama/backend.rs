//! One-time start of llama.cpp, and the check that this CPU can run it. A build
//! with the feature `dynamic-backends` runs on every CPU and loads what suits
//! the one at hand (`modules.rs`).

use super::{
    logging,
    shim::{self, ErrorText},
};
use crate::MullamaError;
use llama_cpp_sys_2 as sys;
use std::{ffi::CStr, sync::OnceLock};

/// Starts llama.cpp if that has not happened yet. It is never stopped: other
/// models of the process may use it at any time.
///
/// # Errors
/// `Unsupported` on a CPU that can't run it, where no module for it is there,
/// and where a backend's driver fails at its start.
pub(crate) fn ensure_started() -> Result<(), MullamaError> {
    static STARTED: OnceLock<Result<(), MullamaError>> = OnceLock::new();
    check_cpu()?;
    let start = || {
        logging::install();
        // The modules' static objects come before those of the start below, and
        // so before the exit handlers that are registered after it.
        #[cfg(feature = "dynamic-backends")]
        super::modules::load()?;
        let mut error = ErrorText::new();
        // Makes ggml's registry too, so that an exit handler that is
        // registered after this runs before its destruction.
        // SAFETY: called once, before anything of llama.cpp but the log's
        // callback; the buffer is valid for its size.
        match unsafe { shim::mullama_start(error.as_mut_ptr(), error.size()) } {
            shim::OK => Ok(()),
            _ => Err(MullamaError::Unsupported(format!("llama.cpp could not start: {}", error.text()))),
        }
    };
    STARTED.get_or_init(start).clone()
}

/// Fails where this build's instructions would end the process with SIGILL.
///
/// # Errors
/// `Unsupported`, naming the missing instruction sets.
pub(crate) fn check_cpu() -> Result<(), MullamaError> {
    #[cfg(all(target_arch = "x86_64", not(feature = "dynamic-backends")))]
    {
        let missing: Vec<&str> = [
            ("AVX2", std::is_x86_feature_detected!("avx2")),
            ("FMA", std::is_x86_feature_detected!("fma")),
            ("F16C", std::is_x86_feature_detected!("f16c")),
            ("BMI2", std::is_x86_feature_detected!("bmi2")),
        ]
        .into_iter()
        .filter_map(|(name, present)| (!present).then_some(name))
        .collect();
        if !missing.is_empty() {
            return Err(MullamaError::Unsupported(format!(
                "this CPU lacks {}, which this build of mullama needs; use a package with all variants of the CPU \
                 backend, or build one with the feature `dynamic-backends`",
                missing.join(", ")
            )));
        }
    }
    Ok(())
}

/// The variant of the CPU backend that was chosen when llama.cpp was started;
/// `None` where it is a part of this build.
pub(super) fn cpu_variant() -> Option<String> {
    #[cfg(feature = "dynamic-backends")]
    {
        super::modules::variant()
    }
    #[cfg(not(feature = "dynamic-backends"))]
    {
        None
    }
}

/// llama.cpp's own list of the instruction sets and features it was built
/// with.
pub(crate) fn system_info() -> String {
    // So that what it starts logs to `tracing` too. On a CPU that can't run
    // llama.cpp, naming its features still can.
    let _ = ensure_started();
    // SAFETY: takes no arguments and gives a string with static lifetime.
    let text = unsafe { sys::llama_print_system_info() };
    // SAFETY: the string ends in a zero byte and is never freed.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
