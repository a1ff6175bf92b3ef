//! Compiles the C++ guard shim against the headers of the llama.cpp that
//! `llama-cpp-sys-2` built, and nothing else.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/llama/shim.cpp");
    println!("cargo:rerun-if-changed=src/llama/shim.h");
    // <prefix>/lib/cmake is what the sys crate reports; its headers are in <prefix>/include.
    let cmake_dir = PathBuf::from(
        env::var_os("DEP_LLAMA_GGML_CMAKE_DIR").expect("llama-cpp-sys-2 reports where it installed llama.cpp"),
    );
    let prefix = cmake_dir.ancestors().nth(2).expect("the CMake directory lies two levels below the prefix");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("src/llama/shim.cpp")
        .include(prefix.join("include"))
        .warnings(true)
        .compile("mullama_shim");
}
