//! Quantizes matrices in ggml's block formats. The scales are the plainest
//! that work: what matters to tests is which of ggml's kernels compute.

/// A block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// 32 elements, symmetric.
    Q4_0,
    /// 32 elements with an offset.
    Q4_1,
    /// 32 elements of 5 bits, symmetric.
    Q5_0,
    /// 32 elements of 8 bits.
    Q8_0,
    /// 256 elements in 8 groups.
    Q4K,
    /// 256 elements in 16 groups.
    Q6K,
}

impl Quant {
    /// All of them, with ggml's names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("Q4_0", Self::Q4_0),
        ("Q4_1", Self::Q4_1),
        ("Q5_0", Self::Q5_0),
        ("Q8_0", Self::Q8_0),
        ("Q4_K", Self::Q4K),
        ("Q6_K", Self::Q6K),
    ];

    /// The number of the ggml type.
    #[must_use]
    pub fn kind(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Elements of a block; a row has whole blocks.
    #[must_use]
    pub fn block(self) -> usize {
        if matches!(self, Self::Q4K | Self::Q6K) { 256 } else { 32 }
    }

    /// The bytes of rows whose values follow each other.
    ///
    /// # Panics
    ///
    /// If there are no whole blocks of them.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        assert_eq!(values.len() % self.block(), 0, "whole blocks of {}", self.block());
        let mut out = Vec::new();
        for block in values.chunks_exact(self.block()) {
            match self {
                Self::Q4_0 => q4_0(block, &mut out),
                Self::Q4_1 => q4_1(block, &mut out),
                Self::Q5_0 => q5_0(block, &mut out),
                Self::Q8_0 => q8_0(block, &mut out),
                Self::Q4K => q4_k(block, &mut out),
                Self::Q6K => q6_k(block, &mut out),
            }
        }
        out
    }
}

fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let scale = scale(block, 7.0, out);
    let levels = levels(block, scale, 8.0, 15.0);
    out.extend((0..16).map(|i| levels[i] | levels[i + 16] << 4));
}

fn q4_1(block: &[f32], out: &mut Vec<u8>) {
    let (min, max) = block.iter().fold((f32::MAX, f32::MIN), |(min, max), &v| (min.min(v), max.max(v)));
    let (scale, scale_bits) = half((max - min) / 15.0);
    let (min, min_bits) = half(min);
    out.extend(scale_bits);
    out.extend(min_bits);
    let levels = levels(block, scale, if scale == 0.0 { 0.0 } else { -min / scale }, 15.0);
    out.extend((0..16).map(|i| levels[i] | levels[i + 16] << 4));
}

fn q5_0(block: &[f32], out: &mut Vec<u8>) {
    let scale = scale(block, 15.0, out);
    let levels = levels(block, scale, 16.0, 31.0);
    let fifth_bits = levels.iter().enumerate().fold(0u32, |bits, (i, &level)| bits | u32::from(level >> 4) << i);
    out.extend(fifth_bits.to_le_bytes());
    out.extend((0..16).map(|i| levels[i] & 15 | (levels[i + 16] & 15) << 4));
}

fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let scale = scale(block, 127.0, out);
    // Two's complement.
    out.extend(levels(block, scale, 128.0, 255.0).iter().map(|level| level.wrapping_sub(128)));
}

/// Each group has a whole multiple of the block's scale, and 8 of it as its
/// offset, so that it is symmetric.
fn q4_k(block: &[f32], out: &mut Vec<u8>) {
    let groups: Vec<&[f32]> = block.chunks_exact(32).collect();
    let (scale, scale_bits) = half(largest(block) / 7.0 / 63.0);
    let (_, offset_bits) = half(8.0 * scale);
    out.extend(scale_bits);
    out.extend(offset_bits);
    let multiples: Vec<u8> = groups.iter().map(|group| multiple(largest(group) / 7.0, scale, 63.0)).collect();
    // Six bits each: the scales, then the offsets. Those of the last four
    // groups lie in four bits of their own and the two upper ones of the rest.
    let upper = |i: usize| multiples[i] | (multiples[i + 4] >> 4) << 6;
    out.extend((0..4).map(upper));
    out.extend((0..4).map(upper));
    out.extend((4..8).map(|i| multiples[i] & 15 | (multiples[i] & 15) << 4));
    for pair in 0..4 {
        let [low, high] =
            [2 * pair, 2 * pair + 1].map(|group| levels(groups[group], scale * f32::from(multiples[group]), 8.0, 15.0));
        out.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}

fn q6_k(block: &[f32], out: &mut Vec<u8>) {
    let (scale, scale_bits) = half(largest(block) / 31.0 / 127.0);
    let groups = block.chunks_exact(16);
    let multiples: Vec<u8> = groups.clone().map(|group| multiple(largest(group) / 31.0, scale, 127.0)).collect();
    let levels: Vec<u8> = groups
        .zip(&multiples)
        .flat_map(|(group, &multiple)| levels(group, scale * f32::from(multiple), 32.0, 63.0))
        .collect();
    for half in levels.chunks_exact(128) {
        out.extend((0..64).map(|i| half[i] & 15 | (half[i + 64] & 15) << 4));
    }
    for half in levels.chunks_exact(128) {
        out.extend((0..32).map(|i| (0..4).fold(0, |bits, part| bits | (half[i + 32 * part] >> 4) << (2 * part))));
    }
    out.extend(multiples);
    out.extend(scale_bits);
}

/// Writes the scale by which the largest element is `levels`, and gives it.
fn scale(block: &[f32], levels: f32, out: &mut Vec<u8>) -> f32 {
    let (scale, bits) = half(largest(block) / levels);
    out.extend(bits);
    scale
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

fn multiple(wanted: f32, scale: f32, most: f32) -> u8 {
    if scale == 0.0 { 0 } else { (wanted / scale).ceil().min(most) as u8 }
}

/// The elements in steps of `scale`, from `-zero` steps up.
fn levels(block: &[f32], scale: f32, zero: f32, most: f32) -> Vec<u8> {
    let level = |value: f32| {
        if scale == 0.0 {
            zero
        } else {
            (value / scale + zero).round().clamp(0.0, most)
        }
    };
    block.iter().map(|&value| level(value) as u8).collect()
}

/// The 16-bit float at or next below a value, as a float and as bytes. What is
/// too small for a normal one is zero.
fn half(value: f32) -> (f32, [u8; 2]) {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        return (0.0, [0, 0]);
    }
    assert!(exponent < 31, "{value} is too large for a 16-bit float");
    let sign = (bits >> 16 & 0x8000) as u16;
    let short = sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16;
    (f32::from_bits(bits & !0x1fff), short.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_block_has_the_size_that_ggml_gives_it() {
        let sizes = Quant::ALL.map(|(_, quant)| quant.encode(&vec![1.0; quant.block()]).len());
        assert_eq!(sizes, [18, 20, 22, 34, 144, 210]);
    }

    #[test]
    fn halves_are_those_of_the_standard() {
        assert_eq!(half(1.0), (1.0, 0x3c00_u16.to_le_bytes()));
        assert_eq!(half(-2.5), (-2.5, 0xc100_u16.to_le_bytes()));
        assert_eq!(half(1e-9).1, [0, 0]);
    }

    #[test]
    fn zeros_and_noise_are_encoded_alike_each_time() {
        let mut rng = Rng::new(1);
        let noise: Vec<f32> = (0..512).map(|_| rng.normal()).collect();
        for (name, quant) in Quant::ALL {
            assert_eq!(quant.encode(&noise), quant.encode(&noise), "{name}");
            assert!(!quant.encode(&vec![0.0; 256]).is_empty(), "{name}");
        }
    }
}
