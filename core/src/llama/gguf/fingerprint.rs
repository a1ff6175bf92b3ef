//! Tells a model from others of the same shape without reading all of it: the
//! head of each file, which describes every tensor, and samples of the
//! weights.

use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Samples of the weights, evenly spaced, the last one at the file's end.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 4096;

/// SHA-256 over the size of a file, its first `head` bytes and the samples of
/// the rest.
pub(super) fn of_file(path: &Path, head: u64) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    add(&mut file, head.min(len), &mut hash)?;
    let rest = len.saturating_sub(head);
    if rest <= SAMPLES * SAMPLE {
        add(&mut file, rest, &mut hash)?;
    } else {
        let last = rest - SAMPLE;
        for sample in 0..SAMPLES {
            // Not past 64 bits: `last` is divided first, its rest after it.
            let (n, of) = (sample, SAMPLES - 1);
            let offset = last / of * n + last % of * n / of;
            file.seek(SeekFrom::Start(head + offset))?;
            add(&mut file, SAMPLE, &mut hash)?;
        }
    }
    Ok(hash.finalize().into())
}

/// The fingerprint of several files together.
pub(super) fn join(one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(one).chain_update(other).finalize().into()
}

/// Adds the next `n` bytes.
fn add(file: &mut File, n: u64, hash: &mut Sha256) -> io::Result<()> {
    let mut left = n;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        file.read_exact(&mut buffer[..size])?;
        hash.update(&buffer[..size]);
        left -= size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(bytes: &[u8], head: u64) -> [u8; 32] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        of_file(&path, head).unwrap()
    }

    #[test]
    fn the_head_the_size_and_the_ends_of_the_weights_count() {
        let bytes = vec![7_u8; 1 << 20];
        let own = fingerprint(&bytes, 100);
        assert_eq!(own, fingerprint(&bytes, 100));
        assert_ne!(own, fingerprint(&bytes[1..], 100));
        for place in [0, 99, 100, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[place] = 8;
            assert_ne!(own, fingerprint(&other, 100), "byte {place}");
        }
    }

    #[test]
    fn small_files_count_whole() {
        let bytes = vec![7_u8; 1000];
        for place in 0..1000 {
            let mut other = bytes.clone();
            other[place] = 8;
            assert_ne!(fingerprint(&bytes, 10), fingerprint(&other, 10), "byte {place}");
        }
    }
}
