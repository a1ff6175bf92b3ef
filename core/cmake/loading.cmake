# A load does less, and some of it on a second thread.
#
# Most of the time that a load of a small model takes goes to its vocabulary. As it
# comes, llama.cpp reads the merges, then the tokens, and then makes the text of each
# token, asking a hash table for the byte of each character; looks in all tokens three
# times for some dozen texts, with a call for each comparison; writes each array of the
# file out as one text to show 40 bytes of it; copies each array of strings; and locks
# the file for each number and text that it reads.
#
# Here merges are read while tokens are, and one half of the texts is made while the
# other is, from a table of bytes. Comparisons look at the length first. Of an array no
# more is written out than is shown, strings are not copied, and the file, which one
# thread has, is not locked. What comes out is the same.
#
# `loading.h` has the functions.

set(MULLAMA_LOADING "${CMAKE_CURRENT_LIST_DIR}/loading.h")

function(mullama_change_vocabulary)
    set(file "llama-vocab.cpp")
    set(original "${CMAKE_SOURCE_DIR}/src/${file}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${MULLAMA_LOADING}")
    file(READ "${MULLAMA_LOADING}" functions)
    file(READ "${original}" text)
    set(what "llama.cpp's vocabulary")
    mullama_replace_once(text "${what}"
        "void llama_vocab::impl::load(llama_model_loader & ml, const LLM_KV & kv) {\n"
        "void llama_vocab::impl::load(llama_model_loader & ml, const LLM_KV & kv) {
    std::future<void> mullama_merges;
")
    # There are two such loops; a comment tells them apart.
    foreach (comment "                    //GGML_ASSERT(unicode_cpts_from_utf8(word).size() > 0);\n" "")
        mullama_replace_once(text "${what}"
            "                for (int i = 0; i < n_merges; i++) {
                    const std::string word = gguf_get_arr_str(ctx, merges_keyidx, i);
${comment}
                    std::string first;
                    std::string second;

                    const size_t pos = word.find(' ', 1);

                    if (pos != std::string::npos) {
                        first  = word.substr(0, pos);
                        second = word.substr(pos + 1);
                    }

                    bpe_ranks.emplace(std::make_pair(first, second), i);
                }
"
            "                mullama_merges = mullama::beside([=] {
                    const auto merge = [=](int i) { return gguf_get_arr_str(ctx, merges_keyidx, i); };
                    mullama::rank_merges(bpe_ranks, n_merges, merge);
                });
")
    endforeach()
    # The first that needs the merges.
    mullama_replace_once(text "${what}"
        "    init_tokenizer(type);\n\n    // determine the newline token"
        "    if (mullama_merges.valid()) {
        mullama_merges.get();
    }
    init_tokenizer(type);\n\n    // determine the newline token")
    mullama_replace_once(text "${what}"
        "        for (uint32_t id = 0; id < n_tokens; ++id) {
            cache[id] = token_to_piece_for_cache(id, true);

            size_cache += cache[id].size();
        }
"
        "        mullama::in_halves(n_tokens, [&](size_t id) { cache[id] = token_to_piece_for_cache(id, true); });
        for (const std::string & piece : cache) {
            size_cache += piece.size();
        }
")
    mullama_replace_once(text "${what}"
        "    for (const auto cpt : cpts) {
        const auto utf8 = unicode_cpt_to_utf8(cpt);
        try {
            decoded_text += unicode_utf8_to_byte(utf8);"
        "    static const mullama::BytesOfText bytes(unicode_byte_to_utf8, unicode_cpt_from_utf8);
    for (const auto cpt : cpts) {
        if (const int byte = bytes.of(cpt); byte >= 0) {
            decoded_text += (char) byte;
            continue;
        }
        const auto utf8 = unicode_cpt_to_utf8(cpt);
        try {
            decoded_text += unicode_utf8_to_byte(utf8);")
    string(REPLACE "t.first == \"" "std::string_view(t.first) == \"" changed "${text}")
    if (changed STREQUAL text)
        message(FATAL_ERROR "mullama: ${what} is not the one that core/cmake changes. It compares no texts.")
    endif()
    mullama_compile_copy("src" "${file}" "${functions}\n#line 1 \"${original}\"\n${changed}")
endfunction()

function(mullama_change_metadata)
    set(file "llama-impl.cpp")
    set(original "${CMAKE_SOURCE_DIR}/src/${file}")
    file(READ "${original}" text)
    mullama_replace_once(text "how llama.cpp shows an array"
        "j < arr_n; j++) {\n                    if (arr_type == GGUF_TYPE_STRING)"
        "j < arr_n && ss.tellp() <= 40; j++) {\n                    if (arr_type == GGUF_TYPE_STRING)")
    mullama_compile_copy("src" "${file}" "#line 1 \"${original}\"\n${text}")

    set(file "gguf.cpp")
    set(original "${CMAKE_SOURCE_DIR}/ggml/src/${file}")
    file(READ "${original}" text)
    set(what "ggml's array of strings")
    mullama_replace_once(text "${what}"
        "    gguf_kv(const std::string & key, const std::vector<std::string> & value)"
        "    gguf_kv(const std::string & key, std::vector<std::string> value)")
    mullama_replace_once(text "${what}"
        "const size_t nread = fread(static_cast<uint8_t *>(output), 1, len, reader.file);"
        "#if defined(__linux__)
    const size_t nread = fread_unlocked(static_cast<uint8_t *>(output), 1, len, reader.file);
#else
    const size_t nread = fread(static_cast<uint8_t *>(output), 1, len, reader.file);
#endif")
    mullama_replace_once(text "${what}" "data_string = value;" "data_string = std::move(value);")
    mullama_replace_once(text "${what}"
        "        kv.emplace_back(key, value);\n    } else {"
        "        kv.emplace_back(key, std::move(value));\n    } else {")
    mullama_compile_copy("ggml/src" "${file}" "#line 1 \"${original}\"\n${text}")
endfunction()

# When those folders' targets are there.
cmake_language(DEFER CALL mullama_change_vocabulary)
cmake_language(DEFER CALL mullama_change_metadata)
