//! What is known about architectures by name. One that is not listed here is
//! held to the common rules alone.

use super::{
    fault::{Result, refuse},
    metadata::Metadata,
};

/// Checks what the file is for, and gives the architecture.
pub(super) fn check(metadata: &Metadata) -> Result<String> {
    // Adapters and projectors have the architecture of the model they are for.
    match metadata.text("general.type")? {
        None | Some("model" | "") => {}
        Some("adapter") => return refuse("it is a LoRA adapter, not a model; load the model that it was made for"),
        Some("mmproj") => return refuse("it is a multimodal projector, not a language model"),
        Some(other) => return refuse(format!("'general.type' is '{other}', but must be 'model'")),
    }
    let Some(architecture) = metadata.text("general.architecture")? else {
        return refuse("the key 'general.architecture' is missing");
    };
    let why = match architecture {
        "clip" => "it is an image encoder",
        "wavtokenizer-dec" | "qwen3tts" | "pockettts" => "it makes sound",
        "eagle3" | "dflash" | "gemma4-assistant" => "it only drafts tokens for another model",
        "clef" => "it takes decisions",
        _ => return Ok(architecture.to_owned()),
    };
    refuse(format!("models of the architecture '{architecture}' can't generate text: {why}"))
}

/// Whether it is in a list with spaces between the names.
fn is_one_of(architecture: &str, names: &str) -> bool {
    names.split(' ').any(|name| name == architecture)
}

/// Whether no layer has attention.
pub(super) fn is_recurrent(architecture: &str) -> bool {
    matches!(architecture, "mamba" | "mamba2" | "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7")
}

/// How a hybrid architecture tells its layers with a recurrent state from
/// those with attention.
#[derive(Clone, Copy)]
pub(super) enum Hybrid {
    /// The former have no key-value heads.
    ByHeads,
    /// Likewise, but layers with a feed-forward width are neither.
    ByHeadsAndFeedForward,
    /// Every n-th layer has attention.
    ByInterval(u32),
    /// All layers have both.
    Both,
}

impl Hybrid {
    /// The key that decides it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::ByInterval(_) => "full_attention_interval",
            _ => "attention.head_count_kv",
        }
    }
}

pub(super) fn hybrid(architecture: &str) -> Option<Hybrid> {
    match architecture {
        "bailingmoe3" | "glm5-next" | "granitehybrid" | "jamba" | "kimi-k3" | "kimi-linear" | "lfm2" | "lfm2moe"
        | "plamo2" => Some(Hybrid::ByHeads),
        "nemotron_h" | "nemotron_h_moe" => Some(Hybrid::ByHeadsAndFeedForward),
        "qwen3next" | "qwen35" | "qwen35moe" | "qwen4exp" => Some(Hybrid::ByInterval(4)),
        "minimax-01" => Some(Hybrid::ByInterval(8)),
        "falcon-h1" => Some(Hybrid::Both),
        _ => None,
    }
}

/// Whether some layers keep a state of which no part can be dropped.
pub(super) fn has_state(architecture: &str) -> bool {
    is_recurrent(architecture) || hybrid(architecture).is_some() || architecture == "deepseek4"
}

/// Whether a layer may be without attention heads.
pub(super) fn may_lack_heads(architecture: &str) -> bool {
    has_state(architecture) || architecture == "deci"
}

/// Whether single layers may be without experts where others have them.
pub(super) fn may_lack_experts(architecture: &str) -> bool {
    matches!(hybrid(architecture), Some(Hybrid::ByHeadsAndFeedForward))
}

/// They have no default for how experts are chosen.
pub(super) fn needs_gating(architecture: &str) -> bool {
    matches!(architecture, "dots1" | "hy_v4" | "minimax-m2" | "smallthinker")
}

/// How many token shifts a layer must have.
pub(super) fn token_shifts(architecture: &str) -> Option<u32> {
    match architecture {
        "rwkv6" | "rwkv7" => Some(2),
        "rwkv6qwen2" | "arwkv7" => Some(1),
        _ => None,
    }
}

/// Whether positions may rotate nothing. Elsewhere ggml would never end.
pub(super) fn may_skip_rotation(architecture: &str) -> bool {
    match hybrid(architecture) {
        Some(Hybrid::ByHeads) => !matches!(architecture, "granitehybrid" | "lfm2" | "lfm2moe" | "plamo2"),
        Some(Hybrid::ByHeadsAndFeedForward) => true,
        _ => false,
    }
}

/// How the heads of keys must fit those of queries, besides dividing them.
pub(super) enum KeyHeads {
    /// As many of both.
    All,
    /// Latent attention: one head with the latent part and the rotated one, if
    /// the file names the size of the heads that it stands for; else as many
    /// as of queries.
    Latent,
    /// Queries are as wide as the model.
    ModelWidth,
}

pub(super) fn key_heads(architecture: &str) -> Option<KeyHeads> {
    match architecture {
        "minicpm3" | "plm" | "dots1" => Some(KeyHeads::All),
        "deepseek2" | "deepseek32" | "glm-dsa" | "hy_v4" | "mistral4" => Some(KeyHeads::Latent),
        "jamba" => Some(KeyHeads::ModelWidth),
        _ => None,
    }
}

/// The inner size of their recurrent layers is asserted to be twice the width.
pub(super) fn needs_double_width(architecture: &str) -> bool {
    matches!(architecture, "jamba" | "granitehybrid")
}

/// Whether layers with a window may have heads of another size.
pub(super) fn has_own_window_heads(architecture: &str) -> bool {
    match window(architecture) {
        Some(_) => matches!(architecture, "gemma4" | "laguna" | "mimo2" | "step35"),
        None => true,
    }
}

/// What recurrent layers are made of, as far as their sizes must fit.
pub(super) enum Mixer {
    /// Heads and groups divide the inner size.
    Mamba2,
    /// Likewise, without groups.
    Plamo2,
    /// Each head has the size of a state.
    DeltaNet,
}

pub(super) fn mixer(architecture: &str) -> Option<Mixer> {
    match architecture {
        "mamba2" | "granitehybrid" | "nemotron_h" | "nemotron_h_moe" | "falcon-h1" => Some(Mixer::Mamba2),
        "plamo2" => Some(Mixer::Plamo2),
        "qwen3next" | "qwen35" | "qwen35moe" | "qwen4exp" => Some(Mixer::DeltaNet),
        _ => None,
    }
}

/// Encoders and diffusion models, which have no cache to generate from.
pub(super) fn sees_all_tokens(architecture: &str) -> bool {
    const ALL: &str = "bert dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe llama-embed modern-bert \
        neo-bert nomic-bert nomic-bert-moe rnd1";
    is_one_of(architecture, ALL)
}

/// Some of a key must be left that is not rotated.
pub(super) fn rotates_a_part(architecture: &str) -> bool {
    matches!(
        architecture,
        "deepseek2"
            | "deepseek32"
            | "dots3note"
            | "glm-dsa"
            | "glm5-next"
            | "hy_v4"
            | "kimi-k3"
            | "kimi-linear"
            | "mistral4"
    )
}

/// llama.cpp aborts if it has prepared something for every fourth layer and
/// there is none.
pub(super) fn least_layers(architecture: &str) -> u32 {
    if architecture == "llama4" { 4 } else { 1 }
}

/// Their graphs assert that keys and values are of the same size.
pub(super) fn needs_equal_heads(architecture: &str) -> bool {
    const EQUAL: &str = "bailingmoe afmoe apertus arcee arctic baichuan bailingmoe2 bert bitnet bloom chameleon chatglm codeshell cogvlm \
        cohere2 cohere2moe command-r dbrx deci deepseek dots1 dream ernie4_5 ernie4_5-moe eurobert exaone \
        exaone-moe exaone4 falcon gemma3n gemma4 glm4 glm4moe gpt-oss gpt2 gptneox granite granite_swa \
        granitehybrid granitemoe graniteswitch grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 \
        internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3 laguna lfm2 lfm2moe llada llada-moe llama llama- \
        embed llama4 maincoder maple mellum minicpm minimax-01 minimax-m2 minimax-m3 mistral3 modern-bert mpt \
        muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe neo-bert nomic-bert nomic-bert-moe olmo olmo2 \
        olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo qwen qwen2 qwen2moe qwen2vl qwen3 \
        qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker \
        smollm3 spark2_5 stablelm starcoder starcoder2 t5 t5encoder talkie xverse";
    is_one_of(architecture, EQUAL)
}

/// Their graphs assert that positions rotate all of a head.
pub(super) fn needs_full_rotation(architecture: &str) -> bool {
    const FULL: &str = "apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream \
        ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon granite granite_swa granitemoe graniteswitch grok \
        grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 internlm2 jais2 llada llada-moe llama llama-embed \
        llama4 maincoder mellum minicpm mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 \
        qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie \
        xverse";
    is_one_of(architecture, FULL)
}

/// They rotate by sections, whose sum ggml divides by.
pub(super) fn needs_rope_sections(architecture: &str) -> bool {
    matches!(architecture, "qwen2vl" | "paddleocr" | "qwen3vl" | "qwen3vlmoe" | "qwen35" | "qwen35moe" | "qwen4exp")
}

/// Keys, without the architecture's prefix, by which llama.cpp divides or
/// whose being positive it asserts.
pub(super) fn divisors(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "ernie4_5-moe" => &["interleave_moe_layer_step"],
        "grovemoe" => &["experts_per_group"],
        "deepseek4" => &["attention.output_group_count"],
        "minimax-m3" => &["attention.indexer.block_size"],
        "nanbeige" => &["num_loops"],
        "hrm_text" => &["hrm.layers_per_stack", "hrm.h_cycles", "hrm.l_cycles"],
        _ => &[],
    }
}

/// They assert that they have experts.
pub(super) fn needs_experts(architecture: &str) -> bool {
    matches!(
        architecture,
        "bailingmoe2"
            | "glm4moe"
            | "grovemoe"
            | "llada-moe"
            | "lfm2moe"
            | "qwen2moe"
            | "qwen35moe"
            | "qwen3moe"
            | "qwen3next"
            | "qwen3vlmoe"
            | "qwen4exp"
            | "rnd1"
            | "mellum"
    )
}

/// How an architecture uses sliding windows.
pub(super) struct WindowUse {
    pub(super) needs: Needs,
    /// Every n-th layer sees everything, unless the file says otherwise;
    /// `None` if the file must say it.
    pub(super) default_period: Option<u32>,
    /// Whether the first of every n layers is that one, not the last.
    pub(super) dense_first: bool,
    /// The window if the file has none.
    pub(super) default_window: u32,
}

/// What makes an architecture use windows.
pub(super) enum Needs {
    Nothing,
    /// `attention.sliding_window` must be more than 0.
    Window,
    /// `attention.sliding_window` must not be 0.
    NoZero,
}

/// `None` for architectures whose layers all see everything, and for those
/// that are not known.
pub(super) fn window(architecture: &str) -> Option<WindowUse> {
    let (needs, default_period) = match architecture {
        "gemma2" | "gpt-oss" => (Needs::Nothing, Some(2)),
        "cohere2" | "cohere2moe" | "exaone-moe" | "muse-glimmer" => (Needs::Nothing, Some(4)),
        "gemma3n" => (Needs::Nothing, Some(5)),
        "gemma-embedding" => (Needs::Nothing, Some(6)),
        "gemma4" | "granite_swa" | "maple" | "mimo2" | "spark2_5" | "step35" => (Needs::Nothing, None),
        "llama4" => (Needs::NoZero, Some(4)),
        "modern-bert" => (Needs::Window, Some(3)),
        "afmoe" | "exaone4" | "laguna" | "mellum" | "olmo2" | "smallthinker" => (Needs::Window, Some(4)),
        "gemma3" => (Needs::Window, Some(6)),
        "plamo3" => (Needs::Window, Some(8)),
        _ => return None,
    };
    let dense_first = matches!(architecture, "cohere2moe" | "laguna" | "modern-bert" | "smallthinker");
    let default_window = match architecture {
        "gemma2" => 4096,
        "llama4" => 8192,
        _ => 0,
    };
    Some(WindowUse { needs, default_period, dense_first, default_window })
}
