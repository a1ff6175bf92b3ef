//! What can be shown without llama.cpp. Whole models, damaged in all ways, are
//! loaded in `tests/rust/tests/malformed_models.rs`.

use super::{Header, validate};
use crate::MullamaError;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A folder that goes when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mullama-gguf-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The parts of a small model of the architecture `llama`.
#[derive(Clone)]
struct Parts {
    entries: Vec<(String, Vec<u8>)>,
    /// Names and shapes; all are of the type F32.
    tensors: Vec<(String, Vec<u64>)>,
    alignment: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn typed(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), value].concat()
}

fn number(number: u32) -> Vec<u8> {
    typed(4, &number.to_le_bytes())
}

fn short(number: u16) -> Vec<u8> {
    typed(2, &number.to_le_bytes())
}

fn array(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    let head = [kind.to_le_bytes().to_vec(), (items.len() as u64).to_le_bytes().to_vec()].concat();
    typed(9, &[head, items.concat()].concat())
}

fn tokens(texts: &[&str]) -> Vec<u8> {
    array(8, &texts.iter().map(|token| text(token)).collect::<Vec<_>>())
}

impl Parts {
    fn new() -> Self {
        let mut parts = Self { entries: Vec::new(), tensors: Vec::new(), alignment: 32 };
        parts.set("general.architecture", typed(8, &text("llama")));
        parts.set("general.name", typed(8, &text("Small")));
        for (key, value) in [
            ("context_length", 128),
            ("embedding_length", 32),
            ("block_count", 2),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ] {
            parts.set(&format!("llama.{key}"), number(value));
        }
        parts.set("tokenizer.ggml.model", typed(8, &text("llama")));
        parts.set("tokenizer.ggml.tokens", tokens(&["<unk>", "<s>", "</s>", "a"]));
        parts.tensors.push(("token_embd.weight".to_owned(), vec![32, 4]));
        parts.tensors.push(("output_norm.weight".to_owned(), vec![32]));
        parts
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> &mut Self {
        self.entries.retain(|(existing, _)| existing != key);
        self.entries.push((key.to_owned(), value));
        self
    }

    fn remove(&mut self, key: &str) -> &mut Self {
        self.entries.retain(|(existing, _)| existing != key);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        let size = |dims: &[u64]| dims.iter().product::<u64>() * 4;
        let mut offset = 0u64;
        for (name, dims) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(0u32.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += size(dims).next_multiple_of(self.alignment as u64);
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment) + offset as usize, 0);
        bytes
    }
}

fn check_bytes(bytes: &[u8]) -> Result<Header, MullamaError> {
    let dir = Dir::new();
    validate(&dir.write("model.gguf", bytes))
}

fn check(change: impl FnOnce(&mut Parts)) -> Result<Header, MullamaError> {
    let mut parts = Parts::new();
    change(&mut parts);
    check_bytes(&parts.bytes())
}

fn reason(result: Result<Header, MullamaError>) -> String {
    match result {
        Err(MullamaError::InvalidModel { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn refused(expected: &str, change: impl FnOnce(&mut Parts)) {
    let reason = reason(check(change));
    assert!(reason.contains(expected), "{reason}");
}

#[test]
fn header_describes_the_model() {
    let header = check(|_| {}).unwrap();
    assert_eq!(header.architecture, "llama");
    assert_eq!(header.name.as_deref(), Some("Small"));
    assert_eq!((header.n_vocab, header.n_layer, header.n_embd, header.n_ctx_train), (4, 2, 32, 128));
    assert_eq!((header.n_head.as_slice(), header.n_head_kv.as_slice()), ([4, 4].as_slice(), [2, 2].as_slice()));
    assert_eq!((header.n_embd_head_k, header.n_embd_head_v), (8, 8));
    assert_eq!((header.n_tensors, header.n_params, header.tensor_bytes), (2, 160, 640));
    assert_eq!(header.quantization, "F32");
    assert!(header.causal_attention && !header.recurrent);
}

#[test]
fn kv_bytes_count_the_heads_of_every_layer() {
    let header = check(|_| {}).unwrap();
    // 2 layers of 2 heads, each with 8 elements of K and V.
    assert_eq!(header.kv_bytes_per_token(2.0, 2.0), 2 * 2 * 8 * 4);
    assert_eq!(header.kv_bytes_per_token(34.0 / 32.0, 2.0), 98);
    assert_eq!(header.kv_bytes(100, 2.0, 2.0), 100 * header.kv_bytes_per_token(2.0, 2.0));
}

#[test]
fn kv_bytes_count_layers_with_a_window_in_full() {
    let header = check(|parts| {
        parts.set("general.architecture", typed(8, &text("gemma3")));
        for (key, value) in parts.entries.clone() {
            if let Some(rest) = key.strip_prefix("llama.") {
                parts.set(&format!("gemma3.{rest}"), value);
            }
        }
        parts.set("gemma3.attention.sliding_window", number(10));
        parts.set("gemma3.attention.sliding_window_pattern", number(2));
    })
    .unwrap();
    assert_eq!(header.windowed_layers, [true, false]);
    assert_eq!(header.kv_bytes(1_000, 2.0, 2.0), 1_000 * 2 * 2 * 8 * 4);
}

#[test]
fn every_cut_of_a_model_is_refused() {
    let dir = Dir::new();
    let bytes = Parts::new().bytes();
    for len in 0..bytes.len() {
        reason(validate(&dir.write("model.gguf", &bytes[..len])));
    }
}

#[test]
fn every_changed_byte_of_a_head_is_survived() {
    let dir = Dir::new();
    let bytes = Parts::new().bytes();
    let head = bytes.len() - 640;
    for at in 0..head {
        for value in [0, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            match validate(&dir.write("model.gguf", &changed)) {
                Ok(_) | Err(MullamaError::InvalidModel { .. }) => {}
                Err(error) => panic!("byte {at} changed to {value}: {error:?}"),
            }
        }
    }
}

#[test]
fn a_missing_file_is_not_an_invalid_one() {
    let dir = Dir::new();
    assert!(matches!(validate(&dir.0.join("none.gguf")), Err(MullamaError::ModelNotFound { .. })));
    let file = dir.write("file", b"");
    assert!(matches!(validate(&file.join("none.gguf")), Err(MullamaError::ModelNotFound { .. })));
    assert!(reason(validate(&dir.0)).contains("directory"));
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_even_opened() {
    assert!(reason(validate(Path::new("/dev/null"))).contains("regular file"));
}

#[test]
fn two_tokens_of_the_same_text_are_refused() {
    refused("twice", |parts| {
        parts.set("tokenizer.ggml.tokens", tokens(&["<unk>", "<s>", "</s>", "<s>"]));
    });
    // llama.cpp reads a token up to a zero byte.
    refused("twice", |parts| {
        parts.set("tokenizer.ggml.tokens", tokens(&["<unk>", "<s>", "a\0b", "a\0c"]));
    });
    refused("[EMPTY_3]", |parts| {
        parts.set("tokenizer.ggml.tokens", tokens(&["[EMPTY_3]", "<s>", "</s>", ""]));
    });
}

#[test]
fn a_tokenizer_that_adds_a_token_must_have_it() {
    refused("tokenizer.ggml.bos_token_id", |parts| {
        parts.set("tokenizer.ggml.model", typed(8, &text("t5")));
        parts.set("tokenizer.ggml.add_bos_token", typed(7, &[1]));
    });
    refused("tokenizer.ggml.bos_token_id", |parts| {
        parts.set("tokenizer.ggml.model", typed(8, &text("bert")));
    });
    check(|parts| {
        parts.set("tokenizer.ggml.model", typed(8, &text("t5")));
        parts.set("tokenizer.ggml.add_bos_token", typed(7, &[1]));
        parts.set("tokenizer.ggml.bos_token_id", number(1));
    })
    .unwrap();
}

#[test]
fn padding_out_of_range_is_common_and_harmless() {
    check(|parts| {
        parts.set("tokenizer.ggml.padding_token_id", number(u32::MAX));
        parts.set("tokenizer.ggml.mask_token_id", number(77));
    })
    .unwrap();
}

#[test]
fn an_rwkv_vocabulary_needs_the_bytes_that_its_tokens_begin_with() {
    let with = |list: &[&str]| {
        let list = tokens(list);
        check(|parts| {
            parts.set("tokenizer.ggml.model", typed(8, &text("rwkv")));
            parts.set("tokenizer.ggml.tokens", list);
        })
    };
    with(&["a", "ab", "\\n", "\\n\\n"]).unwrap();
    assert!(reason(with(&["a", "ab", "x", "\\n\\n"])).contains("0x0a"));
}

#[test]
fn data_that_ggml_could_not_map_is_refused() {
    // 8 would do for the format, but ggml wants buffers aligned to 32.
    let mut parts = Parts::new();
    parts.alignment = 8;
    parts.set("general.alignment", number(8));
    let (mut n_good, mut n_bad) = (0, 0);
    for padding in 0..32 {
        parts.set("general.author", typed(8, &text(&"x".repeat(padding))));
        match check_bytes(&parts.bytes()) {
            Ok(_) => n_good += 1,
            refusal => {
                assert!(reason(refusal).contains("not aligned"));
                n_bad += 1;
            }
        }
    }
    assert_eq!((n_good, n_bad), (8, 24));
}

#[test]
fn what_is_no_model_for_text_is_told_by_name() {
    refused("LoRA", |parts| {
        parts.set("general.type", typed(8, &text("adapter")));
    });
    refused("image encoder", |parts| {
        parts.set("general.architecture", typed(8, &text("clip")));
    });
    refused("no tensors", |parts| parts.tensors.clear());
    refused("general.architecture", |parts| {
        parts.remove("general.architecture");
    });
}

/// A model of the parts in two files, and what is in the second.
fn split(dir: &Dir, second: impl FnOnce(&mut Parts)) -> PathBuf {
    let mut first = Parts::new();
    let mut rest = Parts { entries: Vec::new(), tensors: vec![first.tensors.pop().unwrap()], alignment: 32 };
    for (number, parts) in [(0, &mut first), (1, &mut rest)] {
        parts.set("split.no", short(number));
        parts.set("split.count", short(2));
        parts.set("split.tensors.count", typed(5, &2u32.to_le_bytes()));
    }
    second(&mut rest);
    dir.write("m-00002-of-00002.gguf", &rest.bytes());
    dir.write("m-00001-of-00002.gguf", &first.bytes())
}

#[test]
fn a_model_in_two_files_is_one_model() {
    let dir = Dir::new();
    let path = split(&dir, |_| {});
    let header = validate(&path).unwrap();
    assert_eq!((header.n_tensors, header.tensor_bytes), (2, 640));
    let sizes = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert_eq!(header.file_size, sizes.sum::<u64>());
}

#[test]
fn a_model_in_two_files_needs_both_and_in_order() {
    let dir = Dir::new();
    let path = split(&dir, |_| {});
    let second = dir.0.join("m-00002-of-00002.gguf");
    assert!(reason(validate(&second)).contains("load the first"));
    let renamed = dir.0.join("other.gguf");
    fs::copy(&path, &renamed).unwrap();
    assert!(reason(validate(&renamed)).contains("-00001-of-00002.gguf"));
    fs::remove_file(&second).unwrap();
    assert!(reason(validate(&path)).contains("is missing"));
}

#[test]
fn the_second_file_is_checked_like_the_first() {
    let dir = Dir::new();
    let wrong_number = split(&dir, |second| {
        second.set("split.no", short(0));
    });
    assert!(reason(validate(&wrong_number)).contains("split.no"));
    // llama.cpp aborts on another type in the second file.
    let wrong_type = split(&dir, |second| {
        second.set("split.no", number(1));
    });
    assert!(reason(validate(&wrong_type)).contains("split.no"));
    let twice = split(&dir, |second| second.tensors[0].0 = "token_embd.weight".to_owned());
    assert!(reason(validate(&twice)).contains("twice"));
}
