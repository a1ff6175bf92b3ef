//! Tells what a file is that is not GGUF, since a wrong download is the most
//! common reason.

use super::{
    fault::{Result, refuse},
    reader::Reader,
};

const MAGIC: &[u8; 4] = b"GGUF";

/// Reads the first four bytes and refuses the file if they are not GGUF's.
pub(super) fn check_magic(reader: &mut Reader) -> Result<()> {
    if reader.len() == 0 {
        return refuse("the file is empty");
    }
    let start = reader.bytes(reader.left().min(4), "the magic")?;
    if start == MAGIC {
        return Ok(());
    }
    let mut bytes = start;
    reader.append(reader.left().min(252), &mut bytes, "the file's start")?;
    if bytes.len() < 4 && MAGIC.starts_with(&bytes) {
        return refuse(format!("the file is cut off after {} bytes", bytes.len()));
    }
    refuse(match name_of(&bytes) {
        Some(name) => format!("it is {name}, not a GGUF file"),
        None => "it is not a GGUF file: it does not begin with the letters 'GGUF'".to_owned(),
    })
}

fn name_of(bytes: &[u8]) -> Option<&'static str> {
    const STARTS: [(&[u8], &str); 11] = [
        (b"version https://git-lfs", "a git-lfs pointer (fetch the file itself with 'git lfs pull')"),
        (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint or a wheel)"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x80\x02", "a Python pickle (perhaps a PyTorch checkpoint)"),
        (b"lmgg", "a legacy GGML file (convert the model to GGUF)"),
        (b"fmgg", "a legacy GGMF file (convert the model to GGUF)"),
        (b"tjgg", "a legacy GGJT file (convert the model to GGUF)"),
        (b"algg", "a legacy GGLA adapter (convert it to GGUF)"),
        (b"FUGG", "a byte-swapped GGUF file"),
    ];
    if let Some((_, name)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(name);
    }
    // safetensors: the length of a JSON header, then the header.
    if bytes.get(8) == Some(&b'{') && bytes[5..8] == [0; 3] {
        return Some("a safetensors file (convert the model to GGUF)");
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Some("a file that begins with zeros (an unfinished download?)");
    }
    let text = String::from_utf8_lossy(bytes).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        return Some("an HTML page (perhaps a download error)");
    }
    if text.starts_with('<') {
        return Some("an XML document (perhaps a download error)");
    }
    if text.starts_with('{') {
        return Some("a JSON document (perhaps a download error)");
    }
    None
}
