# What mullama changes in llama.cpp's own build, which includes this file by
# CMAKE_PROJECT_INCLUDE: `.cargo/config.toml` sets that, and `bench/tools.py` for
# llama.cpp's tools. Each file is for one change and says why. Cargo sees no
# change here: `scripts/cmake_state.py` has it build again after one. By hand,
# remove the build folder of llama-cpp-sys-2.

if (NOT PROJECT_NAME STREQUAL "llama.cpp")
    return()
endif()

include("${CMAKE_CURRENT_LIST_DIR}/changed_source.cmake")

include("${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/attention.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/buffers.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/loading.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/matrix_kernels.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/self_contained_backends.cmake")
