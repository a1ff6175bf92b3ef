//! Compiles the C++ guard shim against the headers of the llama.cpp that
//! `llama-cpp-sys-2` built, and links OpenCL, which that crate leaves to its
//! user.

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
    let opencl = env::var_os("CARGO_FEATURE_OPENCL").is_some();
    if opencl {
        shim.define("MULLAMA_OPENCL", None);
    }
    shim.compile("mullama_shim");
    if opencl {
        link_opencl();
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
