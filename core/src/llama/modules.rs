//! ggml's backends as modules: which folder they are in, and which variant of
//! the CPU backend suits this processor. Used once, by the thread that starts
//! llama.cpp.
//!
//! ggml has a loader of its own. It is left alone because it does not tell what
//! it chose, takes a variant whose registers the operating system does not
//! save, and leaves the log of a self-contained module on stderr.

use super::{
    logging::{self, LogCallback},
    own_folder::own_folder,
    shim::{self, ErrorText},
};
use crate::MullamaError;
use libloading::Library;
use std::{
    ffi::{CString, c_int, c_void},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Names the folder of the modules, and no other is looked at then.
const FOLDER_VARIABLE: &str = "MULLAMA_BACKENDS_DIR";

/// The folder beside the library or program.
const FOLDER: &str = "backends";

/// Where the build put them, for a program that runs where it was built. Not
/// for the packages: their modules are beside them or nowhere.
const BUILT: Option<&str> = option_env!("MULLAMA_BUILT_BACKENDS");

/// The backends that have one module each, in the order that ggml prefers.
const SINGLE: [&str; 5] = ["cuda", "hip", "metal", "vulkan", "opencl"];

/// The variants of ggml's build for x86-64, those with the higher scores first:
/// which scores they are depends on how they were compiled, whether they are 0
/// on the processor. To tell that, a module asks it some forty questions, each
/// of which takes a hypervisor some ten microseconds: 17 ms for all of them, on
/// one machine. So they are asked in this order, until one fits.
const BEST_FIRST: [&str; 14] = [
    "sapphirerapids",
    "zen4",
    "cooperlake",
    "icelake",
    "cascadelake",
    "cannonlake",
    "skylakex",
    "alderlake",
    "haswell",
    "piledriver",
    "ivybridge",
    "sandybridge",
    "sse42",
    "x64",
];

const PREFIX: &str = if cfg!(windows) { "ggml-" } else { "libggml-" };
const SUFFIX: &str = if cfg!(windows) { ".dll" } else { ".so" };

type Score = unsafe extern "C" fn() -> c_int;
type SetLog = unsafe extern "C" fn(LogCallback, *mut c_void);

static VARIANT: OnceLock<String> = OnceLock::new();

/// The variant of the CPU backend that was loaded.
pub(super) fn variant() -> Option<String> {
    VARIANT.get().cloned()
}

/// Loads the backends that are there and the best variant of the CPU's.
///
/// # Errors
/// `Unsupported` when there is no variant for this processor.
pub(super) fn load() -> Result<(), MullamaError> {
    let folders = folders();
    let Some((folder, variants)) =
        folders.iter().map(|folder| (folder, variants_in(folder))).find(|(_, v)| !v.is_empty())
    else {
        return Err(MullamaError::Unsupported(format!(
            "there is no CPU backend in {}; install the package again, or name the folder of the files \
             '{PREFIX}cpu-*{SUFFIX}' in {FOLDER_VARIABLE}",
            quoted(&folders)
        )));
    };
    for name in SINGLE {
        let path = folder.join(format!("{PREFIX}{name}{SUFFIX}"));
        if path.is_file()
            && let Err(reason) = open(&path).and_then(|library| register(&path, &library))
        {
            // Such as a driver that this machine lacks.
            tracing::warn!("the backend '{name}' is left out: {reason}");
        }
    }
    let mut reasons = Vec::new();
    let mut candidates = Candidates::new(variants, &mut reasons);
    while let Some(candidate) = candidates.next(&mut reasons) {
        match register(&candidate.path, &candidate.library) {
            Ok(()) => {
                tracing::debug!("the CPU backend is the variant '{}' in '{}'", candidate.variant, folder.display());
                VARIANT.get_or_init(|| candidate.variant);
                return Ok(());
            }
            Err(reason) => reasons.push(format!("'{}': {reason}", candidate.variant)),
        }
    }
    Err(MullamaError::Unsupported(format!(
        "no CPU backend in {} runs on this CPU ({}); install the package again, or name a folder with the variant \
         'x64' in {FOLDER_VARIABLE}",
        quoted(std::slice::from_ref(folder)),
        reasons.join(", ")
    )))
}

/// Where the modules may be; the first folder that has some counts.
fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return vec![PathBuf::from(folder)];
    }
    own_folder().map(|folder| folder.join(FOLDER)).into_iter().chain(BUILT.map(PathBuf::from)).collect()
}

fn quoted(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|folder| format!("'{}'", folder.display())).collect();
    names.join(" or ")
}

/// The variants of the CPU backend in a folder: name and path.
fn variants_in(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let variant = name.strip_prefix(PREFIX)?.strip_prefix("cpu-")?.strip_suffix(SUFFIX)?;
            Some((variant.to_owned(), path))
        })
        .collect();
    found.sort();
    found
}

struct Candidate {
    variant: String,
    path: PathBuf,
    library: Library,
    score: c_int,
}

/// The variants that this processor can run, the one with the most instruction
/// sets first.
struct Candidates {
    /// Asked, and can run here.
    fit: Vec<Candidate>,
    /// Of [`BEST_FIRST`], in its order.
    unasked: std::vec::IntoIter<(String, PathBuf)>,
}

impl Candidates {
    /// `reasons` says what is wrong with a variant.
    fn new(variants: Vec<(String, PathBuf)>, reasons: &mut Vec<String>) -> Self {
        let rank = |variant: &str| BEST_FIRST.iter().position(|name| *name == variant);
        let (mut ranked, others): (Vec<_>, Vec<_>) =
            variants.into_iter().partition(|(variant, _)| rank(variant).is_some());
        ranked.sort_by_key(|(variant, _)| rank(variant));
        let fit = others.into_iter().filter_map(|variant| ask(variant, reasons)).collect();
        Self { fit, unasked: ranked.into_iter() }
    }

    fn next(&mut self, reasons: &mut Vec<String>) -> Option<Candidate> {
        // None of those after it is better.
        self.fit.extend(self.unasked.by_ref().find_map(|variant| ask(variant, reasons)));
        let best = (0..self.fit.len()).max_by_key(|place| self.fit[*place].score)?;
        Some(self.fit.swap_remove(best))
    }
}

/// The variant of a module, if this processor can run it.
fn ask((variant, path): (String, PathBuf), reasons: &mut Vec<String>) -> Option<Candidate> {
    match open(&path).and_then(|library| score(&library).map(|score| (library, score))) {
        Ok((library, score)) if score > 0 && saved_by_the_system(score) => {
            return Some(Candidate { variant, path, library, score });
        }
        Ok(_) => reasons.push(format!("'{variant}' needs instructions that it lacks")),
        Err(reason) => reasons.push(format!("'{variant}': {reason}")),
    }
    None
}

fn open(path: &Path) -> Result<Library, String> {
    // SAFETY: the modules of a folder that the package, the build or the user
    // names are part of this program; what they run when they are loaded uses
    // no instruction beyond the baseline.
    unsafe { Library::new(path) }.map_err(|error| error.to_string())
}

/// ggml's own score of a module: 0 where the processor lacks something.
fn score(library: &Library) -> Result<c_int, String> {
    // SAFETY: a module that has this name has ggml's function of it.
    let score = unsafe { library.get::<Score>(c"ggml_backend_score") }.map_err(|error| error.to_string())?;
    // SAFETY: the function takes nothing and is compiled for the baseline.
    Ok(unsafe { score() })
}

/// Whether the operating system saves the registers that a variant uses, which
/// ggml does not ask: a hypervisor or a kernel option can leave out what the
/// processor has. The score of an x86 variant has a bit for each instruction
/// set, over a first 1.
fn saved_by_the_system(score: c_int) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let sets = score - 1;
        // F16C, AVX, AVX2, AVX-VNNI; the rest of AVX-512 comes with its base.
        let needs_avx = sets & (1 << 1 | 1 << 4 | 1 << 5 | 1 << 6) != 0;
        let needs_avx512 = sets & (0b1111 << 7) != 0;
        (!needs_avx || std::is_x86_feature_detected!("avx"))
            && (!needs_avx512 || std::is_x86_feature_detected!("avx512f"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = score;
        true
    }
}

/// Has ggml load the module into its registry, its log routed first.
fn register(path: &Path, library: &Library) -> Result<(), String> {
    // Where the linker does not show the function, the module's log stays on
    // stderr; it computes all the same.
    // SAFETY: a module that has this name has ggml's function of it.
    if let Ok(set_log) = unsafe { library.get::<SetLog>(c"ggml_log_set") } {
        // SAFETY: the callback never unwinds and uses no user data.
        unsafe { set_log(logging::CALLBACK, std::ptr::null_mut()) };
    }
    let path = path.to_str().ok_or_else(|| "the path is no valid UTF-8".to_owned())?;
    let path = CString::new(path).map_err(|_| "the path has a zero byte".to_owned())?;
    let mut error = ErrorText::new();
    // SAFETY: the path ends in a zero byte, and the buffer is valid for its
    // size.
    match unsafe { shim::mullama_backend_load(path.as_ptr(), error.as_mut_ptr(), error.size()) } {
        shim::OK => Ok(()),
        shim::NULL => Err("ggml does not take it".to_owned()),
        _ => Err(error.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidates, PREFIX, SUFFIX, folders, variants_in};
    use std::path::Path;

    #[test]
    fn variants_are_the_cpu_modules_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(variants_in(folder.path()).is_empty());
        assert!(variants_in(&folder.path().join("nowhere")).is_empty());
        for name in ["cpu-x64", "cpu-haswell", "cuda", "base"] {
            std::fs::write(folder.path().join(format!("{PREFIX}{name}{SUFFIX}")), "").unwrap();
        }
        std::fs::write(folder.path().join("cpu-x64.txt"), "").unwrap();
        let names: Vec<_> = variants_in(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["haswell", "x64"]);
    }

    #[test]
    fn a_file_that_is_no_module_is_left_out_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(format!("{PREFIX}cpu-x64{SUFFIX}")), "no module").unwrap();
        let mut reasons = Vec::new();
        let mut candidates = Candidates::new(variants_in(folder.path()), &mut reasons);
        assert!(candidates.next(&mut reasons).is_none());
        assert!(matches!(reasons.as_slice(), [reason] if reason.starts_with("'x64': ")), "{reasons:?}");
    }

    #[test]
    fn the_best_variant_comes_first_whether_its_name_is_known_or_not() {
        let built = folders().into_iter().find(|folder| !variants_in(folder).is_empty());
        let built = built.expect("modules beside the test, or in the folder that MULLAMA_BACKENDS_DIR names");
        let scores = |folder: &Path| {
            let mut reasons = Vec::new();
            let mut candidates = Candidates::new(variants_in(folder), &mut reasons);
            let scores: Vec<_> = std::iter::from_fn(|| candidates.next(&mut reasons).map(|c| c.score)).collect();
            assert_eq!(scores.len() + reasons.len(), variants_in(folder).len());
            scores
        };
        let known = scores(&built);
        assert!(!known.is_empty() && known.is_sorted_by(|one, next| one >= next), "{known:?}");

        let folder = tempfile::tempdir().unwrap();
        for (place, (variant, path)) in variants_in(&built).into_iter().enumerate() {
            let name = if place % 2 == 0 { format!("other-{place}") } else { variant };
            std::fs::copy(path, folder.path().join(format!("{PREFIX}cpu-{name}{SUFFIX}"))).unwrap();
        }
        assert_eq!(scores(folder.path()), known);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_needs_no_wide_registers_is_always_saved() {
        use super::saved_by_the_system;
        // The variants x64 and sse42.
        assert!(saved_by_the_system(1) && saved_by_the_system(1 + (1 << 2)));
        assert_eq!(saved_by_the_system(1 + (1 << 2) + (1 << 4)), std::is_x86_feature_detected!("avx"));
        assert_eq!(saved_by_the_system(1 + (1 << 7)), std::is_x86_feature_detected!("avx512f"));
    }
}
