//! The vocabulary. llama.cpp looks tokens up by text and id without checks,
//! and aborts on two tokens of the same text.

use super::{
    fault::{Result, refuse},
    metadata::{CHARSMAP, Items, Kind, Metadata, TOKEN_TYPES, TOKENS, Texts},
};
use std::collections::HashSet;

const MODEL: &str = "tokenizer.ggml.model";
const SCORES: &str = "tokenizer.ggml.scores";
/// Of token types.
const BYTE: i128 = 6;
const LAST_TYPE: i128 = 6;

/// Checks the vocabulary and gives its size.
pub(super) fn check(metadata: &Metadata) -> Result<u32> {
    let Some(model) = metadata.text(MODEL)? else { return refuse(format!("the key '{MODEL}' is missing")) };
    if matches!(model, "none" | "no_vocab" | "test") {
        return refuse(format!("'{MODEL}' is '{model}': the model has no vocabulary for text"));
    }
    let tokens = match metadata.array(TOKENS)? {
        Some(tokens) => tokens,
        None => return refuse(format!("the key '{TOKENS}' is missing")),
    };
    let Items::Texts(texts) = &tokens.items else {
        return refuse(format!("'{TOKENS}' is an array of the type {}, but must hold strings", tokens.kind.name()));
    };
    let n_tokens = texts.len() as u64;
    if n_tokens == 0 || n_tokens > i32::MAX as u64 {
        return refuse(format!("'{TOKENS}' holds {n_tokens} tokens"));
    }
    check_distinct(texts)?;
    check_array(metadata, SCORES, &[Kind::F32, Kind::I32], n_tokens)?;
    check_array(metadata, TOKEN_TYPES, &[Kind::I32], n_tokens)?;
    check_types(metadata, texts, model)?;
    match model {
        "rwkv" => check_first_bytes(texts)?,
        "t5" => check_charsmap(metadata)?,
        _ => {}
    }
    check_special(metadata, model, n_tokens)?;
    Ok(u32::try_from(n_tokens).expect("it is at most i32::MAX"))
}

/// An optional array of one of the kinds with something for every token.
fn check_array(metadata: &Metadata, key: &str, kinds: &[Kind], n_tokens: u64) -> Result<()> {
    let Some(array) = metadata.array(key)? else { return Ok(()) };
    if !kinds.contains(&array.kind) {
        return refuse(format!("'{key}' is an array of the type {}", array.kind.name()));
    }
    if array.len < n_tokens {
        return refuse(format!("'{key}' has {} elements for {n_tokens} tokens", array.len));
    }
    Ok(())
}

fn check_distinct(texts: &Texts) -> Result<()> {
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(texts.len());
    let mut empty = Vec::new();
    for (id, text) in texts.iter().enumerate() {
        // llama.cpp takes a token only up to a zero byte, and names the empty
        // ones by their ids.
        let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
        if text.is_empty() {
            empty.push(format!("[EMPTY_{id}]"));
        } else if !seen.insert(text) {
            let text = String::from_utf8_lossy(text);
            return refuse(format!(
                "'{TOKENS}' holds the token '{}' twice, the second time as {id}",
                text.escape_debug()
            ));
        }
    }
    match empty.iter().find(|name| seen.contains(name.as_bytes())) {
        Some(name) => refuse(format!("'{TOKENS}' holds the token '{name}', which stands for an empty one")),
        None => Ok(()),
    }
}

fn check_types(metadata: &Metadata, texts: &Texts, model: &str) -> Result<()> {
    let Some(types) = metadata.array(TOKEN_TYPES)? else { return Ok(()) };
    for ((id, text), kind) in texts.iter().enumerate().zip(types.integers()) {
        if !(0..=LAST_TYPE).contains(&kind) {
            return refuse(format!("'{TOKEN_TYPES}' is {kind} for token {id}, but must be 0 to {LAST_TYPE}"));
        }
        if kind != BYTE {
            continue;
        }
        if model == "bert" {
            return refuse(format!("'{TOKEN_TYPES}' makes token {id} a byte, which a 'bert' vocabulary can't have"));
        }
        if text.len() != 6 {
            let text = String::from_utf8_lossy(text);
            return refuse(format!("token {id} is a byte, but its text is '{}'", text.escape_debug()));
        }
    }
    Ok(())
}

/// The `rwkv` tokenizer would loop forever on a byte that begins tokens but is
/// none.
fn check_first_bytes(texts: &Texts) -> Result<()> {
    let (mut begins, mut is_token) = ([false; 256], [false; 256]);
    for text in texts.iter() {
        let (first, len) = unescape(text);
        begins[usize::from(first)] |= len > 0;
        is_token[usize::from(first)] |= len == 1;
    }
    match (0..256).find(|byte| begins[*byte] && !is_token[*byte]) {
        Some(byte) => refuse(format!("'{TOKENS}' has tokens that begin with byte {byte:#04x}, but not the byte alone")),
        None => Ok(()),
    }
}

/// The first byte and the length of a token with `rwkv`'s escapes resolved.
fn unescape(text: &[u8]) -> (u8, usize) {
    let digit = |byte: u8| if byte >= b'a' { byte - b'a' + 10 } else { byte.wrapping_sub(b'0') };
    let mut bytes = text.iter().copied().take_while(|byte| *byte != 0);
    let (mut first, mut len) = (0, 0);
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'\\' {
            match bytes.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b'x') => match (bytes.next(), bytes.next()) {
                    (Some(high), Some(low)) => (digit(high) << 4).wrapping_add(digit(low)),
                    _ => break,
                },
                Some(other) => other,
                None => break,
            }
        } else {
            byte
        };
        if len == 0 {
            first = byte;
        }
        len += 1;
    }
    (first, len)
}

/// The normalization table of a `t5` vocabulary: the size of a double array in
/// bytes, the array, then replacements that end in zero bytes.
fn check_charsmap(metadata: &Metadata) -> Result<()> {
    let Some(array) = metadata.array(CHARSMAP)? else { return Ok(()) };
    let (Items::Numbers(map), Kind::U8 | Kind::I8) = (&array.items, array.kind) else {
        return refuse(format!("'{CHARSMAP}' is an array of the type {}, but must hold bytes", array.kind.name()));
    };
    let size = map.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let Some((size, rest)) = size.zip(map.get(4..)).filter(|(size, rest)| *size < rest.len()) else {
        return refuse(format!("'{CHARSMAP}' of {} bytes is too short for the size that it claims", map.len()));
    };
    let (nodes, replacements) = rest.split_at(size);
    if replacements.last() != Some(&0) {
        return refuse(format!("the last replacement in '{CHARSMAP}' does not end"));
    }
    // The root's children must lie in the array. Those of other nodes, llama.cpp
    // checks as it goes.
    if let Some(root) = nodes.first_chunk() {
        let root = u32::from_le_bytes(*root);
        let base = u64::from(root >> 10) << ((root & (1 << 9)) >> 6);
        if (base | 0xff) >= size as u64 / 4 {
            return refuse(format!("'{CHARSMAP}' points to entry {base}, but has {} entries", size / 4));
        }
    }
    Ok(())
}

/// What a kind of vocabulary assumes where the file says nothing.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    sep: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Adds a separator at the end, and the first token whatever the flags.
    is_bert: bool,
}

fn defaults(model: &str, pre: &str) -> Option<Defaults> {
    let none = Defaults { bos: None, eos: None, sep: None, add_bos: false, add_eos: false, is_bert: false };
    let llama3 = matches!(
        pre,
        "llama3"
            | "llama-v3"
            | "llama-bpe"
            | "falcon3"
            | "falcon-h1"
            | "pixtral"
            | "midm-2.0"
            | "lfm2"
            | "jina-v5-nano"
            | "tekken"
            | "chameleon"
    );
    let gemma4 = matches!(pre, "gemma4" | "granite-embed-multi-311m");
    let no_bos = matches!(pre, "chatglm-bpe" | "glm4" | "glm5");
    Some(match model {
        "llama" => Defaults { bos: Some(1), eos: Some(2), add_bos: true, ..none },
        "bert" => Defaults { bos: Some(101), sep: Some(102), is_bert: true, ..none },
        "gpt2" | "hybriddna" | "whitespace" => {
            let bos = if no_bos { None } else { Some(11) };
            Defaults { bos, eos: Some(11), add_bos: llama3 || gemma4, ..none }
        }
        "gemma4" => Defaults { add_bos: true, ..none },
        "t5" => Defaults { eos: Some(1), add_eos: true, ..none },
        "plamo2" => Defaults { bos: Some(1), eos: Some(2), ..none },
        "rwkv" => none,
        // llama.cpp refuses it.
        _ => return None,
    })
}

/// The tokens that begin and end texts must be in the vocabulary, and the
/// tokenizer must have those that it adds to texts: it asserts that.
fn check_special(metadata: &Metadata, model: &str, n_tokens: u64) -> Result<()> {
    for name in ["bos", "eos", "eot", "eom", "unknown"] {
        match token_id(metadata, name)? {
            Some(id) if u64::from(id) >= n_tokens => {
                return refuse(format!("'{}' is {id}, but the vocabulary has {n_tokens} tokens", id_key(name)));
            }
            _ => {}
        }
    }
    // Models with such ids out of range are common; llama.cpp ignores them.
    for name in [
        "seperator",
        "padding",
        "mask",
        "fim_pre",
        "fim_suf",
        "fim_mid",
        "fim_pad",
        "fim_rep",
        "fim_sep",
        "prefix",
        "suffix",
        "middle",
    ] {
        token_id(metadata, name)?;
    }
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or_default();
    let Some(defaults) = defaults(model, pre) else { return Ok(()) };
    let flag = |key: &str| metadata.flag(key);
    let add_bos = flag("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos) || defaults.is_bert;
    let add_eos = flag("tokenizer.ggml.add_eos_token")?.unwrap_or(defaults.add_eos) && !defaults.is_bert;
    let needed = [
        ("bos", add_bos && model != "rwkv", defaults.bos),
        ("eos", add_eos && model != "rwkv", defaults.eos),
        ("seperator", defaults.is_bert, defaults.sep),
    ];
    for (name, is_needed, default) in needed {
        let id = token_id(metadata, name)?.filter(|id| u64::from(*id) < n_tokens);
        let id = id.or(default.filter(|id| u64::from(*id) < n_tokens));
        if is_needed && id.is_none() {
            return refuse(format!("'{}' is missing, but the tokenizer adds that token", id_key(name)));
        }
    }
    Ok(())
}

fn token_id(metadata: &Metadata, name: &str) -> Result<Option<u32>> {
    // Some converters write -1 for a token that there is not.
    Ok(metadata.u32(&id_key(name))?.filter(|id| *id != u32::MAX))
}

fn id_key(name: &str) -> String {
    format!("tokenizer.ggml.{name}_token_id")
}
