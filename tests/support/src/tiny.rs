//! Builders of tiny models with random weights.

use crate::gguf::{File, Tensor};
use crate::quantize::Quant;
use crate::rng::Rng;
use crate::vocab;
use std::io;
use std::path::Path;

/// The architectures that tiny models come in, one for each kind of memory
/// that llama.cpp has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `llama`: plain attention over the whole context.
    Llama,
    /// `gemma3`: every second layer only sees the last tokens.
    SlidingWindow,
    /// `mamba`: a state of fixed size and no attention.
    Recurrent,
}

impl Kind {
    /// All kinds, with the names that the `tiny-model` binary takes.
    pub const ALL: [(&'static str, Self); 3] =
        [("llama", Self::Llama), ("sliding-window", Self::SlidingWindow), ("recurrent", Self::Recurrent)];

    fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::SlidingWindow => "gemma3",
            Self::Recurrent => "mamba",
        }
    }
}

/// A tiny model. The same settings and seed give the same bytes.
///
/// Its text is nonsense, but not noise: unless told otherwise it prints words
/// only and never ends by itself, since the tokens that end a generation, the
/// byte tokens and `<unk>` are all but impossible. A logit bias beyond
/// +100 brings any of them out.
///
/// ```no_run
/// use mullama_test_support::TinyModel;
/// TinyModel::llama().seed(1).n_layer(3).write_to("tiny.gguf").unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct TinyModel {
    kind: Kind,
    seed: u64,
    n_layer: u32,
    n_embd: u32,
    n_head: u32,
    n_head_kv: u32,
    n_ff: u32,
    n_vocab: u32,
    n_ctx_train: u32,
    n_window: u32,
    chat_template: Option<String>,
    token_bias: Vec<(i32, f32)>,
    quants: Option<(Quant, Quant)>,
}

/// About what a hidden state's first element is after the last norm. See
/// [`TinyModel::output_weights`].
const ANCHOR: f32 = 6.0;

impl TinyModel {
    /// A model of that kind with 2 layers of 64 and 512 tokens.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            seed: 0,
            n_layer: 2,
            n_embd: 64,
            n_head: 4,
            n_head_kv: 2,
            n_ff: 128,
            n_vocab: vocab::DEFAULT_SIZE,
            n_ctx_train: 4096,
            n_window: 64,
            chat_template: Some(vocab::CHAT_TEMPLATE.to_owned()),
            token_bias: Vec::new(),
            quants: None,
        }
    }

    /// Plain attention.
    #[must_use]
    pub fn llama() -> Self {
        Self::new(Kind::Llama)
    }

    /// Sliding-window attention in every second layer.
    #[must_use]
    pub fn sliding_window() -> Self {
        Self::new(Kind::SlidingWindow)
    }

    /// A recurrent state.
    #[must_use]
    pub fn recurrent() -> Self {
        Self::new(Kind::Recurrent)
    }

    /// The seed of all weights.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The number of layers.
    #[must_use]
    pub fn n_layer(mut self, n_layer: u32) -> Self {
        self.n_layer = n_layer;
        self
    }

    /// The width, a multiple of twice the number of heads.
    #[must_use]
    pub fn n_embd(mut self, n_embd: u32) -> Self {
        self.n_embd = n_embd;
        self
    }

    /// The attention heads, and those of them that keys and values have.
    #[must_use]
    pub fn n_head(mut self, n_head: u32, n_head_kv: u32) -> Self {
        self.n_head = n_head;
        self.n_head_kv = n_head_kv;
        self
    }

    /// The width between the feed-forward matrices.
    #[must_use]
    pub fn n_ff(mut self, n_ff: u32) -> Self {
        self.n_ff = n_ff;
        self
    }

    /// The number of tokens, at least 262.
    #[must_use]
    pub fn n_vocab(mut self, n_vocab: u32) -> Self {
        self.n_vocab = n_vocab;
        self
    }

    /// The context length that the model claims to be trained for.
    #[must_use]
    pub fn n_ctx_train(mut self, n_ctx_train: u32) -> Self {
        self.n_ctx_train = n_ctx_train;
        self
    }

    /// How far back the sliding-window layers see.
    #[must_use]
    pub fn n_window(mut self, n_window: u32) -> Self {
        self.n_window = n_window;
        self
    }

    /// Another chat template, or none.
    #[must_use]
    pub fn chat_template(mut self, template: Option<&str>) -> Self {
        self.chat_template = template.map(str::to_owned);
        self
    }

    /// Makes a token likelier or less likely by about this many logits,
    /// whatever the context. Bias 0 for [`vocab::EOS`] makes it an ordinary
    /// token, which ends a sampled text after some hundred tokens.
    #[must_use]
    pub fn token_bias(mut self, token: i32, bias: f32) -> Self {
        self.token_bias.push((token, bias));
        self
    }

    /// Quantizes all matrices, the last one with `output`. Rows must have
    /// whole blocks of both.
    #[must_use]
    pub fn quantized(mut self, quant: Quant, output: Quant) -> Self {
        self.quants = Some((quant, output));
        self
    }

    /// Builds the model and writes it.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.build().write_to(path)
    }

    /// Builds the model in memory, for tests that alter it.
    #[must_use]
    pub fn build(&self) -> File {
        let mut file = File::default();
        let arch = self.kind.architecture();
        file.set("general.architecture", arch);
        file.set("general.type", "model");
        file.set("general.name", format!("Tiny {arch}").as_str());
        file.set("general.file_type", 0u32);
        let mut set = |key: &str, value: u32| {
            file.set(&format!("{arch}.{key}"), value);
        };
        set("context_length", self.n_ctx_train);
        set("embedding_length", self.n_embd);
        set("block_count", self.n_layer);
        set("vocab_size", self.n_vocab);
        if self.kind == Kind::Recurrent {
            set("feed_forward_length", 0);
            set("attention.head_count", 0);
            set("ssm.conv_kernel", D_CONV);
            set("ssm.inner_size", 2 * self.n_embd);
            set("ssm.state_size", D_STATE);
            set("ssm.time_step_rank", self.dt_rank());
        } else {
            set("feed_forward_length", self.n_ff);
            set("attention.head_count", self.n_head);
            set("attention.head_count_kv", self.n_head_kv);
            set("rope.dimension_count", self.n_embd / self.n_head);
        }
        if self.kind == Kind::SlidingWindow {
            set("attention.key_length", self.n_embd / self.n_head);
            set("attention.value_length", self.n_embd / self.n_head);
            set("attention.sliding_window", self.n_window);
            set("attention.sliding_window_pattern", 2);
        }
        file.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5f32);
        vocab::describe(&mut file, self.n_vocab);
        if let Some(template) = &self.chat_template {
            file.set("tokenizer.chat_template", template.as_str());
        }
        self.add_tensors(&mut file);
        if let Some((quant, output)) = self.quants {
            for tensor in file.tensors.iter_mut().filter(|tensor| tensor.dims.len() > 1) {
                tensor.quantize(if tensor.name == "output.weight" { output } else { quant });
            }
        }
        file
    }

    /// gemma3 multiplies embeddings by the root of the width, so that they end
    /// up with deviation 1 as the others have.
    fn embedding_deviation(&self) -> f32 {
        if self.kind == Kind::SlidingWindow {
            1.0 / (self.n_embd as f32).sqrt()
        } else {
            1.0
        }
    }

    fn dt_rank(&self) -> u32 {
        self.n_embd.div_ceil(16)
    }

    fn add_tensors(&self, file: &mut File) {
        let mut weights = Weights { rng: Rng::new(self.seed), file };
        let (n_embd, n_vocab) = (u64::from(self.n_embd), u64::from(self.n_vocab));

        let deviation = self.embedding_deviation();
        weights.add("token_embd.weight".to_owned(), &[n_embd, n_vocab], |rng, column, _| {
            deviation * if column == 0 { 16.0 } else { rng.normal() }
        });
        self.output_weights(&mut weights);
        weights.ones("output_norm.weight", n_embd);
        for layer in 0..self.n_layer {
            match self.kind {
                Kind::Recurrent => self.recurrent_layer(&mut weights, layer),
                _ => self.attention_layer(&mut weights, layer),
            }
        }
    }

    /// The last matrix. Embeddings have a constant in their first element that
    /// no layer writes to, so the first column of this matrix works as a bias
    /// of each token, which these architectures do not have by themselves.
    ///
    /// A row also holds a share of the token's own embedding with the sign
    /// turned, so that no token follows itself: the text of random weights
    /// would soon repeat one word forever, whatever the prompt.
    fn output_weights(&self, weights: &mut Weights<'_>) {
        let n_embd = self.n_embd as usize;
        let mut bias = vec![0.0f32; self.n_vocab as usize];
        bias[..vocab::FIRST_TEXT as usize].fill(-40.0);
        for (token, value) in &self.token_bias {
            bias[*token as usize] = *value;
        }
        let deviation = 3.0 / (n_embd as f32).sqrt();
        let dims = [u64::from(self.n_embd), u64::from(self.n_vocab)];
        let embeddings = weights.values_of("token_embd.weight");
        let turned = -0.5 * deviation / self.embedding_deviation();
        weights.add("output.weight".to_owned(), &dims, |rng, column, row| {
            if column == 0 {
                bias[row] / ANCHOR
            } else {
                deviation * rng.normal() + turned * embeddings[row * n_embd + column]
            }
        });
    }

    fn attention_layer(&self, weights: &mut Weights<'_>, layer: u32) {
        let n_embd = u64::from(self.n_embd);
        let n_embd_kv = n_embd / u64::from(self.n_head) * u64::from(self.n_head_kv);
        let n_ff = u64::from(self.n_ff);
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        weights.input_norm(name("attn_norm"), n_embd);
        // Twice the usual, so that a head attends to few tokens and does not
        // average the context away.
        weights.gained_matrix(2.0, name("attn_q"), n_embd, n_embd);
        weights.gained_matrix(2.0, name("attn_k"), n_embd, n_embd_kv);
        weights.matrix(name("attn_v"), n_embd, n_embd_kv);
        weights.residual_matrix(name("attn_output"), n_embd, n_embd);
        weights.input_norm(name("ffn_norm"), n_embd);
        weights.matrix(name("ffn_gate"), n_embd, n_ff);
        weights.matrix(name("ffn_up"), n_embd, n_ff);
        weights.residual_matrix(name("ffn_down"), n_ff, n_embd);
        if self.kind == Kind::SlidingWindow {
            let n_head = n_embd / u64::from(self.n_head);
            weights.ones(&name("attn_q_norm"), n_head);
            weights.ones(&name("attn_k_norm"), n_head);
            weights.ones(&name("post_attention_norm"), n_embd);
            weights.ones(&name("post_ffw_norm"), n_embd);
        }
    }

    fn recurrent_layer(&self, weights: &mut Weights<'_>, layer: u32) {
        let n_embd = u64::from(self.n_embd);
        let (d_inner, dt_rank) = (2 * n_embd, u64::from(self.dt_rank()));
        let (d_conv, d_state) = (u64::from(D_CONV), u64::from(D_STATE));
        let name = |part: &str| format!("blk.{layer}.{part}");
        weights.input_norm(name("attn_norm.weight"), n_embd);
        weights.matrix(name("ssm_in.weight"), n_embd, 2 * d_inner);
        weights.matrix(name("ssm_conv1d.weight"), d_conv, d_inner);
        weights.add(name("ssm_conv1d.bias"), &[d_inner], |_, _, _| 0.0);
        weights.matrix(name("ssm_x.weight"), d_inner, dt_rank + 2 * d_state);
        weights.matrix(name("ssm_dt.weight"), dt_rank, d_inner);
        weights.add(name("ssm_dt.bias"), &[d_inner], |_, _, _| -2.0);
        // Negative, so that the state decays: faster in the later elements.
        weights.add(name("ssm_a"), &[d_state, d_inner], |_, column, _| -(column as f32 + 1.0));
        weights.ones(&name("ssm_d"), d_inner);
        weights.residual_matrix(name("ssm_out.weight"), d_inner, n_embd);
    }
}

const RESIDUAL_GAIN: f32 = 3.0;
const D_CONV: u32 = 4;
const D_STATE: u32 = 16;

struct Weights<'a> {
    rng: Rng,
    file: &'a mut File,
}

impl Weights<'_> {
    /// Adds a tensor; the closure gets the column and the row.
    fn add(&mut self, name: String, dims: &[u64], value: impl Fn(&mut Rng, usize, usize) -> f32) {
        let columns = dims[0] as usize;
        let rows = dims[1..].iter().product::<u64>() as usize;
        let mut values = Vec::with_capacity(columns * rows);
        for row in 0..rows {
            for column in 0..columns {
                values.push(value(&mut self.rng, column, row));
            }
        }
        self.file.tensors.push(Tensor::f32(name, dims, &values));
    }

    fn ones(&mut self, name: &str, len: u64) {
        self.add(name.to_owned(), &[len], |_, _, _| 1.0);
    }

    /// The norm before a block. It hides the constant first element, which
    /// would outweigh all that differs between tokens.
    fn input_norm(&mut self, name: String, len: u64) {
        self.add(name, &[len], |_, column, _| if column == 0 { 0.0 } else { 1.0 });
    }

    /// A matrix that keeps the deviation of what it multiplies.
    fn matrix(&mut self, name: String, columns: u64, rows: u64) {
        self.gained_matrix(1.0, name, columns, rows);
    }

    fn gained_matrix(&mut self, gain: f32, name: String, columns: u64, rows: u64) {
        let deviation = gain / (columns as f32).sqrt();
        self.add(name, &[columns, rows], |rng, _, _| deviation * rng.normal());
    }

    /// A matrix whose result is added to the hidden state. Its first row is
    /// zero, so that the first element stays as the embedding set it. The gain
    /// lets the context weigh more than the last token.
    fn residual_matrix(&mut self, name: String, columns: u64, rows: u64) {
        let deviation = RESIDUAL_GAIN / (columns as f32).sqrt();
        self.add(name, &[columns, rows], |rng, _, row| if row == 0 { 0.0 } else { deviation * rng.normal() });
    }

    fn values_of(&self, name: &str) -> Vec<f32> {
        self.file.tensors.iter().find(|tensor| tensor.name == name).expect("it was added before").values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let bytes = |seed| TinyModel::llama().seed(seed).build().to_bytes();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
