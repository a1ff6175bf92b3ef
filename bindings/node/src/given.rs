//! Reads single JavaScript values into the types that the core takes.
//!
//! Runs on the thread of the environment. Only what Rust's types cannot hold
//! is refused here (a fraction where a count belongs, a string where a number
//! belongs), under the name that the caller used. Ranges are the core's.

use mullama::{KvType, MullamaError, SeqId, TokenId};
use napi::{ValueType, bindgen_prelude::*};
use std::time::Duration;

pub(crate) type Outcome<T> = std::result::Result<T, MullamaError>;

/// A value under the name that an error would give it.
pub(crate) struct Given<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Unknown<'a>,
}

impl Given<'_> {
    fn kind(&self) -> ValueType {
        self.value.get_type().unwrap_or(ValueType::Unknown)
    }

    pub(crate) fn is_present(&self) -> bool {
        !matches!(self.kind(), ValueType::Undefined | ValueType::Null)
    }

    /// A whole number, or a BigInt, that `T` can hold.
    pub(crate) fn integer<T: TryFrom<i128>>(&self) -> Outcome<T> {
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

    /// A time, in whole milliseconds.
    pub(crate) fn milliseconds(&self) -> Outcome<Duration> {
        self.integer().map(Duration::from_millis)
    }

    pub(crate) fn float(&self) -> Outcome<f32> {
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
    pub(crate) fn texts(&self) -> Outcome<Vec<String>> {
        if self.kind() == ValueType::String {
            return Ok(vec![self.text()?]);
        }
        self.each("use a string or an array of strings", |item| item.text())
    }

    /// An array of whole numbers.
    pub(crate) fn tokens(&self) -> Outcome<Vec<TokenId>> {
        self.each("use an array of token ids", |item| item.integer())
    }

    /// An array of whole numbers.
    pub(crate) fn sequences(&self) -> Outcome<Vec<SeqId>> {
        self.each("use an array of sequence ids", |item| item.integer())
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
    pub(crate) fn biases(&self) -> Outcome<Vec<(TokenId, f32)>> {
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

    pub(crate) fn kv_type(&self) -> Outcome<KvType> {
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
    pub(crate) fn shown(&self) -> String {
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

pub(crate) fn unreadable(name: &str, error: &Error) -> MullamaError {
    invalid(name, "a value", format!("it can't be read: {}", error.reason))
}

pub(crate) fn invalid(field: &str, value: impl Into<String>, reason: impl Into<String>) -> MullamaError {
    MullamaError::InvalidInput { field: field.to_owned(), value: value.into(), reason: reason.into() }
}
