//! One-time start of llama.cpp, and the check that this CPU can run it.

use super::logging;
use crate::MullamaError;
use llama_cpp_sys_2 as sys;
use std::{ffi::CStr, sync::Once};

/// Starts llama.cpp if that has not happened yet. It is never stopped: other
/// models of the process may use it at any time.
///
/// # Errors
/// `Unsupported` on a CPU that can't run it.
pub(crate) fn ensure_started() -> Result<(), MullamaError> {
    static START: Once = Once::new();
    check_cpu()?;
    START.call_once(|| {
        logging::install();
        // SAFETY: called once, and before anything but the log's callback.
        unsafe { sys::llama_backend_init() };
        // Makes ggml's registry now, so that an exit handler that is
        // registered after this runs before its destruction.
        // SAFETY: takes no arguments.
        unsafe { sys::ggml_backend_reg_count() };
    });
    Ok(())
}

/// Fails where this build's instructions would end the process with SIGILL.
///
/// # Errors
/// `Unsupported`, naming the missing instruction sets.
pub(crate) fn check_cpu() -> Result<(), MullamaError> {
    #[cfg(target_arch = "x86_64")]
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
                "this CPU lacks {}, which this build of mullama needs",
                missing.join(", ")
            )));
        }
    }
    Ok(())
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
