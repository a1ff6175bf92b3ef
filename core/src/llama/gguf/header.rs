//! What the loader knows about a model before llama.cpp opens it.

use super::{arch, metadata::Metadata, tensors::Tensors};

/// Facts from a validated file, or from all files of a split model.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "a complete description; not every build reads all of it")]
pub(crate) struct Header {
    /// `general.architecture`, such as `llama`.
    pub(crate) architecture: String,
    /// `general.name`.
    pub(crate) name: Option<String>,
    /// Bytes of all files.
    pub(crate) file_size: u64,
    /// Tells this model from others of the same shape.
    pub(crate) fingerprint: [u8; 32],
    /// Bytes of all tensors.
    pub(crate) tensor_bytes: u64,
    /// 0 for a file with a vocabulary only, which `validate` refuses.
    pub(crate) n_tensors: usize,
    /// Elements of all tensors.
    pub(crate) n_params: u64,
    /// The tensor type that holds the most bytes, such as `Q4_1`.
    pub(crate) quantization: &'static str,
    /// Whether ggml's repacked kernels, where it has such for the tensors'
    /// types, are known to give a row the same results beside any others.
    pub(crate) repacks_evenly: bool,
    /// Whether a matrix is of floats: ggml multiplies those with one row in
    /// another order than with many.
    pub(crate) has_float_matrices: bool,
    pub(crate) n_vocab: u32,
    /// At least 1; includes those that only draft tokens.
    pub(crate) n_layer: u32,
    /// Layers at the end that only draft tokens.
    pub(crate) n_draft_layers: u32,
    /// At least 1.
    pub(crate) n_embd: u32,
    /// The context length of the training, at least 1.
    pub(crate) n_ctx_train: u32,
    /// Attention heads of each layer; 0 in layers without attention.
    pub(crate) n_head: Vec<u32>,
    /// Heads of keys and values of each layer.
    pub(crate) n_head_kv: Vec<u32>,
    /// Elements of one head's key. Quantized KV types need a multiple of 32.
    pub(crate) n_embd_head_k: u32,
    /// Elements of one head's value.
    pub(crate) n_embd_head_v: u32,
    /// Tokens that layers with a sliding window see, if there are such.
    pub(crate) sliding_window: Option<u32>,
    /// For each layer whether it has a sliding window; empty if none has.
    pub(crate) windowed_layers: Vec<bool>,
    /// For each layer whether it has a recurrent state instead of attention;
    /// empty if none has.
    pub(crate) recurrent_layers: Vec<bool>,
    /// Whether tokens only see those before them, as generating needs it.
    pub(crate) causal_attention: bool,
    /// Whether some layer keeps a recurrent state, of which no part can be
    /// dropped.
    pub(crate) recurrent: bool,
}

impl Header {
    /// All that does not depend on the checks of the sizes.
    pub(super) fn new(architecture: String, metadata: &Metadata, tensors: &Tensors) -> Self {
        Self {
            recurrent: arch::has_state(&architecture),
            // A name that can't be shown is none.
            name: metadata.text("general.name").ok().flatten().map(str::to_owned),
            architecture,
            file_size: 0,
            fingerprint: [0; 32],
            tensor_bytes: tensors.size(),
            n_tensors: tensors.len(),
            n_params: tensors.n_elements(),
            quantization: tensors.main_type(),
            has_float_matrices: tensors.has_float_matrices(),
            repacks_evenly: tensors.repack_evenly(),
            n_vocab: 0,
            n_layer: 0,
            n_draft_layers: 0,
            n_embd: 0,
            n_ctx_train: 0,
            n_head: Vec::new(),
            n_head_kv: Vec::new(),
            n_embd_head_k: 0,
            n_embd_head_v: 0,
            sliding_window: None,
            windowed_layers: Vec::new(),
            recurrent_layers: Vec::new(),
            causal_attention: true,
        }
    }

    /// Most rows that ggml may compute together for each to be what it is
    /// alone. From 8 rows on it multiplies matrices of K-quants and the like in
    /// tiles, which sum in another order.
    pub(crate) fn rows_at_once(&self) -> usize {
        if self.repacks_evenly { usize::MAX } else { 7 }
    }

    /// Bytes of KV cache that one token takes, over all layers. Layers with a
    /// sliding window count as the others, since a context keeps all of their
    /// tokens too (`swa_full`); the states of recurrent layers, which do not
    /// grow, do not count.
    pub(crate) fn kv_bytes_per_token(&self, bytes_k_per_elem: f64, bytes_v_per_elem: f64) -> u64 {
        self.kv_bytes(1, bytes_k_per_elem, bytes_v_per_elem)
    }

    /// Whether a KV cache is one block of the size that [`Self::kv_bytes`] says.
    /// Layers with a window have one of their own, and those with latent
    /// attention keep no values.
    pub(crate) fn has_one_cache(&self) -> bool {
        let is_latent = matches!(arch::key_heads(&self.architecture), Some(arch::KeyHeads::Latent));
        self.sliding_window.is_none() && !self.recurrent && !is_latent
    }

    /// Bytes of a KV cache of `n_cells`.
    pub(crate) fn kv_bytes(&self, n_cells: u64, bytes_k_per_elem: f64, bytes_v_per_elem: f64) -> u64 {
        let heads = n_cells as f64 * self.n_kv_heads() as f64;
        (heads * self.bytes_per_head(bytes_k_per_elem, bytes_v_per_elem)).ceil() as u64
    }

    fn bytes_per_head(&self, bytes_k_per_elem: f64, bytes_v_per_elem: f64) -> f64 {
        f64::from(self.n_embd_head_k) * bytes_k_per_elem + f64::from(self.n_embd_head_v) * bytes_v_per_elem
    }

    /// The key-value heads of all layers with attention.
    fn n_kv_heads(&self) -> u64 {
        let has_attention = |layer: usize| self.recurrent_layers.get(layer) != Some(&true);
        let layers = self.n_head_kv.iter().enumerate().filter(|(layer, _)| has_attention(*layer));
        layers.map(|(_, n_head_kv)| u64::from(*n_head_kv)).sum()
    }
}
