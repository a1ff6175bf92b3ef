//! Reads JavaScript values into the core's option structs.
//!
//! Only what Rust's types cannot hold is refused here (a fraction where a
//! count belongs, a string where a number belongs); defaults and ranges are
//! the core's. `undefined` and `null` mean that an option was not given.

use mullama::{KvType, ModelOptions, MullamaError, StreamConfig, TokenId, timeout_from_ms};
use napi::{ValueType, bindgen_prelude::*};
use std::time::Duration;

type Outcome<T> = std::result::Result<T, MullamaError>;

/// The name of an option, and what sets it from a value.
type Setter<T> = (&'static str, fn(&mut T, &Given<'_>) -> Outcome<()>);

const MODEL: &[Setter<ModelOptions>] = &[
    ("contextSize", |o, v| v.integer().map(|n| o.context_size = n)),
    ("gpuLayers", |o, v| v.integer().map(|n| o.gpu_layers = n)),
    ("threads", |o, v| v.integer().map(|n| o.threads = n)),
    ("maxConcurrent", |o, v| v.integer().map(|n| o.max_concurrent = n)),
    ("maxQueue", |o, v| v.integer().map(|n| o.max_queue = n)),
    ("timeoutMs", |o, v| v.integer().map(|n| o.timeout = timeout_from_ms(n))),
    ("flashAttention", |o, v| v.boolean().map(|b| o.flash_attention = Some(b))),
    ("batchSize", |o, v| v.integer().map(|n| o.batch_size = n)),
    ("cacheSize", |o, v| v.integer().map(|n| o.cache_size = Some(n))),
    ("kvTypeK", |o, v| v.kv_type().map(|kind| o.kv_type_k = kind)),
    ("kvTypeV", |o, v| v.kv_type().map(|kind| o.kv_type_v = kind)),
    ("useMmap", |o, v| v.boolean().map(|b| o.use_mmap = b)),
];

const STREAM: &[Setter<StreamConfig>] = &[
    ("maxTokens", |c, v| v.integer().map(|n| c.max_tokens = n)),
    ("temperature", |c, v| v.float().map(|x| c.temperature = x)),
    ("topK", |c, v| v.integer().map(|n| c.top_k = n)),
    ("topP", |c, v| v.float().map(|x| c.top_p = x)),
    ("minP", |c, v| v.float().map(|x| c.min_p = x)),
    ("typicalP", |c, v| v.float().map(|x| c.typical_p = x)),
    ("repeatPenalty", |c, v| v.float().map(|x| c.repeat_penalty = x)),
    ("repeatLastN", |c, v| v.integer().map(|n| c.repeat_last_n = n)),
    ("frequencyPenalty", |c, v| v.float().map(|x| c.frequency_penalty = x)),
    ("presencePenalty", |c, v| v.float().map(|x| c.presence_penalty = x)),
    ("seed", |c, v| v.integer().map(|n| c.seed = Some(n))),
    ("stop", |c, v| v.texts().map(|texts| c.stop = texts)),
    ("logprobs", |c, v| v.integer().map(|n| c.logprobs = Some(n))),
    ("logitBias", |c, v| v.biases().map(|biases| c.logit_bias = biases)),
    ("ignoreEos", |c, v| v.boolean().map(|b| c.ignore_eos = b)),
    ("bufferSize", |c, v| v.integer().map(|n| c.buffer_size = n)),
    // Not `timeout_from_ms`: in a request `None` is the model's own limit, and
    // zero is none.
    ("timeoutMs", |c, v| v.integer().map(|n| c.timeout = Some(Duration::from_millis(n)))),
];

/// Options that JavaScript handles itself; named in suggestions.
const JAVASCRIPT: &[&str] = &["signal", "onProgress"];

pub(crate) fn model_options(options: &Object<'_>) -> Outcome<ModelOptions> {
    read(options, MODEL)
}

pub(crate) fn stream_config(options: &Object<'_>) -> Outcome<StreamConfig> {
    read(options, STREAM)
}

fn read<T: Default>(options: &Object<'_>, setters: &[Setter<T>]) -> Outcome<T> {
    let mut result = T::default();
    for name in Object::keys(options).map_err(|error| unreadable("options", &error))? {
        let value = options.get::<Unknown<'_>>(&name).map_err(|error| unreadable(&name, &error))?;
        let Some(value) = value else { continue };
        let given = Given { name: &name, value };
        let setter = setters.iter().find(|(known, _)| *known == name);
        let Some((_, set)) = setter else {
            return Err(unknown_option(&given, setters.iter().map(|(known, _)| *known)));
        };
        if given.is_present() {
            set(&mut result, &given)?;
        }
    }
    Ok(result)
}

/// A value under the name that an error would give it.
pub(crate) struct Given<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Unknown<'a>,
}

impl Given<'_> {
    fn kind(&self) -> ValueType {
        self.value.get_type().unwrap_or(ValueType::Unknown)
    }

    fn is_present(&self) -> bool {
        !matches!(self.kind(), ValueType::Undefined | ValueType::Null)
    }

    /// A whole number, or a BigInt, that `T` can hold.
    fn integer<T: TryFrom<i128>>(&self) -> Outcome<T> {
        let number = match self.kind() {
            ValueType::Number => whole(f64::from_unknown(self.value)),
            ValueType::BigInt => BigInt::from_unknown(self.value).ok().and_then(|big| {
                let (value, lossless) = big.get_i128();
                lossless.then_some(value)
            }),
            _ => None,
        };
        let number = number.ok_or_else(|| self.refused("use a whole number"))?;
        T::try_from(number).map_err(|_| {
            let reason = if number < 0 {
                "use a whole number of 0 or more"
            } else {
                "the number is too large"
            };
            self.refused(reason)
        })
    }

    fn float(&self) -> Outcome<f32> {
        if self.kind() != ValueType::Number {
            return Err(self.refused("use a number"));
        }
        let wide = f64::from_unknown(self.value).map_err(|error| unreadable(self.name, &error))?;
        // Rounding to 32 bits is meant; only a magnitude that they cannot
        // hold is not. NaN and infinities are the core's to judge.
        #[allow(clippy::cast_possible_truncation)]
        let narrow = wide as f32;
        if wide.is_finite() && narrow.is_infinite() {
            return Err(self.refused("the number is too large"));
        }
        Ok(narrow)
    }

    pub(crate) fn boolean(&self) -> Outcome<bool> {
        if self.kind() != ValueType::Boolean {
            return Err(self.refused("use true or false"));
        }
        bool::from_unknown(self.value).map_err(|error| unreadable(self.name, &error))
    }

    pub(crate) fn text(&self) -> Outcome<String> {
        if self.kind() != ValueType::String {
            return Err(self.refused("use a string"));
        }
        String::from_unknown(self.value).map_err(|error| unreadable(self.name, &error))
    }

    /// One string, or an array of them.
    fn texts(&self) -> Outcome<Vec<String>> {
        if self.kind() == ValueType::String {
            return Ok(vec![self.text()?]);
        }
        self.each("use a string or an array of strings", |item| item.text())
    }

    /// An array of whole numbers.
    pub(crate) fn tokens(&self) -> Outcome<Vec<TokenId>> {
        self.each("use an array of token ids", |item| item.integer())
    }

    fn each<T>(&self, reason: &str, read: impl Fn(&Given<'_>) -> Outcome<T>) -> Outcome<Vec<T>> {
        let items = Array::from_unknown(self.value).map_err(|_| self.refused(reason))?;
        (0..items.len())
            .map(|index| {
                let value = items.get::<Unknown<'_>>(index).ok().flatten();
                read(&Given { name: self.name, value: value.ok_or_else(|| self.refused(reason))? })
            })
            .collect()
    }

    /// An object from token id to bias.
    fn biases(&self) -> Outcome<Vec<(TokenId, f32)>> {
        let reason = "use an object or a Map from token id to number";
        if self.kind() != ValueType::Object {
            return Err(self.refused(reason));
        }
        let biases = Object::from_unknown(self.value).map_err(|_| self.refused(reason))?;
        let ids = Object::keys(&biases).map_err(|error| unreadable(self.name, &error))?;
        ids.iter()
            .map(|id| {
                let token = id.parse().map_err(|_| invalid(self.name, id, "the keys are token ids"))?;
                let value = biases.get::<Unknown<'_>>(id).ok().flatten();
                let value = value.ok_or_else(|| self.refused(reason))?;
                Ok((token, Given { name: self.name, value }.float()?))
            })
            .collect()
    }

    fn kv_type(&self) -> Outcome<KvType> {
        let name = self.text()?;
        name.parse().map_err(|error| match error {
            MullamaError::InvalidInput { value, reason, .. } => invalid(self.name, value, reason),
            other => other,
        })
    }

    fn refused(&self, reason: &str) -> MullamaError {
        invalid(self.name, self.shown(), reason)
    }

    /// The value as a reader of the message knows it. Never runs code of the
    /// caller's, as `toString` would.
    fn shown(&self) -> String {
        const LONGEST: usize = 80;
        match self.kind() {
            ValueType::String => String::from_unknown(self.value).map_or_else(
                |_| "a string".to_owned(),
                |text| match text.char_indices().nth(LONGEST) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                },
            ),
            ValueType::Number => f64::from_unknown(self.value).map_or_else(|_| "a number".to_owned(), show_number),
            ValueType::Boolean => {
                bool::from_unknown(self.value).map_or_else(|_| "a boolean".to_owned(), |b| b.to_string())
            }
            ValueType::BigInt => BigInt::from_unknown(self.value).map_or_else(
                |_| "a BigInt".to_owned(),
                |big| match big.get_i128() {
                    (value, true) => value.to_string(),
                    _ => "a large BigInt".to_owned(),
                },
            ),
            ValueType::Undefined => "undefined".to_owned(),
            ValueType::Null => "null".to_owned(),
            ValueType::Symbol => "a symbol".to_owned(),
            ValueType::Function => "a function".to_owned(),
            _ => "an object".to_owned(),
        }
    }
}

/// The integer that a JavaScript number holds exactly, if it does.
fn whole(number: Result<f64>) -> Option<i128> {
    let number = number.ok()?;
    let exact = number.fract() == 0.0 && number.abs() < 2f64.powi(64);
    // No truncation: the value is whole and far inside the range.
    #[allow(clippy::cast_possible_truncation)]
    exact.then_some(number as i128)
}

fn show_number(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Long numbers as JavaScript writes them, not as 300 digits.
    if number != 0.0 && !(1e-6..1e21).contains(&number.abs()) && number.is_finite() {
        return format!("{number:e}");
    }
    number.to_string()
}

fn unknown_option<'a>(given: &Given<'_>, known: impl Iterator<Item = &'a str>) -> MullamaError {
    let name = given.name;
    let nearest = known.chain(JAVASCRIPT.iter().copied()).min_by_key(|known| distance(name, known));
    let nearest = nearest.unwrap_or_default();
    invalid(name, given.shown(), format!("there is no such option; the nearest is '{nearest}'"))
}

/// Edits (insert, delete, replace) between two names, ignoring case and
/// underscores, so that `max_tokens` is next to `maxTokens`.
fn distance(a: &str, b: &str) -> usize {
    let letters =
        |name: &str| -> Vec<char> { name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn unreadable(name: &str, error: &Error) -> MullamaError {
    invalid(name, "a value", format!("it can't be read: {}", error.reason))
}

fn invalid(field: &str, value: impl Into<String>, reason: impl Into<String>) -> MullamaError {
    MullamaError::InvalidInput { field: field.to_owned(), value: value.into(), reason: reason.into() }
}
