//! The key-value part of a GGUF file. Scalars and short arrays are kept; of
//! the rest only what the checks look at.

use super::{
    fault::{Result, refuse},
    reader::Reader,
};
use std::collections::HashMap;

/// No model has more than some hundred; llama.cpp searches them one by one.
const MAX_ENTRIES: u64 = 65_536;
/// Keys of real files have less than 100 bytes.
const MAX_KEY: u64 = 4_096;
/// Longer strings are skipped: no check reads them.
const MAX_KEPT_TEXT: u64 = 4_096;
/// llama.cpp's own limit on the length of strings and arrays.
const MAX_LEN: u64 = 1 << 30;
/// Longer arrays of numbers are skipped unless a check reads them.
const MAX_KEPT_NUMBERS: u64 = 4_096;
/// Bytes of all tokens together; real vocabularies have a few million.
const MAX_TOKEN_BYTES: usize = 1 << 30;
/// Bytes of one token. llama.cpp takes time and stack by the length of a
/// token; the longest in real vocabularies have about a thousand.
const MAX_TOKEN: u64 = 8_192;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
pub(super) const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const ALIGNMENT: &str = "general.alignment";

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::*;
        const KINDS: [Kind; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64];
        KINDS.get(number as usize).copied()
    }

    /// Bytes of a value; 0 for those without a fixed size.
    fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Text | Self::Array => 0,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

#[derive(Debug)]
pub(super) enum Value {
    /// Any integer or bool.
    Integer(Kind, i128),
    Float(Kind, f64),
    /// `None` if it is too long to keep.
    Text(Option<Vec<u8>>),
    Array(Array),
}

impl Value {
    fn kind(&self) -> Kind {
        match self {
            Self::Integer(kind, _) | Self::Float(kind, _) => *kind,
            Self::Text(_) => Kind::Text,
            Self::Array(_) => Kind::Array,
        }
    }
}

#[derive(Debug)]
pub(super) struct Array {
    pub(super) kind: Kind,
    pub(super) len: u64,
    pub(super) items: Items,
}

#[derive(Debug)]
pub(super) enum Items {
    /// Little-endian, as in the file.
    Numbers(Vec<u8>),
    Texts(Texts),
    Skipped,
}

impl Array {
    /// The numbers of an integer array that was kept.
    pub(super) fn integers(&self) -> impl Iterator<Item = i128> + '_ {
        let bytes: &[u8] = if let Items::Numbers(bytes) = &self.items { bytes } else { &[] };
        bytes.chunks_exact(self.kind.size().max(1) as usize).map(|bytes| integer(self.kind, bytes))
    }
}

/// Many strings in one allocation.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

#[derive(Debug)]
pub(super) struct Metadata {
    entries: HashMap<String, Value>,
}

impl Metadata {
    pub(super) fn read(reader: &mut Reader, n_entries: u64) -> Result<Self> {
        if n_entries > MAX_ENTRIES {
            return refuse(format!("it claims {n_entries} metadata entries, but {MAX_ENTRIES} is the most"));
        }
        let mut entries = HashMap::new();
        for index in 0..n_entries {
            let key = read_key(reader, index)?;
            let value = read_value(reader, &key)?;
            if entries.contains_key(&key) {
                return refuse(format!("the metadata key '{key}' occurs twice"));
            }
            entries.insert(key, value);
        }
        Ok(Self { entries })
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A `u32` key, with the type that llama.cpp insists on.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>> {
        let number = self.integer(key, Kind::U32)?;
        Ok(number.map(|number| u32::try_from(number).expect("the value was read as u32")))
    }

    pub(super) fn u16(&self, key: &str) -> Result<Option<u16>> {
        let number = self.integer(key, Kind::U16)?;
        Ok(number.map(|number| u16::try_from(number).expect("the value was read as u16")))
    }

    pub(super) fn i32(&self, key: &str) -> Result<Option<i32>> {
        let number = self.integer(key, Kind::I32)?;
        Ok(number.map(|number| i32::try_from(number).expect("the value was read as i32")))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        Ok(self.integer(key, Kind::Bool)?.map(|number| number != 0))
    }

    fn integer(&self, key: &str, kind: Kind) -> Result<Option<i128>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(found, number)) if *found == kind => Ok(Some(*number)),
            Some(value) => wrong_kind(key, value.kind(), kind.name()),
        }
    }

    /// A short string without zero bytes, at which llama.cpp would end it.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(Some(bytes))) if !bytes.contains(&0) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => refuse(format!("'{key}' is not valid UTF-8")),
            },
            Some(Value::Text(Some(_))) => refuse(format!("'{key}' holds a zero byte")),
            Some(Value::Text(None)) => refuse(format!("'{key}' is longer than {MAX_KEPT_TEXT} bytes")),
            Some(value) => wrong_kind(key, value.kind(), Kind::Text.name()),
        }
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(value) => wrong_kind(key, value.kind(), Kind::Array.name()),
        }
    }

    /// What the tensor data is aligned to.
    pub(super) fn alignment(&self) -> Result<u64> {
        let alignment = self.u32(ALIGNMENT)?.unwrap_or(32);
        if !alignment.is_power_of_two() {
            return refuse(format!("'{ALIGNMENT}' is {alignment}, but must be a power of two"));
        }
        Ok(u64::from(alignment))
    }
}

fn wrong_kind<T>(key: &str, found: Kind, expected: &str) -> Result<T> {
    refuse(format!("'{key}' has the type {}, but must be {expected}", found.name()))
}

fn read_key(reader: &mut Reader, index: u64) -> Result<String> {
    let len = reader.u64("a metadata key")?;
    if len == 0 {
        return refuse(format!("the key of metadata entry {index} is empty"));
    }
    if len > MAX_KEY {
        return refuse(format!("the key of metadata entry {index} has {len} bytes, but {MAX_KEY} is the most"));
    }
    let bytes = reader.bytes(len, "a metadata key")?;
    match String::from_utf8(bytes) {
        // llama.cpp compares keys only up to a zero byte.
        Ok(key) if !key.contains('\0') => Ok(key),
        _ => refuse(format!("the key of metadata entry {index} is not valid text")),
    }
}

fn read_value(reader: &mut Reader, key: &str) -> Result<Value> {
    let kind = read_kind(reader, key)?;
    match kind {
        Kind::Array => read_array(reader, key).map(Value::Array),
        Kind::Text => {
            let len = text_len(reader, key)?;
            if len <= MAX_KEPT_TEXT {
                return Ok(Value::Text(Some(reader.bytes(len, key)?)));
            }
            reader.skip(len, key)?;
            Ok(Value::Text(None))
        }
        Kind::F32 => Ok(Value::Float(kind, f64::from(f32::from_le_bytes(reader.array(key)?)))),
        Kind::F64 => Ok(Value::Float(kind, f64::from_le_bytes(reader.array(key)?))),
        _ => {
            let bytes = reader.bytes(kind.size(), key)?;
            Ok(Value::Integer(kind, integer(kind, &bytes)))
        }
    }
}

fn read_kind(reader: &mut Reader, key: &str) -> Result<Kind> {
    let number = reader.u32(key)?;
    match Kind::from_number(number) {
        Some(kind) => Ok(kind),
        None => refuse(format!("'{key}' has the unknown type {number}")),
    }
}

fn text_len(reader: &mut Reader, key: &str) -> Result<u64> {
    let len = reader.u64(key)?;
    if len > MAX_LEN || len > reader.left() {
        return refuse(format!(
            "the file is cut off or altered: a string in '{key}' claims {len} bytes, but {} are left",
            reader.left()
        ));
    }
    Ok(len)
}

fn read_array(reader: &mut Reader, key: &str) -> Result<Array> {
    let kind = read_kind(reader, key)?;
    let len = reader.u64(key)?;
    let size = match kind {
        Kind::Array => return refuse(format!("'{key}' is an array of arrays")),
        // At least the length of each string.
        Kind::Text => 8,
        _ => kind.size(),
    };
    let fits = len.checked_mul(size).is_some_and(|bytes| bytes <= reader.left());
    if !fits || len > MAX_LEN {
        return refuse(format!(
            "the file is cut off or altered: '{key}' claims {len} elements of the type {}, but {} bytes are left",
            kind.name(),
            reader.left()
        ));
    }
    let items = match kind {
        Kind::Text if key == TOKENS => Items::Texts(read_tokens(reader, len)?),
        Kind::Text => {
            for _ in 0..len {
                let len = text_len(reader, key)?;
                reader.skip(len, key)?;
            }
            Items::Skipped
        }
        _ if len <= MAX_KEPT_NUMBERS || key == TOKEN_TYPES || key == CHARSMAP => {
            Items::Numbers(reader.bytes(len * size, key)?)
        }
        _ => {
            reader.skip(len * size, key)?;
            Items::Skipped
        }
    };
    Ok(Array { kind, len, items })
}

fn read_tokens(reader: &mut Reader, count: u64) -> Result<Texts> {
    let mut texts = Texts::default();
    for id in 0..count {
        let len = text_len(reader, TOKENS)?;
        if len > MAX_TOKEN || texts.bytes.len() > MAX_TOKEN_BYTES {
            return refuse(format!("token {id} of '{TOKENS}' has {len} bytes, but {MAX_TOKEN} is the most"));
        }
        reader.append(len, &mut texts.bytes, TOKENS)?;
        texts.ends.push(texts.bytes.len());
    }
    Ok(texts)
}

/// Reads an integer or bool of that kind from its bytes.
fn integer(kind: Kind, bytes: &[u8]) -> i128 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let number = u64::from_le_bytes(wide);
    match kind {
        Kind::I8 => i128::from(number as i8),
        Kind::I16 => i128::from(number as i16),
        Kind::I32 => i128::from(number as i32),
        Kind::I64 => i128::from(number as i64),
        _ => i128::from(number),
    }
}
