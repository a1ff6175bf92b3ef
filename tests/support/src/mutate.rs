//! Random damage to models, for tests that look for crashes.

use crate::gguf::{File, Tensor, Value};
use crate::rng::Rng;

/// A random mutation of a file, most often of its header: flipped bits, numbers
/// overwritten by extreme ones, bytes cut out, doubled or cut off. The same
/// seed gives the same mutation.
#[must_use]
pub fn mutated(original: &[u8], header_len: usize, seed: u64) -> Vec<u8> {
    const EXTREMES: [u64; 12] = [
        0,
        1,
        7,
        0x20,
        0x7fff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        u64::MAX / 2,
        u64::MAX / 32,
        u64::MAX / 4 + 2,
        u64::MAX - 31,
        u64::MAX,
    ];
    let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = original.to_vec();
    for _ in 0..=rng.below(3) {
        let limit = header_len.min(bytes.len());
        if limit < 16 {
            break;
        }
        let at = rng.below(limit - 8);
        match rng.below(10) {
            0..=2 => bytes[at] ^= 1 << rng.below(8),
            3 => bytes[at] = rng.next_u64() as u8,
            4..=5 => {
                let extreme = EXTREMES[rng.below(EXTREMES.len())];
                bytes[at..at + 8].copy_from_slice(&extreme.to_le_bytes());
            }
            6 => {
                let extreme = EXTREMES[rng.below(EXTREMES.len())] as u32;
                bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
            }
            7 => {
                let len = rng.below(16).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
            8 => {
                let copy = bytes[at..at + 8].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let len = rng.below(bytes.len());
                bytes.truncate(len);
            }
        }
    }
    bytes
}

/// A well-formed file of a model that makes no sense: one or two values of its
/// metadata, or a tensor's type or shape, replaced by others. The same seed
/// gives the same file.
#[must_use]
pub fn altered(model: &File, seed: u64) -> File {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e6d_62d0_6f6a_9a9b));
    let mut file = model.clone();
    for _ in 0..=rng.below(2) {
        if rng.below(4) == 0 {
            let index = rng.below(file.tensors.len());
            alter_tensor(&mut file.tensors[index], &mut rng);
        } else {
            let index = rng.below(file.metadata.len());
            let value = &mut file.metadata[index].1;
            *value = altered_value(value, &mut rng);
        }
    }
    file
}

fn alter_tensor(tensor: &mut Tensor, rng: &mut Rng) {
    let n_values: u64 = tensor.dims.iter().product();
    match rng.below(3) {
        // Other floats and integers, and the smallest blocks.
        0 => {
            const TYPES: [(u32, u64, u64); 10] = [
                (1, 1, 2),
                (2, 32, 18),
                (8, 32, 34),
                (9, 32, 36),
                (24, 1, 1),
                (26, 1, 4),
                (27, 1, 8),
                (28, 1, 8),
                (30, 1, 2),
                (39, 32, 17),
            ];
            let (kind, block_len, block_size) = TYPES[rng.below(TYPES.len())];
            tensor.kind = kind;
            tensor.data = vec![0x11; (n_values / block_len * block_size) as usize];
        }
        1 => tensor.dims.reverse(),
        _ => tensor.dims = vec![n_values],
    }
}

fn altered_value(value: &Value, rng: &mut Rng) -> Value {
    const NUMBERS: [u32; 16] =
        [0, 1, 2, 3, 5, 8, 16, 31, 64, 127, 511, 513, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    const FLOATS: [f32; 7] = [0.0, -1.0, 1e-30, 1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    const TEXTS: [&str; 14] =
        ["", "x", "llama", "gemma2", "mamba", "mamba2", "qwen3", "gpt2", "bert", "t5", "rwkv", "none", "x\0y", "model"];
    let number = NUMBERS[rng.below(NUMBERS.len())];
    match (value, rng.below(8)) {
        (_, 0) => Value::U64(u64::from(number)),
        (_, 1) => Value::U32s(vec![number, 2]),
        (Value::U32(_), _) => Value::U32(number),
        (Value::F32(_), _) => Value::F32(FLOATS[rng.below(FLOATS.len())]),
        (Value::Bool(flag), _) => Value::Bool(!flag),
        (Value::Str(_), _) => TEXTS[rng.below(TEXTS.len())].into(),
        (Value::Strs(texts), _) => {
            let mut texts = texts.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(texts.len());
                texts[at] = match rng.below(4) {
                    0 => String::new(),
                    1 => texts[rng.below(texts.len())].clone(),
                    2 => "y".repeat(rng.below(9_000)),
                    _ => TEXTS[rng.below(TEXTS.len())].to_owned(),
                };
            }
            texts.truncate(texts.len() - rng.below(4) * rng.below(texts.len() / 4));
            Value::Strs(texts)
        }
        (Value::I32s(numbers), _) => {
            let mut numbers = numbers.clone();
            let at = rng.below(numbers.len());
            numbers[at] = rng.below(9) as i32 - 1;
            Value::I32s(numbers)
        }
        (Value::F32s(numbers), _) => Value::F32s(vec![FLOATS[rng.below(FLOATS.len())]; numbers.len()]),
        (other, _) => other.clone(),
    }
}
