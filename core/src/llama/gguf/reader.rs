//! A buffered reader that knows how many bytes are left, and allocates and
//! skips only within them.

use super::fault::{Result, refuse};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

const BUFFER: usize = 256 * 1024;

pub(super) struct Reader {
    file: BufReader<File>,
    position: u64,
    len: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(BUFFER, file), position: 0, len })
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn left(&self) -> u64 {
        self.len - self.position
    }

    /// Refuses a file that ends before the next `size` bytes.
    fn need(&self, size: u64, what: &str) -> Result<()> {
        if size > self.left() {
            return refuse(format!(
                "the file is cut off: {what} needs {size} bytes at byte {}, but the file ends at byte {}",
                self.position, self.len
            ));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<()> {
        self.need(buffer.len() as u64, what)?;
        self.file.read_exact(buffer)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// The next `size` bytes, which the caller knows to be few enough to keep.
    pub(super) fn bytes(&mut self, size: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append(size, &mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn append(&mut self, size: u64, bytes: &mut Vec<u8>, what: &str) -> Result<()> {
        self.need(size, what)?;
        let start = bytes.len();
        bytes.resize(start + usize::try_from(size).expect("sizes that are kept are small"), 0);
        self.fill(&mut bytes[start..], what)
    }

    pub(super) fn skip(&mut self, size: u64, what: &str) -> Result<()> {
        self.need(size, what)?;
        self.file.seek_relative(i64::try_from(size).expect("no file is longer than that"))?;
        self.position += size;
        Ok(())
    }
}
