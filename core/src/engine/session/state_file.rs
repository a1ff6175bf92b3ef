//! The format of saved states, and how a file is written and read. Little
//! endian throughout:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | version of this format |
//! | 4 | version of llama.cpp's part |
//! | 32 | fingerprint of the model |
//! | 2 | number types of the K and the V cache |
//! | 4 | number of sequences |
//! | each 16, then 12 a token | tokens and how many are evaluated; token and row |
//! | 8 | size of llama.cpp's part |
//! | that many | llama.cpp's part |
//! | 32 | SHA-256 of all before it |
//!
//! No number of a file is believed before its checksum was found right, and
//! nothing is allocated by one that the file's own size does not back. The
//! checksum guards against accidents, not against forgery: like a model, a
//! state file must come from somebody who is trusted.

use super::history::{Cell, Held, History, Limits, check_token};
use crate::{
    KvType, MullamaError,
    llama::{Model, state_version},
    memory,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

const MAGIC: [u8; 8] = *b"MULLCTX\n";
const VERSION: u32 = 1;
const CHECKSUM: usize = 32;
const FINGERPRINT: usize = 32;

/// How much is read or written between two looks at whether to stop.
const PIECE: usize = 1 << 20;

/// What a state must agree with to be of use to a context.
pub(super) struct Identity {
    fingerprint: [u8; FINGERPRINT],
    kv_types: [KvType; 2],
}

impl Identity {
    pub(super) fn new(model: &Model, type_k: KvType, type_v: KvType) -> Self {
        Self { fingerprint: model.header().fingerprint, kv_types: [type_k, type_v] }
    }
}

/// The path from the root, so that it does not change with the process's
/// working directory while the call waits.
///
/// # Errors
/// `Io` for an empty path, or when there is no working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, MullamaError> {
    std::path::absolute(path).map_err(|error| refused("use the path", path, &error))
}

/// All of a file up to llama.cpp's part.
pub(super) fn head(identity: &Identity, sequences: &[Held], state_size: usize) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend(state_version().to_le_bytes());
    head.extend(identity.fingerprint);
    head.extend(identity.kv_types.map(type_code));
    let n_used = sequences.iter().rposition(|held| !held.cells.is_empty()).map_or(0, |last| last + 1);
    head.extend(u32::try_from(n_used).expect("sequences are few").to_le_bytes());
    // Rows are numbered from 0, whatever happened in the context before.
    let mut numbers: HashMap<u64, u64> = HashMap::new();
    for held in &sequences[..n_used] {
        head.extend((held.cells.len() as u64).to_le_bytes());
        head.extend((held.evaluated as u64).to_le_bytes());
        for cell in &held.cells {
            let next = numbers.len() as u64;
            head.extend(cell.token.to_le_bytes());
            head.extend(numbers.entry(cell.row).or_insert(next).to_le_bytes());
        }
    }
    head.extend((state_size as u64).to_le_bytes());
    head
}

/// Writes the parts and their checksum to a temporary file in the same folder,
/// and lets it take the path's name when it is whole. `go_on` is asked between
/// pieces.
///
/// # Errors
/// `Io`, and what `go_on` gives; the path is as before then, and no other file
/// is left.
pub(super) fn write(
    path: &Path,
    parts: &[&[u8]],
    go_on: &mut dyn FnMut() -> Result<(), MullamaError>,
) -> Result<(), MullamaError> {
    let io = |error: io::Error| refused("write", path, &error);
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    // A rename would replace even what must not be written to, and devices.
    if let Ok(metadata) = path.metadata() {
        if metadata.permissions().readonly() {
            return Err(io(io::ErrorKind::PermissionDenied.into()));
        }
        if !metadata.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
        }
    }
    let mut file = tempfile::Builder::new().prefix(".mullama-").suffix(".tmp").tempfile_in(folder).map_err(io)?;
    let mut hash = Sha256::new();
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        go_on()?;
        hash.update(piece);
        file.write_all(piece).map_err(io)?;
    }
    file.write_all(&hash.finalize()).map_err(io)?;
    go_on()?;
    file.as_file().sync_all().map_err(io)?;
    go_on()?;
    file.persist(path).map_err(|error| io(error.error))?;
    // So that the new name outlives a power failure. Not every system can.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Reads a file and checks its magic, version and checksum. Gives all before
/// the checksum.
///
/// # Errors
/// `Io`, `State`, `OutOfMemory`, and what `go_on` gives.
pub(super) fn read(path: &Path, go_on: &mut dyn FnMut() -> Result<(), MullamaError>) -> Result<Vec<u8>, MullamaError> {
    let io = |error: io::Error| refused("read", path, &error);
    // The kind is checked before opening: opening a pipe would block.
    let metadata = path.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unusable(path, "it is not a regular file"));
    }
    memory::require(metadata.len(), &format!("'{}'", path.display()))?;
    let mut file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    let mut hash = Sha256::new();
    loop {
        go_on()?;
        let start = bytes.len();
        bytes
            .try_reserve(PIECE)
            .map_err(|_| MullamaError::OutOfMemory(format!("'{}' is too large", path.display())))?;
        let n = (&mut file).take(PIECE as u64).read_to_end(&mut bytes).map_err(io)?;
        if n == 0 {
            break;
        }
        if start == 0 {
            check_start(path, &bytes)?;
        }
        // The checksum itself is not part of what it sums; it may begin in the
        // piece before the last.
        let summed = start.saturating_sub(CHECKSUM)..bytes.len().saturating_sub(CHECKSUM);
        hash.update(&bytes[summed]);
    }
    let Some(end) = bytes.len().checked_sub(CHECKSUM) else {
        return Err(unusable(path, "it is cut off"));
    };
    if bytes[end..] != hash.finalize()[..] {
        return Err(unusable(path, "it was cut off or altered: its checksum is wrong"));
    }
    bytes.truncate(end);
    Ok(bytes)
}

/// The magic and the version come before the checksum, so that a file of
/// another kind or of a newer format is told as such.
fn check_start(path: &Path, bytes: &[u8]) -> Result<(), MullamaError> {
    let mut reader = Reader(bytes);
    if reader.array() != Some(MAGIC) {
        return Err(unusable(path, "it is not a state file of mullama"));
    }
    match reader.u32() {
        Some(VERSION) => Ok(()),
        Some(version) => {
            let reason = format!("its format version is {version}, this build reads {VERSION}; save it again");
            Err(unusable(path, &reason))
        }
        None => Err(unusable(path, "it is cut off")),
    }
}

/// Takes apart what [`read`] gave: the history and llama.cpp's part.
///
/// # Errors
/// `State`, which says what does not fit.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    identity: &Identity,
    limits: &Limits,
    n_sequences: usize,
) -> Result<(History, &'a [u8]), MullamaError> {
    let mut reader = Reader(bytes);
    let broken = || unfit("its parts do not belong together".to_owned());
    let (_, _) = (reader.array::<8>(), reader.u32());
    let version = reader.u32().ok_or_else(broken)?;
    if version != state_version() {
        let own = state_version();
        return Err(unfit(format!("it is of llama.cpp's state version {version}, this build reads {own}")));
    }
    if reader.array().ok_or_else(broken)? != identity.fingerprint {
        return Err(unfit("it belongs to another model".to_owned()));
    }
    let kv_types = reader.array::<2>().ok_or_else(broken)?;
    if kv_types != identity.kv_types.map(type_code) {
        let name = |code: u8| KvType::ALL.get(usize::from(code)).map_or("unknown", |kind| kind.name());
        let [own_k, own_v] = identity.kv_types.map(KvType::name);
        let [k, v] = kv_types.map(name);
        return Err(unfit(format!("its KV types are {k} and {v}, this context's are {own_k} and {own_v}")));
    }
    let n_used = reader.u32().ok_or_else(broken)? as usize;
    if n_used > n_sequences {
        return Err(unfit(format!("it has {n_used} sequences, this context {n_sequences}; raise max_sequences")));
    }
    let mut sequences = Vec::with_capacity(n_used);
    let mut next_row = 0;
    for _ in 0..n_used {
        let held = read_sequence(&mut reader, limits).ok_or_else(broken)?;
        next_row = held.cells.iter().map(|cell| cell.row + 1).chain([next_row]).max().unwrap_or(next_row);
        sequences.push(held);
    }
    let state_size = reader.u64().ok_or_else(broken)?;
    if state_size != reader.0.len() as u64 {
        return Err(broken());
    }
    let history = History::restore(sequences, next_row, n_sequences);
    if history.n_rows() > limits.context_size {
        let (n, own) = (history.n_rows(), limits.context_size);
        return Err(unfit(format!("it holds {n} tokens, this context {own}; raise context_size")));
    }
    Ok((history, reader.0))
}

/// `None` when the bytes end too early or hold what no context saves.
fn read_sequence(reader: &mut Reader<'_>, limits: &Limits) -> Option<Held> {
    let n_tokens = usize::try_from(reader.u64()?).ok()?;
    let evaluated = usize::try_from(reader.u64()?).ok().filter(|&n| n <= n_tokens)?;
    // Each token takes 12 bytes, so the count is backed by the file's size.
    if n_tokens > reader.0.len() / 12 {
        return None;
    }
    let mut cells = Vec::with_capacity(n_tokens);
    for _ in 0..n_tokens {
        let token = i32::from_le_bytes(reader.array()?);
        check_token(token, limits.n_vocab, "tokens").ok()?;
        let row = reader.u64().filter(|&row| row < u64::MAX)?;
        cells.push(Cell { token, row });
    }
    Some(Held { cells, evaluated })
}

/// What is left of some bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// A type's place in `KvType::ALL`, which only grows at its end.
fn type_code(kind: KvType) -> u8 {
    let place = KvType::ALL.iter().position(|other| *other == kind).unwrap_or(usize::from(u8::MAX));
    u8::try_from(place).unwrap_or(u8::MAX)
}

fn unusable(path: &Path, reason: &str) -> MullamaError {
    MullamaError::State(format!("'{}': {reason}", path.display()))
}

fn unfit(reason: String) -> MullamaError {
    MullamaError::State(reason)
}

fn refused(what: &str, path: &Path, error: &io::Error) -> MullamaError {
    MullamaError::Io { kind: error.kind(), message: format!("could not {what} '{}': {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_on() -> Result<(), MullamaError> {
        Ok(())
    }

    fn start() -> Vec<u8> {
        [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat()
    }

    #[test]
    fn files_of_every_length_around_a_piece_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let head = start();
        for len in (PIECE - 70..PIECE + 70).step_by(7).chain([0, 1, 2 * PIECE - 44, 3 * PIECE]) {
            let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            write(&path, &[&head, &body], &mut go_on).unwrap();
            assert_eq!(read(&path, &mut go_on).unwrap(), [head.as_slice(), &body].concat());
        }
    }

    #[test]
    fn whoever_stops_a_write_at_any_piece_finds_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::write(&path, "old").unwrap();
        let body = vec![1; 3 * PIECE];
        for last in 0..6 {
            let mut n = 0;
            let mut stop = || {
                n += 1;
                if n > last { Err(MullamaError::Cancelled) } else { Ok(()) }
            };
            assert_eq!(write(&path, &[&body], &mut stop).is_ok(), last == 5);
            let is_old = std::fs::read(&path).unwrap() == b"old";
            assert_eq!(is_old, last < 5);
            assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        }
    }

    #[test]
    fn histories_come_back_with_what_they_share() {
        let identity = Identity { fingerprint: [7; 32], kv_types: [KvType::F16, KvType::Q8_0] };
        let limits = Limits { context_size: 3, n_vocab: 10, can_share: true };
        let cell = |token, row| Cell { token, row };
        let sequences = [
            Held { cells: vec![cell(1, 40), cell(2, 50)], evaluated: 1 },
            Held::default(),
            Held { cells: vec![cell(1, 40), cell(3, 60)], evaluated: 2 },
            Held::default(),
        ];
        let bytes = [head(&identity, &sequences, 4), b"rest".to_vec()].concat();
        let (history, state) = parse(&bytes, &identity, &limits, 5).unwrap();
        assert_eq!(state, b"rest");
        assert_eq!((history.n_rows(), history.len(2), history.evaluated(0)), (3, 2, 1));
        assert_eq!(history.sharing(0), [0, 2]);
        assert_eq!(history.tokens(2), [1, 3]);

        for n in 0..bytes.len() {
            assert!(parse(&bytes[..n], &identity, &limits, 5).is_err(), "{n} bytes");
        }
        let refused = |identity: &Identity, limits: Limits, n_sequences| {
            parse(&bytes, identity, &limits, n_sequences).unwrap_err().to_string()
        };
        assert!(refused(&identity, limits, 2).contains("raise max_sequences"));
        assert!(refused(&identity, Limits { context_size: 2, ..limits }, 5).contains("raise context_size"));
        assert!(refused(&identity, Limits { n_vocab: 3, ..limits }, 5).contains("do not belong together"));
        let other = Identity { fingerprint: [8; 32], ..identity };
        assert!(refused(&other, limits, 5).contains("another model"));
        let other = Identity { kv_types: [KvType::F32, KvType::F32], ..identity };
        assert!(refused(&other, limits, 5).contains("its KV types are f16 and q8_0"));
    }
}
