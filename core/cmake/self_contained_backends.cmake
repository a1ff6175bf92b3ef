# For backends that are modules.
#
# As it comes, that build makes shared libraries of llama.cpp and of ggml's
# base, which the modules need too. Where a process has another llama.cpp, of
# another package, the dynamic linker takes the other's libraries of the same
# names for ours, and the process crashes. So here llama.cpp and ggml are static
# libraries, as in a build without modules; each module has inside what it needs
# of ggml's base; and only the functions that are asked of a module can be seen
# from outside. What ggml-cpu uses of the base are pure functions, but for the
# log's callback, which `core/src/llama/modules.rs` sets in each module, and what
# `buffers.cmake` promises, prepares and offers, which is the module's that clears.

if (NOT GGML_BACKEND_DL)
    return()
endif()

# llama.cpp tells this backend from the CPU by the address of an object in
# ggml's base, of which there would be two.
if (GGML_BLAS)
    message(FATAL_ERROR "mullama: the features 'dynamic-backends' and 'mkl' can't be used together")
endif()
# On by default on macOS.
set(GGML_BLAS OFF)

# ggml refuses modules without shared libraries. It looks here before it makes
# its first library, and for nothing else that is wanted.
set(BUILD_SHARED_LIBS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

function(add_library name)
    if (ARGV1 MATCHES "^(STATIC|SHARED|MODULE|OBJECT|INTERFACE|UNKNOWN|ALIAS|IMPORTED)$")
        _add_library(${ARGV})
    else()
        _add_library(${name} STATIC ${ARGN})
        set(BUILD_SHARED_LIBS OFF PARENT_SCOPE)
    endif()
endfunction()

if (WIN32)
    # Their own names are exported by these, as in a shared build.
    add_compile_definitions(GGML_BACKEND_BUILD GGML_BACKEND_SHARED)
    if (MSVC)
        string(APPEND CMAKE_MODULE_LINKER_FLAGS " /EXPORT:ggml_log_set")
    endif()
elseif (APPLE)
    # Patterns, for not every module has a score.
    file(WRITE "${CMAKE_BINARY_DIR}/backend.exports" "_ggml_backend_init*\n_ggml_backend_score*\n_ggml_log_set*\n")
    string(APPEND CMAKE_MODULE_LINKER_FLAGS
        " -Wl,-exported_symbols_list,${CMAKE_BINARY_DIR}/backend.exports -Wl,-u,_ggml_log_set -Wl,-dead_strip -Wl,-x")
else()
    file(WRITE "${CMAKE_BINARY_DIR}/backend.map"
        "{ global: ggml_backend_init; ggml_backend_score; ggml_log_set; local: *; };\n")
    string(APPEND CMAKE_MODULE_LINKER_FLAGS
        " -Wl,--version-script=${CMAKE_BINARY_DIR}/backend.map -Wl,--undefined=ggml_log_set"
        " -Wl,--gc-sections -Wl,--strip-all")
endif()

# Below the install prefix, as the build script asks; but its absolute path
# would be compiled in, and name a folder of the machine that builds.
set(GGML_BACKEND_DIR "backends")

# The names of files without a version: packages hold no links.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
