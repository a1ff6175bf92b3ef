//! Validation of GGUF files, in safe Rust, before llama.cpp opens them.
//!
//! llama.cpp trusts a model file in many places: a wrong count, shape or key
//! ends in `abort()`, a division by zero or an endless loop, none of which can
//! be caught. So every file is read here first, by the rules that llama.cpp
//! 0.1.161 was found to rely on. What llama.cpp itself refuses with an
//! exception may pass; what it would not survive may not.
//!
//! Only the head of the file is read, and a few samples of the weights for the
//! model's fingerprint, and nothing is allocated by a count that the file's size does not back. Deliberately
//! absent: a check of the weights' values, and one of the architecture's name,
//! for an unknown one is an error that llama.cpp reports well.

#![forbid(unsafe_code)]

mod arch;
mod fault;
mod fingerprint;
mod header;
mod hparams;
mod hybrid;
mod metadata;
mod reader;
mod sniff;
mod split;
mod tensors;
mod vocab;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use header::Header;

use crate::MullamaError;
use fault::{Fault, Result, refuse};
use metadata::Metadata;
use reader::Reader;
use std::{fs, io, path::Path};
use tensors::Tensors;

/// Reads the file's head and refuses whatever llama.cpp would not survive.
///
/// # Errors
/// `ModelNotFound`, `InvalidModel` with a reason that names the key or tensor,
/// and `Io` when the system refuses to read.
pub(crate) fn validate(path: &Path) -> std::result::Result<Header, MullamaError> {
    inspect(path).map_err(|fault| fault.at(path))
}

fn inspect(path: &Path) -> Result<Header> {
    let header = inspect_any(path)?;
    if header.n_tensors == 0 {
        return refuse("the file has a vocabulary but no tensors");
    }
    Ok(header)
}

/// Like [`inspect`], but also for files with nothing but a vocabulary, whose
/// sizes are not checked.
fn inspect_any(path: &Path) -> Result<Header> {
    let mut parsed = read_file(path)?;
    let file_size = split::add_other_files(path, &mut parsed)?;
    let Parsed { metadata, tensors, fingerprint, .. } = parsed;
    let architecture = arch::check(&metadata)?;
    let mut header = Header { file_size, fingerprint, ..Header::new(architecture, &metadata, &tensors) };
    header.n_vocab = vocab::check(&metadata)?;
    if header.n_tensors > 0 {
        hparams::check(&metadata, &mut header)?;
        tensors.check_weights(&header)?;
    }
    Ok(header)
}

/// One file's head.
struct Parsed {
    metadata: Metadata,
    tensors: Tensors,
    file_size: u64,
    /// See [`fingerprint`].
    fingerprint: [u8; 32],
}

fn read_file(path: &Path) -> Result<Parsed> {
    // The kind is checked before opening: opening a pipe would block.
    let kind = fs::metadata(path)?;
    if kind.is_dir() {
        return refuse("it is a directory");
    }
    if !kind.is_file() {
        return refuse("it is not a regular file");
    }
    let mut reader = Reader::open(path)?;
    sniff::check_magic(&mut reader)?;
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => {}
        1 => return refuse("it is GGUF version 1, which is no longer supported; convert the model again"),
        _ if version & 0xffff == 0 && matches!(version.swap_bytes(), 1..=99) => {
            return refuse("it is a big-endian GGUF file; this machine needs a little-endian one");
        }
        _ => return refuse(format!("it is GGUF version {version}, but only versions 2 and 3 are known")),
    }
    let n_tensors = reader.u64("the number of tensors")?;
    let n_entries = reader.u64("the number of metadata entries")?;
    let metadata = Metadata::read(&mut reader, n_entries)?;
    let tensors = Tensors::read(&mut reader, n_tensors, metadata.alignment()?)?;
    let fingerprint = fingerprint::of_file(path, reader.position())?;
    Ok(Parsed { metadata, tensors, file_size: reader.len(), fingerprint })
}

impl Fault {
    fn at(self, path: &Path) -> MullamaError {
        let path = path.display().to_string();
        match self {
            Self::Invalid(reason) => MullamaError::InvalidModel { path, reason },
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => MullamaError::ModelNotFound { path },
            // A component of the path is a file.
            Self::Io(error) if error.kind() == io::ErrorKind::NotADirectory => MullamaError::ModelNotFound { path },
            Self::Io(error) => {
                MullamaError::Io { kind: error.kind(), message: format!("could not read '{path}': {error}") }
            }
        }
    }
}
