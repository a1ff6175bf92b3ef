//! Compiles the C++ guard shim against the headers of the llama.cpp that
//! `llama-cpp-sys-2` built, links OpenCL, which that crate leaves to its user,
//! and with the feature `dynamic-backends` says where the modules are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo:rerun-if-changed=src/llama/shim.cpp");
    println!("cargo:rerun-if-changed=src/llama/shim.h");
    // <prefix>/lib/cmake is what the sys crate reports; its headers are in <prefix>/include.
    let cmake_dir = PathBuf::from(
        env::var_os("DEP_LLAMA_GGML_CMAKE_DIR").expect("llama-cpp-sys-2 reports where it installed llama.cpp"),
    );
    let prefix = cmake_dir.ancestors().nth(2).expect("the CMake directory lies two levels below the prefix");
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++17").file("src/llama/shim.cpp").include(prefix.join("include")).warnings(true);
    let modules = env::var_os("CARGO_FEATURE_DYNAMIC_BACKENDS").is_some();
    // A module links it by itself.
    let opencl = env::var_os("CARGO_FEATURE_OPENCL").is_some() && !modules;
    if opencl {
        shim.define("MULLAMA_OPENCL", None);
    }
    shim.compile("mullama_shim");
    if opencl {
        link_opencl();
    }
    if modules {
        provide_modules();
    }
}

/// The packages take the modules from `OUT_DIR/backends` and have them in a
/// folder beside their library, so their library must not name a folder of the
/// machine that built it. What a Cargo user builds runs here and is told where
/// they are. The two are told apart by what `.cargo/config.toml` sets.
fn provide_modules() {
    println!("cargo:rerun-if-env-changed=LLAMA_BUILD_SHARED_LIBS");
    let built =
        PathBuf::from(env::var_os("DEP_LLAMA_BACKENDS_DIR").expect("llama-cpp-sys-2 reports where modules are"));
    if env::var("LLAMA_BUILD_SHARED_LIBS").is_ok_and(|value| value == "0") {
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
        let packed = out.join("backends");
        if packed.exists() {
            fs::remove_dir_all(&packed).expect("the folder of this build script can be removed");
        }
        fs::create_dir(&packed).expect("the folder of this build script can be written to");
        for entry in fs::read_dir(&built).expect("the modules were installed") {
            let module = entry.expect("the folder can be read").path();
            fs::copy(&module, packed.join(module.file_name().expect("an entry has a name")))
                .expect("a module is copied");
        }
        // For the build script of the Node binding.
        println!("cargo:backends_dir={}", packed.display());
    } else {
        println!("cargo:rustc-env=MULLAMA_BUILT_BACKENDS={}", built.display());
    }
}

/// After the shim, which makes the linker keep the library (see `shim.cpp`).
fn link_opencl() {
    println!("cargo:rerun-if-env-changed=OPENCL_LIBRARY");
    if let Some(folder) = env::var_os("OPENCL_LIBRARY").map(PathBuf::from).as_deref().and_then(Path::parent) {
        println!("cargo:rustc-link-search=native={}", folder.display());
    }
    if env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple") {
        println!("cargo:rustc-link-lib=framework=OpenCL");
    } else {
        println!("cargo:rustc-link-lib=OpenCL");
    }
}
