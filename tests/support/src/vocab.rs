//! The vocabulary of the tiny models: a SentencePiece one, in which every text
//! has tokens and every byte is a token of its own.
//!
//! | ids | tokens |
//! |---|---|
//! | 0, 1, 2 | `<unk>`, `<s>`, `</s>` |
//! | 3 to 258 | the bytes `<0x00>` to `<0xFF>` |
//! | 259, 260 | `<|im_start|>`, `<|im_end|>` |
//! | from 261 | printable ASCII characters, then words and what they grow from |

use crate::gguf::{File, Value};

/// The unknown token, `<unk>`.
pub const UNK: i32 = 0;
/// Begins every prompt, `<s>`.
pub const BOS: i32 = 1;
/// Ends a generation, `</s>`.
pub const EOS: i32 = 2;
/// Opens a chat message.
pub const IM_START: i32 = 259;
/// Closes a chat message. llama.cpp counts it among the tokens that end a
/// generation, besides [`EOS`].
pub const IM_END: i32 = 260;
/// The first token that stands for itself.
pub const FIRST_TEXT: i32 = 261;

/// The size of the vocabulary if none is asked for.
pub const DEFAULT_SIZE: u32 = 512;

/// The ChatML template, as the tiny models carry it.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' \
     + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The token of a byte.
///
/// ```
/// assert_eq!(mullama_test_support::vocab::byte(0), 3);
/// ```
#[must_use]
pub fn byte(byte: u8) -> i32 {
    3 + i32::from(byte)
}

/// The tokens that spell a text byte by byte. Forced one after the other they
/// split characters over tokens.
#[must_use]
pub fn bytes_of(text: &str) -> Vec<i32> {
    text.bytes().map(byte).collect()
}

const WORDS: [&str; 28] = [
    "the",
    "and",
    "of",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "hello",
    "world",
    "one",
    "two",
    "three",
    "stop",
    "yes",
    "no",
    "user",
    "assistant",
    "system",
];

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// The pieces in the order of their ids, with their types.
#[must_use]
pub fn pieces(size: u32) -> Vec<(String, i32)> {
    let mut pieces: Vec<(String, i32)> =
        vec![("<unk>".to_owned(), UNKNOWN), ("<s>".to_owned(), CONTROL), ("</s>".to_owned(), CONTROL)];
    pieces.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    pieces.push(("<|im_start|>".to_owned(), CONTROL));
    pieces.push(("<|im_end|>".to_owned(), CONTROL));

    // A merge only happens if its result is a piece, so every word needs its
    // beginnings too.
    let mut texts: Vec<String> = vec!["\u{2581}".to_owned()];
    texts.extend((b'!'..=b'~').map(|letter| char::from(letter).to_string()));
    for word in WORDS {
        let spaced = format!("\u{2581}{word}");
        let ends = spaced.char_indices().map(|(at, letter)| at + letter.len_utf8());
        texts.extend(ends.skip(1).map(|end| spaced[..end].to_owned()));
    }
    let mut seen = std::collections::HashSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    pieces.extend(texts.into_iter().map(|text| (text, NORMAL)));

    let size = size as usize;
    let have = pieces.len();
    pieces.extend((have..size).map(|id| (format!("\u{2581}w{id}"), NORMAL)));
    pieces.truncate(size);
    pieces
}

/// Writes the tokenizer into a model's metadata.
///
/// # Panics
///
/// If the size leaves no room for the bytes and the control tokens.
pub fn describe(file: &mut File, size: u32) {
    assert!(size > FIRST_TEXT as u32, "a vocabulary of {size} tokens is too small, the least is {}", FIRST_TEXT + 1);
    let pieces = pieces(size);
    let scores =
        pieces.iter().enumerate().map(|(id, (_, kind))| if *kind == NORMAL { -(id as f32) } else { 0.0 }).collect();
    let types = pieces.iter().map(|(_, kind)| *kind).collect();
    let texts = pieces.into_iter().map(|(text, _)| text).collect();
    file.set("tokenizer.ggml.model", "llama");
    file.set("tokenizer.ggml.tokens", Value::Strs(texts));
    file.set("tokenizer.ggml.scores", Value::F32s(scores));
    file.set("tokenizer.ggml.token_type", Value::I32s(types));
    file.set("tokenizer.ggml.bos_token_id", BOS as u32);
    file.set("tokenizer.ggml.eos_token_id", EOS as u32);
    file.set("tokenizer.ggml.unknown_token_id", UNK as u32);
    file.set("tokenizer.ggml.add_bos_token", true);
    file.set("tokenizer.ggml.add_eos_token", false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_ids_are_where_the_table_says() {
        let pieces = pieces(DEFAULT_SIZE);
        assert_eq!(pieces.len(), DEFAULT_SIZE as usize);
        assert_eq!(pieces[byte(b'A') as usize].0, "<0x41>");
        assert_eq!(pieces[IM_END as usize].0, "<|im_end|>");
        assert_eq!(pieces[FIRST_TEXT as usize].0, "\u{2581}");
    }

    #[test]
    fn no_piece_occurs_twice() {
        let pieces = pieces(2000);
        let distinct: std::collections::HashSet<_> = pieces.iter().map(|(text, _)| text).collect();
        assert_eq!(distinct.len(), pieces.len());
    }
}
