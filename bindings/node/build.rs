//! Sets the linker options that a Node add-on needs, and puts the modules of a
//! build with the feature `dynamic-backends` where the npm scripts want them.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

fn main() {
    napi_build::setup();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MULLAMA_BACKENDS_OUT");
    if let (Some(built), Some(out)) =
        (env::var_os("DEP_MULLAMA_SHIM_BACKENDS_DIR"), env::var_os("MULLAMA_BACKENDS_OUT"))
    {
        copy_modules(&PathBuf::from(built), &PathBuf::from(out));
    }
}

fn copy_modules(built: &Path, out: &Path) {
    if out.exists() {
        fs::remove_dir_all(out).expect("the folder for the modules can be removed");
    }
    fs::create_dir_all(out).expect("the folder for the modules can be made");
    for entry in fs::read_dir(built).expect("the modules were built") {
        let module = entry.expect("the folder can be read").path();
        let copy = out.join(module.file_name().expect("an entry has a name"));
        fs::copy(&module, &copy).expect("a module is copied");
        // Copied again where it is missing; the original's time, or Cargo would
        // think it changed after this script ran.
        let built_at = fs::metadata(&module).and_then(|data| data.modified()).expect("files have times");
        let copied = File::options().write(true).open(&copy).expect("the copy can be opened");
        copied.set_modified(built_at).expect("the copy's time can be set");
        println!("cargo:rerun-if-changed={}", copy.display());
    }
}
