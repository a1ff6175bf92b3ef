//! Models in several files, `<name>-00001-of-00003.gguf` and so on. llama.cpp
//! finds the other files by that scheme, and so does this.

use super::{
    Parsed,
    fault::{Fault, Result, refuse},
    fingerprint,
    metadata::Metadata,
    read_file,
};
use std::{
    io,
    path::{Path, PathBuf},
};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const N_TENSORS: &str = "split.tensors.count";

/// Adds what the model's other files hold; gives the size of all.
pub(super) fn add_other_files(first: &Path, parsed: &mut Parsed) -> Result<u64> {
    let count = parsed.metadata.u16(COUNT)?.unwrap_or(0);
    if count < 2 {
        return Ok(parsed.file_size);
    }
    let number = file_number(&parsed.metadata)?;
    if number >= count {
        return refuse(format!("'{NUMBER}' is {number}, but '{COUNT}' is {count}"));
    }
    let Some(stem) = stem(first, number, count) else {
        return refuse(format!(
            "it is part {} of a model in {count} files, so its name must end with '{}'",
            number + 1,
            ending(number, count)
        ));
    };
    if number != 0 {
        let first = format!("{stem}{}", ending(0, count));
        return refuse(format!("it is part {} of a model in {count} files; load the first, '{first}'", number + 1));
    }
    let mut size = parsed.file_size;
    for number in 1..count {
        let path = PathBuf::from(format!("{stem}{}", ending(number, count)));
        let part = read_part(&path, number).map_err(|fault| in_part(fault, number, count, &path))?;
        size += part.file_size;
        parsed.fingerprint = fingerprint::join(parsed.fingerprint, part.fingerprint);
        parsed.tensors.merge(part.tensors)?;
    }
    let n_tensors = parsed.tensors.len();
    match parsed.metadata.i32(N_TENSORS)? {
        Some(claimed) if usize::try_from(claimed) == Ok(n_tensors) => Ok(size),
        Some(claimed) => refuse(format!("'{N_TENSORS}' is {claimed}, but the files have {n_tensors} tensors")),
        None => refuse(format!("the key '{N_TENSORS}' is missing")),
    }
}

fn read_part(path: &Path, number: u16) -> Result<Parsed> {
    let part = read_file(path)?;
    let found = file_number(&part.metadata)?;
    if found != number {
        return refuse(format!("'{NUMBER}' is {found}, but must be {number}"));
    }
    Ok(part)
}

fn in_part(fault: Fault, number: u16, count: u16, path: &Path) -> Fault {
    let shown = format!("part {} of {count}, '{}'", u32::from(number) + 1, path.display());
    match fault {
        Fault::Invalid(reason) => Fault::Invalid(format!("{shown}: {reason}")),
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => Fault::Invalid(format!("{shown}, is missing")),
        Fault::Io(error) => Fault::Io(io::Error::new(error.kind(), format!("{shown}: {error}"))),
    }
}

fn file_number(metadata: &Metadata) -> Result<u16> {
    match metadata.u16(NUMBER)? {
        Some(number) => Ok(number),
        None => refuse(format!("the key '{NUMBER}' is missing")),
    }
}

fn ending(number: u16, count: u16) -> String {
    format!("-{:05}-of-{count:05}.gguf", u32::from(number) + 1)
}

/// The path without the ending. `None` if it has another one.
fn stem(path: &Path, number: u16, count: u16) -> Option<&str> {
    path.to_str()?.strip_suffix(&ending(number, count)).filter(|stem| !stem.is_empty())
}
