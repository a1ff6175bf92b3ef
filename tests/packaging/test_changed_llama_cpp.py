"""What mullama changes in ggml and llama.cpp is compiled, and another text than the expected one ends
the build. What the changed code computes is in test_kernels.py."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from machine import ROOT

CMAKE = ROOT / "core/cmake"
CALLS = (
    "mullama::last_masked(mp, ic, ic_end)",
    "!mullama::see_different(dst->src[3], neq1, nek1)",
    "const mullama::Attention attention(params, dst)",
)
# What those of llama.cpp's files have that differ, by their paths.
TEXTS = {
    "ggml/src/ggml-cpu/ops.cpp": """
static void ggml_compute_forward_flash_attn_ext_f16(
    if (use_split_kv_path) {
            if (mv == -INFINITY) {
                continue;
            }
        bool use_tiled = (q->type == GGML_TYPE_F32 &&
                          neq1 >= Q_TILE_SZ);
""",
    "ggml/src/ggml-cpu/llamafile/sgemm.cpp": """
#include "sgemm.h"
bool llamafile_sgemm() {
    // only enable sgemm for prompt processing
    return false;
}
""",
    "ggml/src/ggml-cpu/ggml-cpu.cpp": """
    if (strcmp(name, "ggml_threadpool_new") == 0) {
""",
    "ggml/src/ggml-backend.cpp": """
// backend buffer
void ggml_backend_buffer_set_usage(ggml_backend_buffer_t buffer, enum ggml_backend_buffer_usage usage) {
    buffer->usage = usage;

    // FIXME: add a generic callback to the buffer interface
}
static void ggml_backend_cpu_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(buffer->context, value, buffer->size);
}
static ggml_backend_buffer_t ggml_backend_cpu_buffer_type_alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    void * data = ggml_aligned_malloc(size);
}
static size_t ggml_backend_cpu_buffer_type_get_alignment(ggml_backend_buffer_type_t buft) {
    return TENSOR_ALIGNMENT;
}
""",
    "ggml/src/gguf.cpp": """
    gguf_kv(const std::string & key, const std::vector<std::string> & value)
        data_string = value;
        kv.emplace_back(key, value);
    } else {
    const size_t nread = fread(static_cast<uint8_t *>(output), 1, len, reader.file);
""",
    "src/llama-impl.cpp": """
                for (int j = 0; j < arr_n; j++) {
                    if (arr_type == GGUF_TYPE_STRING) {
""",
    "src/llama-vocab.cpp": """
void llama_vocab::impl::load(llama_model_loader & ml, const LLM_KV & kv) {
LOOP                    //GGML_ASSERT(unicode_cpts_from_utf8(word).size() > 0);
RESTLOOPREST
    init_tokenizer(type);

    // determine the newline token
            if (t.first == "<|eot_id|>" || t.first == "<EOT>") {
        for (uint32_t id = 0; id < n_tokens; ++id) {
            cache[id] = token_to_piece_for_cache(id, true);

            size_cache += cache[id].size();
        }
    for (const auto cpt : cpts) {
        const auto utf8 = unicode_cpt_to_utf8(cpt);
        try {
            decoded_text += unicode_utf8_to_byte(utf8);
""".replace(
        "LOOP",
        """                for (int i = 0; i < n_merges; i++) {
                    const std::string word = gguf_get_arr_str(ctx, merges_keyidx, i);
""",
    ).replace(
        "REST",
        """
                    std::string first;
                    std::string second;

                    const size_t pos = word.find(' ', 1);

                    if (pos != std::string::npos) {
                        first  = word.substr(0, pos);
                        second = word.substr(pos + 1);
                    }

                    bpe_ranks.emplace(std::make_pair(first, second), i);
                }
""",
    ),
}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / "scripts/with_tools.py", "cmake", *arguments)


def configured(folder: Path, **others: str) -> subprocess.CompletedProcess[str]:
    """A build of these texts, or of others where files of these names have others."""
    sources = {}
    for path, text in TEXTS.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(others.pop(file.stem.replace("-", "_"), text))
        target = "ggml-cpu-x" if "ggml-cpu" in path else "ggml-base" if path.startswith("ggml") else "llama"
        sources.setdefault(target, []).append(path)
    assert not others
    for target, paths in sources.items():
        top = "ggml/src" if target.startswith("ggml") else "src"
        names = " ".join(path.removeprefix(f"{top}/") for path in paths)
        with (folder / top / "CMakeLists.txt").open("a") as lists:
            lists.write(f"add_library({target} STATIC {names})\n")
    # llama.cpp joins files of that one into a few.
    with (folder / "src/CMakeLists.txt").open("a") as lists:
        lists.write("set_target_properties(llama PROPERTIES UNITY_BUILD ON)\n")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.19)\nproject(llama.cpp CXX)\n"
        "add_subdirectory(ggml/src)\nadd_subdirectory(src)\n"
    )
    return cmake("-S", folder, "-B", folder / "build", f"-DCMAKE_PROJECT_INCLUDE={CMAKE / 'llama_cpp.cmake'}")


def test_copies_with_the_changes_are_compiled_instead(tmp_path: Path) -> None:
    done = configured(tmp_path)
    assert done.returncode == 0, done.stderr
    copies = {path.name: path.read_text() for path in (tmp_path / "build/mullama").iterdir()}
    assert set(copies) == {Path(path).name for path in TEXTS}
    assert [copies["ops.cpp"].count(call) for call in CALLS] == [1] * len(CALLS)
    assert "return multiply(mullama::Q4_1{});" in copies["sgemm.cpp"]
    assert "    return 64;" in copies["ggml-backend.cpp"]
    assert "MADV_HUGEPAGE" in copies["ggml-backend.cpp"]
    assert "return (void *)mullama_promise_cleared_memory;" in copies["ggml-cpu.cpp"]
    vocabulary = copies["llama-vocab.cpp"]
    assert vocabulary.count("mullama::rank_merges(bpe_ranks, n_merges, merge);") == 2
    assert vocabulary.count("mullama_merges.get();") == 1
    assert vocabulary.count('std::string_view(t.first) == "') == 2
    assert "ss.tellp() <= 40" in copies["llama-impl.cpp"]
    assert copies["gguf.cpp"].count("std::move(value)") == 2
    built = cmake("--build", tmp_path / "build", "--verbose", "--", "-k", "0").stdout
    for name in copies:
        assert f"mullama/{name}" in built, name


def changed(path: str, change: Callable[[str], str]) -> dict[str, str]:
    return {Path(path).stem.replace("-", "_"): change(TEXTS[path])}


@pytest.mark.parametrize(
    ("path", "place", "says"),
    [
        ("ggml/src/ggml-cpu/ops.cpp", "continue", "ggml's attention is not the one"),
        ("ggml/src/ggml-backend.cpp", "TENSOR_ALIGNMENT", "ggml's buffer on the CPU is not the one"),
        ("ggml/src/ggml-backend.cpp", "memset", "ggml's buffer on the CPU is not the one"),
        ("ggml/src/ggml-backend.cpp", "// backend buffer\n", "ggml's buffer on the CPU is not the one"),
        ("ggml/src/ggml-backend.cpp", "aligned_malloc", "ggml's buffer on the CPU is not the one"),
        ("ggml/src/ggml-backend.cpp", "->usage = usage", "ggml's buffer of weights is not the one"),
        ("ggml/src/ggml-cpu/ggml-cpu.cpp", "threadpool", "the list of ggml's functions is not the one"),
        ("ggml/src/ggml-cpu/llamafile/sgemm.cpp", "only enable sgemm", "the list of ggml's matrix kernels is not the"),
        ("ggml/src/ggml-cpu/llamafile/sgemm.cpp", '"sgemm.h"', "the list of ggml's matrix kernels is not the one"),
        ("ggml/src/gguf.cpp", "fread", "ggml's array of strings is not the one"),
        ("ggml/src/gguf.cpp", "data_string", "ggml's array of strings is not the one"),
        ("src/llama-impl.cpp", "arr_n", "how llama.cpp shows an array is not the one"),
        ("src/llama-vocab.cpp", "//GGML_ASSERT", "llama.cpp's vocabulary is not the one"),
        ("src/llama-vocab.cpp", "bpe_ranks", "llama.cpp's vocabulary is not the one"),
        ("src/llama-vocab.cpp", "init_tokenizer", "llama.cpp's vocabulary is not the one"),
        ("src/llama-vocab.cpp", "for_cache", "llama.cpp's vocabulary is not the one"),
        ("src/llama-vocab.cpp", "t.first", "llama.cpp's vocabulary is not the one"),
    ],
)
def test_the_build_ends_where_llama_cpp_has_another_text(tmp_path: Path, path: str, place: str, says: str) -> None:
    assert place in TEXTS[path]
    done = configured(tmp_path, **changed(path, lambda text: text.replace(place, "other")))
    assert done.returncode != 0
    assert says in done.stderr.replace("\n  ", " ")


def test_the_build_ends_where_llama_cpp_has_a_text_twice(tmp_path: Path) -> None:
    done = configured(tmp_path, **changed("ggml/src/ggml-cpu/ops.cpp", lambda text: text * 2))
    assert done.returncode != 0
    assert "ggml's attention is not the one" in done.stderr
