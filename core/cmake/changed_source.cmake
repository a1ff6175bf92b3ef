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

# `text` instead of `${in}/${file}`, in all targets of that folder: of ggml-cpu
# there is one, or one for each variant. llama.cpp joins some files of a folder
# into one, but none of these.
function(mullama_compile_copy in file text)
    set(folder "${CMAKE_SOURCE_DIR}/${in}")
    get_filename_component(name "${file}" NAME)
    set(copy "${CMAKE_BINARY_DIR}/mullama/${name}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${folder}/${file}")
    file(WRITE "${copy}.new" "${text}")
    # A copy that is the same is not compiled again.
    configure_file("${copy}.new" "${copy}" COPYONLY)
    file(REMOVE "${copy}.new")
    set_source_files_properties("${copy}" DIRECTORY "${folder}" PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)

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
