//! Owner of a `llama_model` with its vocabulary. Weights and vocabulary never
//! change after the load, so a `Model` is used from any thread.

use super::{
    backend, devices,
    gguf::{self, Header},
    logging,
    shim::{self, ErrorText},
};
use crate::{LayerPlacement, ModelInfo, MullamaError, TokenId};
use llama_cpp_sys_2 as sys;
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr::NonNull,
};

/// What `Model::load` needs besides the path.
pub(crate) struct LoadParams<'a> {
    pub(crate) gpu_layers: i32,
    pub(crate) use_mmap: bool,
    /// Whether a row's results must not depend on the rows beside it. Costs
    /// the quicker kernels of some tensor types.
    pub(crate) deterministic: bool,
    /// Is told what the file's head says, when the file is found to be whole and
    /// llama.cpp is there, before it loads.
    pub(crate) validated: &'a mut dyn FnMut(&Header),
    /// Gets the share loaded so far; `false` stops the load.
    pub(crate) progress: &'a mut dyn FnMut(f32) -> bool,
}

/// A loaded model.
pub(crate) struct Model {
    model: NonNull<sys::llama_model>,
    /// Owned by `model`; lives as long as it.
    vocab: NonNull<sys::llama_vocab>,
    header: Header,
    info: ModelInfo,
    metadata: BTreeMap<String, String>,
    placement: Vec<LayerPlacement>,
}

// SAFETY: llama.cpp does not tie a model to a thread.
unsafe impl Send for Model {}
// SAFETY: after the load nothing writes to model or vocabulary: every method
// that takes `&self` only reads, and contexts keep their own state.
unsafe impl Sync for Model {}

impl Model {
    /// Validates the file and loads it; blocks until done.
    ///
    /// # Errors
    /// `ModelNotFound`, `InvalidModel`, `Io`, `ModelLoad`, `OutOfMemory`,
    /// `Unsupported` (CPU), and `Cancelled` when `progress` said `false`.
    pub(crate) fn load(path: &Path, params: LoadParams<'_>) -> Result<Self, MullamaError> {
        let shown = path.display().to_string();
        let header = gguf::validate(path)?;
        backend::ensure_started()?;

        let invalid = |reason: &str| MullamaError::InvalidModel { path: shown.clone(), reason: reason.to_owned() };
        let c_path = path
            .to_str()
            .and_then(|path| CString::new(path).ok())
            .ok_or_else(|| invalid("llama.cpp opens only paths that are UTF-8 without zero bytes"))?;

        if !header.causal_attention {
            return Err(invalid(NO_GENERATION));
        }
        (params.validated)(&header);

        let mut progress = Progress { callback: params.progress, stopped: false };
        // SAFETY: a pure function.
        let mut raw = unsafe { sys::llama_model_default_params() };
        raw.n_gpu_layers = devices::usable_gpu_layers(params.gpu_layers)?;
        raw.load_mode = if params.use_mmap {
            sys::LLAMA_LOAD_MODE_MMAP
        } else {
            sys::LLAMA_LOAD_MODE_NONE
        };
        // Some repacked kernels sum a lone row in another order than many.
        raw.use_extra_bufts = !params.deterministic || header.repacks_evenly;
        raw.progress_callback = Some(on_progress);
        raw.progress_callback_user_data = (&raw mut progress).cast();

        logging::take_errors();
        logging::take_placement();
        let mut model = std::ptr::null_mut();
        let mut error = ErrorText::new();
        // SAFETY: the path ends in a zero byte, all pointers outlive the call,
        // and the callback gets the `Progress` it expects.
        let status = unsafe {
            shim::mullama_model_load(c_path.as_ptr(), &raw const raw, &raw mut model, error.as_mut_ptr(), error.size())
        };
        let placement = logging::take_placement();
        let reason = [error.text(), logging::take_errors()].into_iter().find(|text| !text.is_empty());
        if status != shim::OK {
            if progress.stopped {
                return Err(MullamaError::Cancelled);
            }
            let reason = reason.unwrap_or_else(|| "it gave no reason".to_owned());
            return Err(if status == shim::BAD_ALLOC {
                MullamaError::OutOfMemory(format!("loading '{shown}' failed: {reason}"))
            } else {
                MullamaError::ModelLoad { path: shown, reason }
            });
        }
        let model = NonNull::new(model)
            .ok_or_else(|| MullamaError::Internal("a load without status gave no model".to_owned()))?;
        // SAFETY: `model` was just loaded; the vocabulary lives inside it.
        let vocab = unsafe { sys::llama_model_get_vocab(model.as_ptr()) };
        let vocab = NonNull::new(vocab.cast_mut())
            .ok_or_else(|| MullamaError::Internal("the model has no vocabulary".to_owned()))?;

        let mut model = Self { model, vocab, header, info: EMPTY_INFO, metadata: BTreeMap::new(), placement };
        model.metadata = model.read_metadata();
        model.info = model.read_info(path);
        model.check_kind(&invalid)?;
        Ok(model)
    }

    pub(crate) fn info(&self) -> &ModelInfo {
        &self.info
    }

    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where llama.cpp put the layers.
    pub(crate) fn placement(&self) -> &[LayerPlacement] {
        &self.placement
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn n_vocab(&self) -> usize {
        self.info.n_vocab
    }

    /// The beginning-of-sequence token, if the vocabulary has one.
    pub(crate) fn bos(&self) -> Option<TokenId> {
        // SAFETY: `vocab` is live.
        let token = unsafe { sys::llama_vocab_bos(self.vocab.as_ptr()) };
        self.contains(token).then_some(token)
    }

    /// Whether `token` ends a generation. `false` for ids out of range.
    pub(crate) fn is_eog(&self, token: TokenId) -> bool {
        // SAFETY: `vocab` is live and `token` was checked just before.
        self.contains(token) && unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }

    /// All tokens that end a generation.
    pub(crate) fn eog_tokens(&self) -> Vec<TokenId> {
        let n = TokenId::try_from(self.n_vocab()).unwrap_or(TokenId::MAX);
        (0..n).filter(|&token| self.is_eog(token)).collect()
    }

    fn contains(&self, token: TokenId) -> bool {
        usize::try_from(token).is_ok_and(|id| id < self.n_vocab())
    }

    /// Turns text into tokens. `add_bos` adds the special tokens that the
    /// model asks for; `parse_special` reads texts like `<|im_start|>` as the
    /// tokens they name.
    pub(crate) fn tokenize(
        &self,
        text: &str,
        add_bos: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, MullamaError> {
        let stack = tokenizer_stack(text);
        if stack <= SMALL_STACK {
            return self.tokenize_here(text, add_bos, parse_special);
        }
        if stack > MAX_STACK {
            let most = MAX_STACK / STACK_OF_CHAR;
            return Err(MullamaError::Tokenization(format!("more than {most} characters in a row without a break")));
        }
        std::thread::scope(|scope| {
            let work = || self.tokenize_here(text, add_bos, parse_special);
            let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, work);
            let thread = thread.map_err(|error| MullamaError::Tokenization(format!("no thread for it: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(MullamaError::Internal("the tokenizer panicked".to_owned())))
        })
    }

    fn tokenize_here(&self, text: &str, add_bos: bool, parse_special: bool) -> Result<Vec<TokenId>, MullamaError> {
        let too_long = || MullamaError::Tokenization(format!("a text of {} bytes is too long", text.len()));
        let text_size = i32::try_from(text.len()).map_err(|_| too_long())?;
        // A guess that nearly always fits; the second round has the exact size.
        let mut tokens: Vec<TokenId> = vec![0; text.len() / 2 + 16];
        for _ in 0..2 {
            let room = i32::try_from(tokens.len()).map_err(|_| too_long())?;
            let mut status = shim::OK;
            let mut error = ErrorText::new();
            // SAFETY: `vocab` is live; the text pointer and the token buffer
            // are valid for the lengths given.
            let n = unsafe {
                shim::mullama_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast(),
                    text_size,
                    tokens.as_mut_ptr(),
                    room,
                    add_bos,
                    parse_special,
                    &raw mut status,
                    error.as_mut_ptr(),
                    error.size(),
                )
            };
            if status != shim::OK {
                return Err(MullamaError::Tokenization(error.text()));
            }
            if n == i32::MIN {
                return Err(too_long());
            }
            if let Ok(n) = usize::try_from(n) {
                tokens.truncate(n);
                // A vocabulary without a token for unknown text gives -1.
                if tokens.iter().any(|&token| !self.contains(token)) {
                    let reason = "the model's vocabulary has no token for a part of the text";
                    return Err(MullamaError::Tokenization(reason.to_owned()));
                }
                return Ok(tokens);
            }
            tokens.resize(n.unsigned_abs() as usize, 0);
        }
        Err(MullamaError::Internal("the tokenizer asked for more room twice".to_owned()))
    }

    /// Appends the bytes of a token to `bytes`. Control tokens have none
    /// unless `special` asks for their names.
    ///
    /// # Errors
    /// `InvalidInput` for an id that is not in the vocabulary.
    pub(crate) fn append_piece(&self, token: TokenId, special: bool, bytes: &mut Vec<u8>) -> Result<(), MullamaError> {
        if !self.contains(token) {
            let reason = format!("token ids go from 0 to {}", self.n_vocab() - 1);
            return Err(MullamaError::invalid("tokens", token, reason));
        }
        let start = bytes.len();
        let mut room = 32_usize;
        for _ in 0..2 {
            bytes.resize(start + room, 0);
            let mut status = shim::OK;
            // SAFETY: `vocab` is live, `token` is in range, and `room` bytes
            // are free behind `start`.
            let n = unsafe {
                shim::mullama_token_to_piece(
                    self.vocab.as_ptr(),
                    token,
                    bytes[start..].as_mut_ptr().cast(),
                    i32::try_from(room).unwrap_or(i32::MAX),
                    special,
                    &raw mut status,
                )
            };
            if status != shim::OK {
                bytes.truncate(start);
                return Err(MullamaError::Tokenization(format!("token {token} has no text")));
            }
            if let Ok(n) = usize::try_from(n) {
                bytes.truncate(start + n);
                return Ok(());
            }
            room = n.unsigned_abs() as usize;
        }
        bytes.truncate(start);
        Err(MullamaError::Internal("a token asked for more room twice".to_owned()))
    }

    /// Turns tokens into text; bytes that are no valid UTF-8 become U+FFFD.
    pub(crate) fn detokenize(&self, tokens: &[TokenId]) -> Result<String, MullamaError> {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        for &token in tokens {
            self.append_piece(token, true, &mut bytes)?;
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    /// Refuses models that load but can't generate text one token at a time.
    fn check_kind(&self, invalid: &impl Fn(&str) -> MullamaError) -> Result<(), MullamaError> {
        // SAFETY: `model` is live.
        let has_encoder = unsafe { sys::llama_model_has_encoder(self.as_ptr()) };
        // SAFETY: `model` is live.
        let has_decoder = unsafe { sys::llama_model_has_decoder(self.as_ptr()) };
        // SAFETY: `model` is live.
        let diffusion = unsafe { sys::llama_model_is_diffusion(self.as_ptr()) };
        if has_encoder || !has_decoder {
            return Err(invalid("encoder-decoder models are not supported; use a decoder-only model"));
        }
        if diffusion {
            return Err(invalid(NO_GENERATION));
        }
        if self.n_vocab() == 0 {
            return Err(invalid("the vocabulary is empty"));
        }
        Ok(())
    }

    fn read_metadata(&self) -> BTreeMap<String, String> {
        // SAFETY: `model` is live.
        let count = unsafe { sys::llama_model_meta_count(self.as_ptr()) };
        (0..count)
            .filter_map(|index| {
                // SAFETY: `index` is in range; the buffer is valid for its length.
                let key = read_text(|buffer, size| unsafe {
                    sys::llama_model_meta_key_by_index(self.as_ptr(), index, buffer, size)
                })?;
                // SAFETY: likewise.
                let value = read_text(|buffer, size| unsafe {
                    sys::llama_model_meta_val_str_by_index(self.as_ptr(), index, buffer, size)
                })?;
                Some((key, value))
            })
            .collect()
    }

    fn read_info(&self, path: &Path) -> ModelInfo {
        let meta = |key: &str| self.metadata.get(key).filter(|value| !value.is_empty()).cloned();
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let count = |n: i32| usize::try_from(n).unwrap_or(0);
        let model = self.as_ptr();
        ModelInfo {
            name: meta("general.name").unwrap_or_else(stem),
            architecture: meta("general.architecture").unwrap_or_default(),
            // SAFETY: `model` is live; so for all below.
            n_params: unsafe { sys::llama_model_n_params(model) },
            // SAFETY: `vocab` is live.
            n_vocab: count(unsafe { sys::llama_vocab_n_tokens(self.vocab.as_ptr()) }),
            // SAFETY: `model` is live.
            n_embd: count(unsafe { sys::llama_model_n_embd(model) }),
            // SAFETY: `model` is live.
            n_layer: count(unsafe { sys::llama_model_n_layer(model) }),
            // SAFETY: `model` is live.
            n_head: count(unsafe { sys::llama_model_n_head(model) }),
            // SAFETY: `model` is live.
            n_ctx_train: count(unsafe { sys::llama_model_n_ctx_train(model) }),
            // SAFETY: `model` is live.
            size_bytes: unsafe { sys::llama_model_size(model) },
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the model is live, and every `Context` over it holds an
        // `Arc` of this `Model`, so none is left.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}

const NO_GENERATION: &str = "the model does not generate text token by token (an embedding or diffusion model)";

const EMPTY_INFO: ModelInfo = ModelInfo {
    name: String::new(),
    architecture: String::new(),
    n_params: 0,
    n_vocab: 0,
    n_embd: 0,
    n_layer: 0,
    n_head: 0,
    n_ctx_train: 0,
    size_bytes: 0,
};

/// llama.cpp splits text by `std::regex` for many vocabularies, which calls
/// itself for each character of a match. Its frames were seen to take some
/// 320 bytes a character (8 MiB for 26,000); this leaves room.
const STACK_OF_CHAR: usize = 1024;

/// What the calling thread can surely spare: the smallest usual stack is 2 MiB.
const SMALL_STACK: usize = 1 << 20;

/// Most address space for a tokenizer's stack; memory is used as it is touched.
const MAX_STACK: usize = 1 << 32;

/// Stack that the tokenizer may need: a match is at most a run of characters
/// of one kind.
fn tokenizer_stack(text: &str) -> usize {
    let kind = |c: char| (c.is_alphabetic(), c.is_numeric(), c.is_whitespace());
    let (mut longest, mut run, mut last) = (0, 0, None);
    for c in text.chars() {
        run = if last == Some(kind(c)) { run + 1 } else { 1 };
        last = Some(kind(c));
        longest = longest.max(run);
    }
    (longest + 64) * STACK_OF_CHAR
}

/// Calls a llama.cpp function that writes a text like `snprintf`, with more
/// room if the first was too small.
fn read_text(read: impl Fn(*mut c_char, usize) -> i32) -> Option<String> {
    let mut buffer = vec![0_u8; 256];
    let needed = usize::try_from(read(buffer.as_mut_ptr().cast(), buffer.len())).ok()?;
    if needed >= buffer.len() {
        buffer.resize(needed + 1, 0);
        read(buffer.as_mut_ptr().cast(), buffer.len());
    }
    let text = CStr::from_bytes_until_nul(&buffer).ok()?;
    Some(text.to_string_lossy().into_owned())
}

struct Progress<'a> {
    callback: &'a mut dyn FnMut(f32) -> bool,
    /// Whether the callback asked to stop (or panicked, which counts as that).
    stopped: bool,
}

unsafe extern "C" fn on_progress(share: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Progress` that `Model::load` passed; it outlives
    // the load and llama.cpp calls back on the loading thread alone.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    let go_on = catch_unwind(AssertUnwindSafe(|| (progress.callback)(share))).unwrap_or(false);
    progress.stopped |= !go_on;
    go_on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_runs_need_a_larger_stack() {
        assert!(tokenizer_stack(&"a few words 12 ".repeat(10_000)) <= SMALL_STACK);
        assert!(tokenizer_stack(&"a".repeat(5_000)) > 5_000 * 320);
        assert!(tokenizer_stack(&" ".repeat(5_000)) > SMALL_STACK);
    }
}
