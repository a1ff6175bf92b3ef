# GCC 12's `_tile_loadconfig` tells the compiler that it reads 8 bytes of the 64
# of its argument. Stores to the others are dropped as dead ones, no tile is
# configured, and the first instruction with one ends the process.

function(mullama_keep_tile_config)
    set(folder "${CMAKE_SOURCE_DIR}/ggml/src")
    set_property(SOURCE "${folder}/ggml-cpu/amx/mmq.cpp" DIRECTORY "${folder}"
        APPEND PROPERTY COMPILE_OPTIONS -fno-tree-dse -fno-dse)
endfunction()

if (CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # When that folder's targets are there.
    cmake_language(DEFER CALL mullama_keep_tile_config)
endif()
