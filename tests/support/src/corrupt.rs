//! Malformed variants of a tiny model. mullama must refuse every one of them
//! before llama.cpp sees it.

use crate::gguf::{File, Tensor, Value};
use crate::{TinyModel, vocab};
use std::io;
use std::path::Path;

/// One way for a file to be malformed.
#[derive(Clone, Copy)]
pub struct Corruption {
    /// The name that the `tiny-model` binary takes.
    pub name: &'static str,
    /// What the reason in the error must mention.
    pub mentions: &'static str,
    make: fn() -> Vec<u8>,
}

impl std::fmt::Debug for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Corruption({})", self.name)
    }
}

impl Corruption {
    /// The corruption of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|corruption| corruption.name == name)
    }

    /// The malformed file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        (self.make)()
    }

    /// Writes the malformed file.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, self.bytes())
    }
}

/// The first bytes of a model.
#[must_use]
pub fn truncated(model: &File, len: usize) -> Vec<u8> {
    let mut bytes = model.to_bytes();
    bytes.truncate(len);
    bytes
}

/// A model in which a special token is beyond the vocabulary: the key is one of
/// `bos_token_id`, `eos_token_id` and so on.
#[must_use]
pub fn bad_token_id(mut model: File, key: &str, id: u32) -> File {
    model.set(&format!("tokenizer.ggml.{key}"), id);
    model
}

fn model() -> File {
    TinyModel::llama().build()
}

fn with(key: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut file = model();
    file.set(key, value);
    file.to_bytes()
}

fn with_tensor(name: &str, change: impl FnOnce(&mut Tensor)) -> Vec<u8> {
    let mut file = model();
    change(file.tensor_mut(name));
    file.to_bytes()
}

fn without(key: &str) -> Vec<u8> {
    let mut file = model();
    file.remove(key);
    file.to_bytes()
}

fn with_version(version: u32) -> Vec<u8> {
    File { version, ..model() }.to_bytes()
}

const fn corruption(name: &'static str, mentions: &'static str, make: fn() -> Vec<u8>) -> Corruption {
    Corruption { name, mentions, make }
}

/// All corruptions.
pub static ALL: &[Corruption] = &[
    // Files of another kind.
    corruption("empty", "empty", Vec::new),
    corruption("html", "HTML", || b"<!DOCTYPE html><html><body>404</body></html>".to_vec()),
    corruption("git-lfs-pointer", "git-lfs", || {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 98362432\n".to_vec()
    }),
    corruption("zip", "zip", || b"PK\x03\x04\x14\0\0\0\x08\0 and so on".to_vec()),
    corruption("safetensors", "safetensors", || b"\x20\0\0\0\0\0\0\0{\"weight\":{\"dtype\":\"F32\"}}     ".to_vec()),
    corruption("legacy-ggml", "legacy", || b"tjgg\x03\0\0\0 and so on, many bytes".to_vec()),
    corruption("bad-magic", "GGUF", || File { magic: *b"GGUX", ..model() }.to_bytes()),
    // The head of the file.
    corruption("version-1", "version 1", || with_version(1)),
    corruption("version-99", "version 99", || with_version(99)),
    corruption("big-endian", "big-endian", || with_version(3u32.swap_bytes())),
    corruption("huge-tensor-count", "tensors", || File { claimed_tensors: Some(u64::MAX / 16), ..model() }.to_bytes()),
    corruption("huge-metadata-count", "metadata", || {
        File { claimed_metadata: Some(u64::MAX / 16), ..model() }.to_bytes()
    }),
    corruption("truncated-metadata", "cut off", || truncated(&model(), 2_000)),
    corruption("truncated-data", "cut off", || {
        let file = model();
        let len = file.to_bytes().len();
        truncated(&file, len - 4_000)
    }),
    // Metadata.
    corruption("huge-string", "general.name", || with("general.name", Value::Raw(8, u64::MAX.to_le_bytes().to_vec()))),
    corruption("huge-array", "general.tags", || {
        let mut claim = 8u32.to_le_bytes().to_vec();
        claim.extend((u64::MAX / 8 + 2).to_le_bytes());
        with("general.tags", Value::Raw(9, claim))
    }),
    corruption("nested-array", "general.tags", || {
        let mut claim = 9u32.to_le_bytes().to_vec();
        claim.extend(1u64.to_le_bytes());
        with("general.tags", Value::Raw(9, claim))
    }),
    corruption("unknown-value-type", "general.odd", || with("general.odd", Value::Raw(77, vec![0; 8]))),
    corruption("duplicate-key", "general.name", || {
        let mut file = model();
        file.metadata.push(("general.name".to_owned(), "again".into()));
        file.to_bytes()
    }),
    corruption("empty-key", "empty", || with("", 1u32)),
    corruption("alignment-not-a-power-of-two", "general.alignment", || with("general.alignment", 48u32)),
    corruption("alignment-zero", "general.alignment", || with("general.alignment", 0u32)),
    corruption("alignment-wrong-type", "general.alignment", || with("general.alignment", "32")),
    corruption("no-architecture", "general.architecture", || without("general.architecture")),
    corruption("key-of-wrong-type", "llama.block_count", || with("llama.block_count", "two")),
    // Sizes of the model.
    corruption("zero-layers", "llama.block_count", || with("llama.block_count", 0u32)),
    corruption("too-many-layers", "llama.block_count", || with("llama.block_count", 100_000u32)),
    corruption("zero-width", "llama.embedding_length", || with("llama.embedding_length", 0u32)),
    corruption("zero-context", "llama.context_length", || with("llama.context_length", 0u32)),
    corruption("zero-heads", "llama.attention.head_count", || with("llama.attention.head_count", 0u32)),
    corruption("uneven-key-value-heads", "llama.attention.head_count_kv", || {
        with("llama.attention.head_count_kv", 3u32)
    }),
    corruption("per-layer-array-too-short", "llama.attention.head_count_kv", || {
        with("llama.attention.head_count_kv", Value::U32s(vec![2]))
    }),
    corruption("odd-rope-dimensions", "llama.rope.dimension_count", || with("llama.rope.dimension_count", 15u32)),
    corruption("too-many-experts", "llama.expert_count", || with("llama.expert_count", 5_000u32)),
    corruption("unused-experts", "llama.expert_used_count", || with("llama.expert_count", 8u32)),
    corruption("rope-scaling-unknown", "llama.rope.scaling.type", || with("llama.rope.scaling.type", "sideways")),
    // The vocabulary.
    corruption("empty-vocabulary", "tokenizer.ggml.tokens", || with("tokenizer.ggml.tokens", Value::Strs(Vec::new()))),
    corruption("tokens-not-strings", "tokenizer.ggml.tokens", || {
        with("tokenizer.ggml.tokens", Value::U32s(vec![0; 512]))
    }),
    corruption("scores-too-short", "tokenizer.ggml.scores", || {
        with("tokenizer.ggml.scores", Value::F32s(vec![0.0; 4]))
    }),
    corruption("scores-of-wrong-type", "tokenizer.ggml.scores", || {
        with("tokenizer.ggml.scores", Value::U8s(vec![0; 512]))
    }),
    corruption("token-types-too-short", "tokenizer.ggml.token_type", || {
        with("tokenizer.ggml.token_type", Value::I32s(vec![1; 4]))
    }),
    corruption("token-type-unknown", "tokenizer.ggml.token_type", || {
        with("tokenizer.ggml.token_type", Value::I32s(vec![77; vocab::DEFAULT_SIZE as usize]))
    }),
    corruption("eos-past-the-vocabulary", "tokenizer.ggml.eos_token_id", || {
        bad_token_id(model(), "eos_token_id", 1_000_000).to_bytes()
    }),
    corruption("eot-past-the-vocabulary", "tokenizer.ggml.eot_token_id", || {
        bad_token_id(model(), "eot_token_id", u32::MAX - 1).to_bytes()
    }),
    corruption("token-id-of-wrong-type", "tokenizer.ggml.bos_token_id", || {
        with("tokenizer.ggml.bos_token_id", Value::U8(1))
    }),
    corruption("embedding-rows-not-the-vocabulary", "token_embd.weight", || {
        let mut file = TinyModel::llama().n_vocab(400).build();
        vocab::describe(&mut file, 500);
        file.to_bytes()
    }),
    corruption("malformed-charsmap", "tokenizer.ggml.precompiled_charsmap", || {
        let mut file = model();
        file.set("tokenizer.ggml.model", "t5");
        // One trie node that jumps far beyond the four bytes there are.
        file.set("tokenizer.ggml.precompiled_charsmap", Value::U8s(vec![4, 0, 0, 0, 0, 0xfc, 0xff, 0x7f, b'a', 0]));
        file.to_bytes()
    }),
    // Tensors.
    corruption("no-tensors", "tensors", || {
        let mut file = model();
        file.tensors.clear();
        file.to_bytes()
    }),
    corruption("no-embedding", "token_embd.weight", || {
        let mut file = model();
        file.tensors.retain(|tensor| tensor.name != "token_embd.weight");
        file.to_bytes()
    }),
    corruption("duplicate-tensor", "output.weight", || {
        let mut file = model();
        let again = file.tensor_mut("output.weight").clone();
        file.tensors.push(again);
        file.to_bytes()
    }),
    corruption("long-tensor-name", "64", || with_tensor("output_norm.weight", |tensor| tensor.name = "n".repeat(64))),
    corruption("five-dimensions", "output_norm.weight", || {
        with_tensor("output_norm.weight", |tensor| tensor.dims = vec![64, 1, 1, 1, 1])
    }),
    corruption("zero-dimension", "output_norm.weight", || {
        with_tensor("output_norm.weight", |tensor| tensor.dims = vec![0])
    }),
    corruption("negative-dimension", "output_norm.weight", || {
        with_tensor("output_norm.weight", |tensor| tensor.dims = vec![-64i64 as u64])
    }),
    corruption("overflowing-dimensions", "output.weight", || {
        with_tensor("output.weight", |tensor| tensor.dims = vec![1 << 33, 1 << 33])
    }),
    corruption("overflowing-byte-size", "output.weight", || {
        with_tensor("output.weight", |tensor| tensor.dims = vec![1 << 30, (1 << 32) + 1])
    }),
    corruption("unknown-tensor-type", "output.weight", || with_tensor("output.weight", |tensor| tensor.kind = 1_000)),
    corruption("removed-tensor-type", "output.weight", || with_tensor("output.weight", |tensor| tensor.kind = 4)),
    corruption("partial-block", "blk.0.attn_q.weight", || {
        with_tensor("blk.0.attn_q.weight", |tensor| tensor.kind = 12)
    }),
    corruption("misaligned-offset", "offset", || {
        with_tensor("output_norm.weight", |tensor| tensor.claimed_offset = Some(13))
    }),
    corruption("overlapping-tensors", "offset", || {
        with_tensor("blk.0.attn_q.weight", |tensor| tensor.claimed_offset = Some(0))
    }),
    corruption("offset-past-the-end", "offset", || {
        with_tensor("blk.0.attn_q.weight", |tensor| tensor.claimed_offset = Some(1 << 40))
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_every_corruption_changes_the_file() {
        let good = model().to_bytes();
        let mut seen = std::collections::HashSet::new();
        for corruption in ALL {
            assert!(seen.insert(corruption.name), "{corruption:?}");
            assert_ne!(corruption.bytes(), good, "{corruption:?}");
        }
    }
}
