//! A small writer of GGUF files, version 3, that can be told to lie.

use crate::quantize::Quant;
use std::io;
use std::path::Path;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 2.
    U16(u16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    Str(String),
    /// Type 10.
    U64(u64),
    /// An array of type 4.
    U32s(Vec<u32>),
    /// An array of type 5.
    I32s(Vec<i32>),
    /// An array of type 6.
    F32s(Vec<f32>),
    /// An array of type 7.
    Bools(Vec<bool>),
    /// An array of type 8.
    Strs(Vec<String>),
    /// An array of type 0, also used for binary data.
    U8s(Vec<u8>),
    /// A type number and whatever bytes should follow it.
    Raw(u32, Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// The number of the tensor type `F32`.
pub const TYPE_F32: u32 = 0;

/// A tensor: what its header says and the bytes that follow.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// The name, at most 63 bytes in an honest file.
    pub name: String,
    /// The dimensions, fastest first.
    pub dims: Vec<u64>,
    /// The number of the ggml type.
    pub kind: u32,
    /// The offset to write instead of the true one.
    pub claimed_offset: Option<u64>,
    /// The data as it is written, padded to the alignment.
    pub data: Vec<u8>,
}

impl Tensor {
    /// An honest tensor of 32-bit floats.
    ///
    /// # Panics
    ///
    /// If the number of values isn't the product of the dimensions.
    #[must_use]
    pub fn f32(name: impl Into<String>, dims: &[u64], values: &[f32]) -> Self {
        assert_eq!(dims.iter().product::<u64>(), values.len() as u64);
        Self {
            name: name.into(),
            dims: dims.to_vec(),
            kind: TYPE_F32,
            claimed_offset: None,
            data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// The values of a tensor of 32-bit floats.
    pub(crate) fn values(&self) -> Vec<f32> {
        self.data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
    }

    /// Makes a tensor of 32-bit floats one of another type.
    pub(crate) fn quantize(&mut self, quant: Quant) {
        assert_eq!(self.dims[0] % quant.block() as u64, 0, "the rows of '{}' have no whole blocks", self.name);
        self.data = quant.encode(&self.values());
        self.kind = quant.kind();
    }
}

/// A GGUF file in memory.
#[derive(Debug, Clone)]
pub struct File {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// The version of the format.
    pub version: u32,
    /// The metadata, in the order of writing.
    pub metadata: Vec<(String, Value)>,
    /// The tensors, in the order of writing.
    pub tensors: Vec<Tensor>,
    /// What the data is padded to. `general.alignment` is written only if the
    /// caller puts it into the metadata.
    pub alignment: usize,
    /// The number of tensors to claim instead of the true one.
    pub claimed_tensors: Option<u64>,
    /// The number of metadata entries to claim instead of the true one.
    pub claimed_metadata: Option<u64>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            claimed_tensors: None,
            claimed_metadata: None,
        }
    }
}

impl File {
    /// Adds a metadata entry, or replaces the one of the same key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        match self.metadata.iter_mut().find(|(existing, _)| existing == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(existing, _)| existing == key).map(|(_, value)| value)
    }

    /// Drops a metadata entry.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(existing, _)| existing != key);
        self
    }

    /// The tensor of that name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("the model has no tensor '{name}'"))
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        pad(&mut out, self.alignment);
        for tensor in &self.tensors {
            out.extend_from_slice(&tensor.data);
            pad(&mut out, self.alignment);
        }
        out
    }

    /// Everything before the tensor data, not padded.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.claimed_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.claimed_metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key);
            write_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.claimed_offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, self.to_bytes())
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => scalar(out, 0, &number.to_le_bytes()),
        Value::U16(number) => scalar(out, 2, &number.to_le_bytes()),
        Value::U32(number) => scalar(out, 4, &number.to_le_bytes()),
        Value::I32(number) => scalar(out, 5, &number.to_le_bytes()),
        Value::F32(number) => scalar(out, 6, &number.to_le_bytes()),
        Value::Bool(flag) => scalar(out, 7, &[u8::from(*flag)]),
        Value::U64(number) => scalar(out, 10, &number.to_le_bytes()),
        Value::Raw(kind, bytes) => scalar(out, *kind, bytes),
        Value::Str(text) => {
            out.extend(8u32.to_le_bytes());
            string(out, text);
        }
        Value::U8s(bytes) => {
            array(out, 0, bytes.len());
            out.extend(bytes);
        }
        Value::U32s(numbers) => {
            array(out, 4, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::I32s(numbers) => {
            array(out, 5, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::F32s(numbers) => {
            array(out, 6, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::Bools(flags) => {
            array(out, 7, flags.len());
            out.extend(flags.iter().map(|flag| u8::from(*flag)));
        }
        Value::Strs(texts) => {
            array(out, 8, texts.len());
            for text in texts {
                string(out, text);
            }
        }
    }
}

fn scalar(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend(bytes);
}

fn array(out: &mut Vec<u8>, kind: u32, len: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
