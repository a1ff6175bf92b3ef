//! What llama.cpp was built with and what it found.

use crate::{
    error::to_js,
    facts::{Backend, Device},
};
use napi::bindgen_prelude::*;
use napi_derive::napi;

#[napi(catch_unwind)]
pub fn backends() -> Result<Vec<Backend>> {
    let found = mullama::backends().map_err(|error| to_js(&error))?;
    Ok(found.into_iter().map(Backend::from).collect())
}

#[napi(catch_unwind)]
pub fn devices() -> Result<Vec<Device>> {
    let found = mullama::devices().map_err(|error| to_js(&error))?;
    Ok(found.into_iter().map(Device::from).collect())
}
