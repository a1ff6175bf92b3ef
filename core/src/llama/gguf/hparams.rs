//! The model's sizes. llama.cpp asserts some of them, divides by others and
//! indexes arrays of fixed length with the rest.

use super::{
    arch,
    fault::{Result, refuse},
    header::Header,
    hybrid,
    metadata::{Kind, Metadata, Value},
    window,
};

/// The length of llama.cpp's per-layer arrays.
const MAX_LAYERS: u32 = 512;
const MAX_EXPERTS: u32 = 1024;
/// Far beyond every model, and low enough that no product of three overflows.
const MAX_SIZE: u32 = 1 << 20;
const MAX_HEADS: u32 = 1 << 14;

/// Checks the sizes and writes them into the header.
pub(super) fn check(metadata: &Metadata, header: &mut Header) -> Result<()> {
    let keys = Keys { metadata, architecture: &header.architecture.clone() };
    header.n_ctx_train = keys.required_size("context_length", i32::MAX as u32)?;
    header.n_embd = keys.required_size("embedding_length", MAX_SIZE)?;
    header.n_layer = keys.required_size("block_count", MAX_LAYERS)?;
    let is_causal = metadata.flag(&keys.name("attention.causal"))?.unwrap_or(true);
    header.causal_attention = is_causal && !arch::sees_all_tokens(keys.architecture);
    header.n_draft_layers = keys.size("nextn_predict_layers", MAX_LAYERS)?.unwrap_or(0);
    if header.n_draft_layers >= header.n_layer {
        let key = keys.name("nextn_predict_layers");
        return refuse(format!("'{key}' is {}, but the model has {} layers", header.n_draft_layers, header.n_layer));
    }
    if header.n_layer < arch::least_layers(keys.architecture) {
        return refuse(format!("'{}' is {}, too few for this architecture", keys.name("block_count"), header.n_layer));
    }
    keys.feed_forward(header.n_layer)?;
    check_experts(&keys, header.n_layer)?;
    check_heads(&keys, header)?;
    check_rotation(&keys, header)?;
    check_recurrent(&keys, header)?;
    window::check(&keys, header)?;
    hybrid::check(&keys, header)?;
    if let Some(pooling @ 5..) = keys.size("pooling_type", u32::MAX)? {
        return refuse(format!("'{}' is {pooling}, but must be 0 to 4", keys.name("pooling_type")));
    }
    for key in arch::divisors(keys.architecture) {
        keys.positive(key, MAX_SIZE)?;
    }
    check_temperature(&keys)?;
    keys.check_floats()
}

/// Attention that is scaled by the position divides it by a length.
fn check_temperature(keys: &Keys<'_>) -> Result<()> {
    let scale = keys.name("attention.temperature_scale");
    let is_scaled = matches!(keys.metadata.get(&scale), Some(Value::Float(_, scale)) if *scale != 0.0);
    if is_scaled
        && matches!(keys.architecture, "deepseek2" | "deepseek2-ocr" | "mistral4")
        && keys.positive("attention.temperature_length", u32::MAX)?.is_none()
    {
        return refuse(format!("the key '{}' is missing", keys.name("attention.temperature_length")));
    }
    Ok(())
}

/// The keys of one architecture, named without its prefix.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A number up to `max`, if the key is there.
    pub(super) fn size(&self, key: &str, max: u32) -> Result<Option<u32>> {
        let key = self.name(key);
        match self.metadata.u32(&key)? {
            Some(size) if size > max => refuse(format!("'{key}' is {size}, but {max} is the most")),
            size => Ok(size),
        }
    }

    /// Like `size`, but never 0.
    pub(super) fn positive(&self, key: &str, max: u32) -> Result<Option<u32>> {
        match self.size(key, max)? {
            Some(0) => refuse(format!("'{}' is 0, but must be 1 to {max}", self.name(key))),
            size => Ok(size),
        }
    }

    fn required_size(&self, key: &str, max: u32) -> Result<u32> {
        match self.positive(key, max)? {
            Some(size) => Ok(size),
            None => refuse(format!("the key '{}' is missing", self.name(key))),
        }
    }

    /// One number for all layers, or an array with one for each.
    pub(super) fn per_layer(&self, key: &str, n_layer: u32, max: u32) -> Result<Option<Vec<u32>>> {
        let name = self.name(key);
        let Some(Value::Array(array)) = self.metadata.get(&name) else {
            return Ok(self.size(key, max)?.map(|size| vec![size; n_layer as usize]));
        };
        if array.len != u64::from(n_layer) {
            return refuse(format!("'{name}' has {} elements, but the model has {n_layer} layers", array.len));
        }
        if !matches!(array.kind, Kind::U32 | Kind::I32 | Kind::Bool) {
            return refuse(format!("'{name}' is an array of the type {}, but must be u32", array.kind.name()));
        }
        let sizes = array.integers().map(|size| match u32::try_from(size) {
            Ok(size) if size <= max => Ok(size),
            _ => refuse(format!("'{name}' holds {size}, but only 0 to {max} are allowed")),
        });
        sizes.collect::<Result<_>>().map(Some)
    }

    /// The widths between the feed-forward matrices.
    pub(super) fn feed_forward(&self, n_layer: u32) -> Result<Vec<u32>> {
        let widths = self.per_layer("feed_forward_length", n_layer, 64 * MAX_SIZE)?;
        Ok(widths.unwrap_or_else(|| vec![0; n_layer as usize]))
    }

    /// ggml asserts that the epsilons of norms are not negative, which NaN is
    /// not either; no other number may be NaN or infinite.
    fn check_floats(&self) -> Result<()> {
        for (key, value) in self.metadata.iter() {
            let Value::Float(_, number) = value else { continue };
            let Some(short) = key.strip_prefix(self.architecture).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            if !number.is_finite() || (short.ends_with("epsilon") && *number < 0.0) {
                return refuse(format!("'{key}' is {number}"));
            }
        }
        Ok(())
    }
}

fn check_experts(keys: &Keys<'_>, n_layer: u32) -> Result<()> {
    let mut n_expert = keys.size("expert_count", MAX_EXPERTS)?.unwrap_or(0);
    let used = keys.per_layer("expert_used_count", n_layer, MAX_EXPERTS)?.unwrap_or_default();
    let mut n_used = used.iter().copied().max().unwrap_or(0);
    if matches!(keys.architecture, "hunyuan_vl" | "hunyuan-dense") && n_expert <= 1 {
        (n_expert, n_used) = (0, 0);
    }
    let used_key = keys.name("expert_used_count");
    if n_used > n_expert || (n_expert > 0 && n_used == 0) {
        return refuse(format!("'{used_key}' is {n_used}, but the model has {n_expert} experts"));
    }
    if n_expert == 0 && arch::needs_experts(keys.architecture) {
        return refuse(format!("'{}' is 0, but the architecture needs experts", keys.name("expert_count")));
    }
    if n_expert > 0 && used.contains(&0) && !arch::may_lack_experts(keys.architecture) {
        return refuse(format!("'{used_key}' is 0 for some layer"));
    }
    let gating = keys.size("expert_gating_func", u32::MAX)?;
    let is_known = match gating {
        None => !arch::needs_gating(keys.architecture),
        Some(gating) => (1..=4).contains(&gating),
    };
    if n_expert > 0 && !is_known {
        return refuse(format!("'{}' is missing or not 1 to 4", keys.name("expert_gating_func")));
    }
    let n_groups = keys.size("expert_group_count", MAX_EXPERTS)?.unwrap_or(0);
    let uneven = n_groups > 1 && !n_expert.is_multiple_of(n_groups);
    if uneven || (n_groups > 0 && n_groups >= n_expert) {
        let key = keys.name("expert_group_count");
        return refuse(format!("'{key}' is {n_groups}, which does not fit {n_expert} experts"));
    }
    let n_used_groups = keys.size("expert_group_used_count", MAX_EXPERTS)?.unwrap_or(0);
    if n_groups > 1 && !(1..n_groups).contains(&n_used_groups) {
        let key = keys.name("expert_group_used_count");
        return refuse(format!("'{key}' is {n_used_groups}, but the model has {n_groups} groups of experts"));
    }
    Ok(())
}

fn check_heads(keys: &Keys<'_>, header: &mut Header) -> Result<()> {
    let zeros = vec![0; header.n_layer as usize];
    header.n_head = keys.per_layer("attention.head_count", header.n_layer, MAX_HEADS)?.unwrap_or(zeros);
    let kv = keys.per_layer("attention.head_count_kv", header.n_layer, MAX_HEADS)?;
    header.n_head_kv = kv.unwrap_or_else(|| header.n_head.clone());
    let may_lack = arch::may_lack_heads(keys.architecture);
    for (layer, (n_head, n_head_kv)) in header.n_head.iter().zip(&header.n_head_kv).enumerate() {
        if *n_head == 0 && !may_lack {
            return refuse(format!("'{}' is 0 or missing for layer {layer}", keys.name("attention.head_count")));
        }
        let fits = match *n_head_kv {
            0 => may_lack,
            n_head_kv => n_head.is_multiple_of(n_head_kv),
        };
        if *n_head > 0 && !fits {
            return refuse(format!(
                "'{}' is {n_head_kv} in layer {layer}, which does not fit its {n_head} heads",
                keys.name("attention.head_count_kv")
            ));
        }
    }
    let n_head = header.n_head[0];
    if n_head == 0 {
        return Ok(());
    }
    let default = header.n_embd / n_head;
    header.n_embd_head_k = keys.size("attention.key_length", MAX_SIZE)?.unwrap_or(default);
    header.n_embd_head_v = keys.size("attention.value_length", MAX_SIZE)?.unwrap_or(default);
    let (k, v) = (header.n_embd_head_k, header.n_embd_head_v);
    if k == 0 || v == 0 {
        return refuse(format!("the attention heads have keys of {k} and values of {v} elements"));
    }
    let k_window = keys.positive("attention.key_length_swa", MAX_SIZE)?.unwrap_or(k);
    let v_window = keys.positive("attention.value_length_swa", MAX_SIZE)?.unwrap_or(v);
    if !arch::has_own_window_heads(keys.architecture) && (k_window != k || v_window != v) {
        let key = keys.name("attention.key_length_swa");
        return refuse(format!("'{key}' is {k_window}, but this architecture needs all keys of {k} elements"));
    }
    if arch::needs_equal_heads(keys.architecture) && (k != v || k_window != v_window) {
        let key = keys.name("attention.key_length");
        return refuse(format!("'{key}' is {k} but the length of values is {v}; this architecture needs them equal"));
    }
    check_key_heads(keys, header)
}

fn check_key_heads(keys: &Keys<'_>, header: &Header) -> Result<()> {
    let Some(rule) = arch::key_heads(keys.architecture) else { return Ok(()) };
    let k = header.n_embd_head_k;
    let n_rot = keys.size("rope.dimension_count", MAX_SIZE)?.unwrap_or(k);
    let n_latent = keys.size("attention.kv_lora_rank", MAX_SIZE)?.unwrap_or(0);
    let is_latent = keys.positive("attention.key_length_mla", MAX_SIZE)?.is_some();
    if keys.positive("attention.value_length_mla", MAX_SIZE)?.is_some() != is_latent {
        return refuse(format!("'{}' and the length of values do not match", keys.name("attention.key_length_mla")));
    }
    let fits = |(n_head, n_head_kv): (&u32, &u32)| match rule {
        arch::KeyHeads::Latent if is_latent => *n_head_kv == 1 && k == n_latent + n_rot,
        arch::KeyHeads::Latent | arch::KeyHeads::All => n_head_kv == n_head,
        arch::KeyHeads::ModelWidth => k * n_head == header.n_embd,
    };
    if !header.n_head.iter().zip(&header.n_head_kv).all(fits) {
        return refuse(format!(
            "'{}' and '{}' do not fit the other sizes of the attention",
            keys.name("attention.head_count_kv"),
            keys.name("attention.key_length")
        ));
    }
    Ok(())
}

fn check_rotation(keys: &Keys<'_>, header: &Header) -> Result<()> {
    if let Some(kind) = keys.metadata.text(&keys.name("rope.scaling.type"))?
        && !matches!(kind, "none" | "linear" | "yarn" | "longrope")
    {
        let key = keys.name("rope.scaling.type");
        return refuse(format!("'{key}' is '{kind}', but must be none, linear, yarn or longrope"));
    }
    let k = header.n_embd_head_k;
    if k == 0 {
        return Ok(());
    }
    let n_rot = keys.size("rope.dimension_count", MAX_SIZE)?.unwrap_or(k);
    let k_window = keys.size("attention.key_length_swa", MAX_SIZE)?.unwrap_or(k);
    let n_rot_window = keys.size("rope.dimension_count_swa", MAX_SIZE)?.unwrap_or(n_rot);
    for (key, n_rot, k) in [("rope.dimension_count", n_rot, k), ("rope.dimension_count_swa", n_rot_window, k_window)] {
        let key = keys.name(key);
        if !n_rot.is_multiple_of(2) || n_rot > k || (n_rot == 0 && !arch::may_skip_rotation(keys.architecture)) {
            return refuse(format!("'{key}' is {n_rot}, but must be even and 2 to {k}, the elements of a key"));
        }
    }
    let k_latent = keys.size("attention.key_length_mla", MAX_SIZE)?.unwrap_or(k);
    if arch::rotates_a_part(keys.architecture) && n_rot >= k_latent {
        let key = keys.name("rope.dimension_count");
        return refuse(format!("'{key}' is {n_rot}, but must be less than the {k_latent} elements of a key"));
    }
    if arch::needs_full_rotation(keys.architecture) && n_rot != k {
        let key = keys.name("rope.dimension_count");
        return refuse(format!("'{key}' is {n_rot}, but this architecture needs all {k} elements of a key"));
    }
    check_sections(keys, k)
}

fn check_sections(keys: &Keys<'_>, k: u32) -> Result<()> {
    let name = keys.name("rope.dimension_sections");
    let Some(sections) = keys.metadata.array(&name)? else {
        if arch::needs_rope_sections(keys.architecture) {
            return refuse(format!("the key '{name}' is missing"));
        }
        return Ok(());
    };
    let mut total = 0;
    for section in sections.integers() {
        if !(0..=i128::from(MAX_SIZE)).contains(&section) {
            return refuse(format!("'{name}' holds {section}"));
        }
        total += section;
    }
    if sections.len != 4 || !matches!(sections.kind, Kind::U32 | Kind::I32) {
        return refuse(format!("'{name}' must be 4 numbers of the type i32"));
    }
    if total > i128::from(k) || (total == 0 && arch::needs_rope_sections(keys.architecture)) {
        return refuse(format!("'{name}' adds up to {total}, but keys have {k} elements"));
    }
    Ok(())
}

/// The sizes of recurrent states, which llama.cpp divides by one another.
fn check_recurrent(keys: &Keys<'_>, header: &Header) -> Result<()> {
    let d_inner = keys.positive("ssm.inner_size", MAX_SIZE)?;
    let dt_rank = keys.positive("ssm.time_step_rank", MAX_SIZE)?;
    let d_state = keys.positive("ssm.state_size", MAX_SIZE)?;
    if let Some(1) = keys.positive("ssm.conv_kernel", 4096)? {
        return refuse(format!("'{}' is 1, but must be at least 2", keys.name("ssm.conv_kernel")));
    }
    let n_group = keys.size("ssm.group_count", MAX_SIZE)?;
    if arch::needs_double_width(keys.architecture) && d_inner != Some(2 * header.n_embd) {
        let key = keys.name("ssm.inner_size");
        return refuse(format!("'{key}' must be twice the model's width of {}", header.n_embd));
    }
    let sizes = (d_inner.unwrap_or(0), dt_rank.unwrap_or(0), n_group.unwrap_or(0), d_state.unwrap_or(0));
    let (d_inner, n_head, n_group, d_state) = sizes;
    let fits = |divisor: u32| divisor > 0 && d_inner.is_multiple_of(divisor);
    let good = match arch::mixer(keys.architecture) {
        None => true,
        Some(arch::Mixer::Mamba2) => fits(n_head) && fits(n_group) && n_head.is_multiple_of(n_group),
        Some(arch::Mixer::Plamo2) => fits(n_head) && n_group == 0,
        Some(arch::Mixer::DeltaNet) => {
            n_group > 0
                && n_head.is_multiple_of(n_group)
                && u64::from(n_head) * u64::from(d_state) == u64::from(d_inner)
        }
    };
    if !good {
        return refuse(format!(
            "'{}' is {d_inner}, which does not fit {n_head} heads in {n_group} groups and states of {d_state}",
            keys.name("ssm.inner_size")
        ));
    }
    if let Some(head_size) = keys.positive("wkv.head_size", MAX_SIZE)?
        && !header.n_embd.is_multiple_of(head_size)
    {
        let key = keys.name("wkv.head_size");
        return refuse(format!("'{key}' is {head_size}, which does not divide the width {}", header.n_embd));
    }
    let shifts = keys.size("token_shift_count", MAX_SIZE)?;
    match arch::token_shifts(keys.architecture) {
        // llama.cpp's default is 2.
        Some(needed) if shifts.unwrap_or(2) != needed => {
            refuse(format!("'{}' must be {needed}", keys.name("token_shift_count")))
        }
        _ => Ok(()),
    }
}
