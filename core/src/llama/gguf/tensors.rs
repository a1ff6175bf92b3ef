//! The list of tensors: names, shapes, types and places in the file.

use super::{
    fault::{Result, refuse},
    header::Header,
    reader::Reader,
};
use std::collections::{HashMap, HashSet};

/// llama.cpp compares every tensor's name with all others; the largest models
/// have a few thousand.
const MAX_TENSORS: u64 = 65_536;
const MAX_NAME: u64 = 63;
const MAX_DIMS: u32 = 4;
/// What ggml's buffers must be aligned to, else it aborts when it maps the
/// file.
const BUFFER_ALIGNMENT: u64 = 32;

/// One ggml type: elements and bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) name: &'static str,
    block_len: u64,
    block_size: u64,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Full precision: good for everything.
    Float,
    /// Good for matrices only.
    Matrix,
    /// Only an intermediate of computations, or integers: no weight has it.
    Other,
}

const fn kind(name: &'static str, block_len: u64, block_size: u64, role: Role) -> Option<Type> {
    Some(Type { name, block_len, block_size, role })
}

/// By ggml's numbers; `None` for types that were removed.
const TYPES: [Option<Type>; 43] = {
    use Role::*;
    [
        kind("F32", 1, 4, Float),
        kind("F16", 1, 2, Matrix),
        kind("Q4_0", 32, 18, Matrix),
        kind("Q4_1", 32, 20, Matrix),
        None,
        None,
        kind("Q5_0", 32, 22, Matrix),
        kind("Q5_1", 32, 24, Matrix),
        kind("Q8_0", 32, 34, Matrix),
        kind("Q8_1", 32, 36, Other),
        kind("Q2_K", 256, 84, Matrix),
        kind("Q3_K", 256, 110, Matrix),
        kind("Q4_K", 256, 144, Matrix),
        kind("Q5_K", 256, 176, Matrix),
        kind("Q6_K", 256, 210, Matrix),
        kind("Q8_K", 256, 292, Other),
        kind("IQ2_XXS", 256, 66, Matrix),
        kind("IQ2_XS", 256, 74, Matrix),
        kind("IQ3_XXS", 256, 98, Matrix),
        kind("IQ1_S", 256, 50, Matrix),
        kind("IQ4_NL", 32, 18, Matrix),
        kind("IQ3_S", 256, 110, Matrix),
        kind("IQ2_S", 256, 82, Matrix),
        kind("IQ4_XS", 256, 136, Matrix),
        kind("I8", 1, 1, Other),
        kind("I16", 1, 2, Other),
        kind("I32", 1, 4, Other),
        kind("I64", 1, 8, Other),
        kind("F64", 1, 8, Other),
        kind("IQ1_M", 256, 56, Matrix),
        kind("BF16", 1, 2, Matrix),
        None,
        None,
        None,
        kind("TQ1_0", 256, 54, Matrix),
        kind("TQ2_0", 256, 66, Matrix),
        None,
        None,
        None,
        kind("MXFP4", 32, 17, Matrix),
        kind("NVFP4", 64, 36, Matrix),
        kind("Q1_0", 128, 18, Matrix),
        kind("Q2_0", 64, 18, Matrix),
    ]
};

#[derive(Debug)]
struct Tensor {
    name: String,
    dims: [u64; 4],
    kind: Type,
    size: u64,
    offset: u64,
}

#[derive(Debug)]
pub(super) struct Tensors {
    list: Vec<Tensor>,
    names: HashSet<String>,
}

impl Tensors {
    pub(super) fn read(reader: &mut Reader, count: u64, alignment: u64) -> Result<Self> {
        if count > MAX_TENSORS {
            return refuse(format!("it claims {count} tensors, but {MAX_TENSORS} is the most"));
        }
        let mut tensors = Self { list: Vec::new(), names: HashSet::new() };
        for index in 0..count {
            let tensor = read_tensor(reader, index)?;
            tensors.add(tensor)?;
        }
        let data_start = reader.position().next_multiple_of(alignment);
        tensors.check_places(data_start, alignment, reader.len())?;
        Ok(tensors)
    }

    fn add(&mut self, tensor: Tensor) -> Result<()> {
        if !self.names.insert(tensor.name.clone()) {
            return refuse(format!("the tensor '{}' occurs twice", tensor.name));
        }
        self.list.push(tensor);
        Ok(())
    }

    /// Adds the tensors of another file of the same model.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        other.list.into_iter().try_for_each(|tensor| self.add(tensor))
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of all tensors.
    pub(super) fn size(&self) -> u64 {
        self.list.iter().map(|tensor| tensor.size).sum()
    }

    /// Elements of all tensors.
    pub(super) fn n_elements(&self) -> u64 {
        self.list.iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum()
    }

    /// The type that holds the most bytes.
    pub(super) fn main_type(&self) -> &'static str {
        let mut sizes: HashMap<&'static str, u64> = HashMap::new();
        for tensor in &self.list {
            *sizes.entry(tensor.kind.name).or_default() += tensor.size;
        }
        sizes.into_iter().max_by_key(|(name, size)| (*size, *name)).map_or("none", |(name, _)| name)
    }

    /// See [`Header::repacks_evenly`]. The K-quants differ; of the types that
    /// are not listed nothing is known.
    pub(super) fn repack_evenly(&self) -> bool {
        const EVEN: [&str; 8] = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"];
        self.list.iter().all(|tensor| EVEN.contains(&tensor.kind.name))
    }

    /// See [`Header::has_float_matrices`].
    pub(super) fn has_float_matrices(&self) -> bool {
        let is_matrix = |tensor: &&Tensor| tensor.dims[1] > 1;
        self.list.iter().filter(is_matrix).any(|tensor| ["F32", "F16", "BF16"].contains(&tensor.kind.name))
    }

    /// The data must lie tensor by tensor without gaps, as llama.cpp wants it,
    /// and within the file.
    fn check_places(&self, data_start: u64, alignment: u64, file_size: u64) -> Result<()> {
        let mut expected = 0u64;
        for tensor in &self.list {
            let name = &tensor.name;
            if tensor.offset != expected {
                return refuse(format!(
                    "the tensor '{name}' has the offset {}, but must have {expected}",
                    tensor.offset
                ));
            }
            let end = data_start.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.size));
            match end {
                Some(end) if end <= file_size => {}
                _ => {
                    return refuse(format!(
                        "the file is cut off: the tensor '{name}' of {} bytes goes past its end at byte {file_size}",
                        tensor.size
                    ));
                }
            }
            if !(data_start + tensor.offset).is_multiple_of(BUFFER_ALIGNMENT) {
                return refuse(format!(
                    "the tensor '{name}' is not aligned to {BUFFER_ALIGNMENT} bytes; 'general.alignment' is {alignment}"
                ));
            }
            // No overflow: the sum is below the file's size so far, and
            // alignments are below 2^32.
            expected = (expected + tensor.size).next_multiple_of(alignment);
        }
        Ok(())
    }

    /// Refuses types that ggml would abort on, since it picks a function by
    /// the type without a check, and what is missing without llama.cpp's
    /// noticing.
    pub(super) fn check_weights(&self, header: &Header) -> Result<()> {
        for tensor in &self.list {
            let Tensor { name, kind, .. } = tensor;
            let good = if name.contains("tid2eid") {
                kind.name == "I32"
            } else if tensor.must_be_f32() {
                kind.role == Role::Float
            } else {
                kind.role != Role::Other
            };
            if !good {
                return refuse(format!("the tensor '{name}' has the type {}, which can't be used for it", kind.name));
            }
        }
        self.check_embedding(header)?;
        for layer in 0..header.n_layer {
            self.check_layer(header, layer)?;
        }
        Ok(())
    }

    fn check_embedding(&self, header: &Header) -> Result<()> {
        const NAME: &str = "token_embd.weight";
        let rows = self.list.iter().find(|tensor| tensor.name == NAME).map(|tensor| tensor.dims[1]);
        match rows {
            Some(rows) if rows == u64::from(header.n_vocab) => Ok(()),
            Some(rows) => {
                refuse(format!("the tensor '{NAME}' has {rows} rows, but the vocabulary has {} tokens", header.n_vocab))
            }
            // It takes the output matrix instead.
            None if header.architecture == "codeshell" => Ok(()),
            None => refuse(format!("the tensor '{NAME}' is missing")),
        }
    }

    /// Weights that llama.cpp takes for optional and then uses.
    fn check_layer(&self, header: &Header, layer: u32) -> Result<()> {
        let has = |part: &str| self.names.contains(&format!("blk.{layer}.{part}"));
        let missing = |parts: &[&'static str]| parts.iter().copied().find(|part| !has(part));
        let is_recurrent = header.recurrent_layers.get(layer as usize) == Some(&true);
        let lacks = match header.architecture.as_str() {
            // Without this one of the first layer, it takes all weights of
            // layers that do not draft for optional.
            _ if layer == 0 && header.n_draft_layers > 0 && !has("attn_norm.weight") => Some("attn_norm.weight"),
            "phi3" if !has("attn_qkv.weight") => missing(&["attn_q.weight", "attn_k.weight", "attn_v.weight"]),
            "falcon-h1" => missing(&["ssm_conv1d.bias"]),
            "granitehybrid" | "nemotron_h" | "nemotron_h_moe" if is_recurrent => missing(&["ssm_conv1d.bias"]),
            "qwen3next" if is_recurrent && has("ssm_in.weight") => None,
            "qwen3next" | "qwen35" | "qwen35moe" if is_recurrent => missing(&["attn_qkv.weight", "attn_gate.weight"]),
            _ => None,
        };
        match lacks {
            Some(part) => refuse(format!("the tensor 'blk.{layer}.{part}' is missing")),
            None => Ok(()),
        }
    }
}

impl Tensor {
    /// Whether ggml combines it with others element by element, as it does
    /// with norms and biases. The CPU backend does that with F32 alone.
    fn must_be_f32(&self) -> bool {
        let part = self.name.strip_suffix(".weight").unwrap_or(&self.name);
        let last = part.rsplit('.').next().unwrap_or(part);
        // Matrices that may have a single row.
        let is_matrix = ["gate_inp", "cls", "dense", "output", "embd", "pred"].iter().any(|name| part.contains(name));
        let is_vector = self.dims[1..] == [1; 3];
        last == "bias"
            || last.ends_with("norm")
            || last.ends_with("norm_1")
            || last.ends_with("norm_2")
            || matches!(last, "ssm_a" | "ssm_d")
            || last.starts_with("ssm_conv1d")
            || last.contains("_lerp_")
            || last.ends_with("scale")
            || last.ends_with("_base")
            || part.ends_with("shortconv.conv")
            || (is_vector && !is_matrix)
    }
}

fn read_tensor(reader: &mut Reader, index: u64) -> Result<Tensor> {
    let name = read_name(reader, index)?;
    let what = format!("the description of the tensor '{name}'");
    let n_dims = reader.u32(&what)?;
    if n_dims > MAX_DIMS {
        return refuse(format!("the tensor '{name}' has {n_dims} dimensions, but {MAX_DIMS} is the most"));
    }
    let mut dims = [1; 4];
    for dim in &mut dims[..n_dims as usize] {
        *dim = reader.u64(&what)?;
        if *dim == 0 || i64::try_from(*dim).is_err() {
            return refuse(format!("the tensor '{name}' has a dimension of {}", *dim as i64));
        }
    }
    let number = reader.u32(&what)?;
    let Some(kind) = TYPES.get(number as usize).copied().flatten() else {
        return refuse(format!("the tensor '{name}' has the type {number}, which is unknown or no longer supported"));
    };
    let offset = reader.u64(&what)?;
    if !dims[0].is_multiple_of(kind.block_len) {
        return refuse(format!(
            "the tensor '{name}' has rows of {} elements, which are no whole blocks of {} as {} needs",
            dims[0], kind.block_len, kind.name
        ));
    }
    let size = dims
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .and_then(|n_elements| (n_elements / kind.block_len).checked_mul(kind.block_size))
        .filter(|size| i64::try_from(*size).is_ok());
    let Some(size) = size else {
        return refuse(format!("the tensor '{name}' has the shape {dims:?}, whose size overflows"));
    };
    Ok(Tensor { name, dims, kind, size, offset })
}

fn read_name(reader: &mut Reader, index: u64) -> Result<String> {
    let len = reader.u64("a tensor's name")?;
    if len == 0 || len > MAX_NAME {
        return refuse(format!("the name of tensor {index} has {len} bytes, but may have 1 to {MAX_NAME}"));
    }
    match String::from_utf8(reader.bytes(len, "a tensor's name")?) {
        Ok(name) if !name.contains('\0') => Ok(name),
        _ => refuse(format!("the name of tensor {index} is not valid text")),
    }
}
