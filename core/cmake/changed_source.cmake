# Compiles copies of llama.cpp's files in which some places differ. Where the
# pinned llama.cpp has other text there, the build ends.

function(mullama_replace_once variable what from to)
    string(FIND "${${variable}}" "${from}" first)
    string(FIND "${${variable}}" "${from}" last REVERSE)
    if (first EQUAL -1 OR NOT first EQUAL last)
        message(FATAL_ERROR "mullama: ${what} is not the one that core/cmake changes. It lacks, "
            "or has more than once:\n${from}")
    endif()
    string(REPLACE "${from}" "${to}" changed "${${variable}}")
    set(${variable} "${changed}" PARENT_SCOPE)
endfunction()

# `text` instead of `ggml/src/${file}`, in all targets of that folder: of
# ggml-cpu there is one, or one for each variant.
function(mullama_compile_copy file text)
    set(folder "${CMAKE_SOURCE_DIR}/ggml/src")
    get_filename_component(name "${file}" NAME)
    set(copy "${CMAKE_BINARY_DIR}/mullama/${name}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${folder}/${file}")
    file(WRITE "${copy}.new" "${text}")
    # A copy that is the same is not compiled again.
    configure_file("${copy}.new" "${copy}" COPYONLY)
    file(REMOVE "${copy}.new")

    string(REPLACE "." "\\." pattern "${file}")
    get_property(targets DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach (target IN LISTS targets)
        get_target_property(sources ${target} SOURCES)
        list(TRANSFORM sources REPLACE "^(.*/)?${pattern}$" "${copy}" OUTPUT_VARIABLE changed)
        if (NOT "${changed}" STREQUAL "${sources}")
            set_property(TARGET ${target} PROPERTY SOURCES "${changed}")
        endif()
    endforeach()
endfunction()
