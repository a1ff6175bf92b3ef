//! Compiles the C++ guard shim against the headers of the llama.cpp that
//! `llama-cpp-sys-2` built, links OpenCL, which that crate leaves to its user,
//! and with the feature `dynamic-backends` says where the modules are.

use std::{
    env,
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

/// A Cargo user's program is told where the modules were built, for it may run
/// here. What is built in the checkout of mullama runs elsewhere: it must not
/// name a folder of this machine, and has the modules beside it.
fn provide_modules() {
    println!("cargo:rerun-if-env-changed=LLAMA_BUILD_SHARED_LIBS");
    println!("cargo:rerun-if-env-changed=MULLAMA_BACKENDS_BESIDE");
    assert!(
        env::var("LLAMA_BUILD_SHARED_LIBS").is_ok_and(|value| value == "0"),
        "the feature `dynamic-backends` needs two variables for the build of llama.cpp, which a dependency can't set; \
         put them into your `.cargo/config.toml`:\n\n[env]\nLLAMA_BUILD_SHARED_LIBS = \"0\"\nCMAKE_PROJECT_INCLUDE = \
         '{}'\n",
        Path::new(env!("CARGO_MANIFEST_DIR")).join("cmake/llama_cpp.cmake").display()
    );
    let built = env::var("DEP_LLAMA_BACKENDS_DIR").expect("llama-cpp-sys-2 reports where it installed the modules");
    // For the build script of whatever depends on this crate.
    println!("cargo:backends_dir={built}");
    if env::var_os("MULLAMA_BACKENDS_BESIDE").is_none() {
        println!("cargo:rustc-env=MULLAMA_BUILT_BACKENDS={built}");
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
