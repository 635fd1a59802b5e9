//! Bounded reads of a file that nobody vouches for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::SymbolError;

/// More than any real file's symbols, string tables and headers need together.
const MAX_BYTES: u64 = 512 << 20;
const CHUNK_BYTES: usize = 256 << 10;

enum Origin<'a> {
    File(&'a File),
    Bytes(&'a [u8]),
}

/// A file or an image in memory, read piece by piece up to a total limit.
pub struct Input<'a> {
    origin: Origin<'a>,
    len: u64,
    remaining: u64,
}

impl<'a> Input<'a> {
    /// Only regular files: others may block or have no end.
    pub fn file(file: &'a File) -> Result<Self, SymbolError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(SymbolError::NotRegular);
        }
        Ok(Input { origin: Origin::File(file), len: metadata.len(), remaining: MAX_BYTES })
    }

    pub fn bytes(bytes: &'a [u8]) -> Self {
        Input { origin: Origin::Bytes(bytes), len: bytes.len() as u64, remaining: MAX_BYTES }
    }

    /// Reads `size` bytes at `offset`; `what` names them in errors.
    pub fn read(&mut self, offset: u64, size: u64, what: &'static str) -> Result<Vec<u8>, SymbolError> {
        self.charge(offset, size, what)?;
        let mut bytes = vec![0; size as usize];
        self.fill(offset, &mut bytes, what)?;
        Ok(bytes)
    }

    /// Hands each whole record of `record_size` bytes to `visit`, holding one chunk at a time.
    pub fn records(
        &mut self,
        offset: u64,
        size: u64,
        record_size: usize,
        what: &'static str,
        mut visit: impl FnMut(&[u8]) -> Result<(), SymbolError>,
    ) -> Result<(), SymbolError> {
        self.charge(offset, size, what)?;
        let chunk_bytes = CHUNK_BYTES / record_size * record_size;
        let mut chunk = vec![0; chunk_bytes.min(size as usize)];
        let mut done = 0;
        while done < size {
            let length = chunk.len().min((size - done) as usize);
            self.fill(offset + done, &mut chunk[..length], what)?;
            for record in chunk[..length].chunks_exact(record_size) {
                visit(record)?;
            }
            done += length as u64;
        }
        Ok(())
    }

    /// Refuses what lies outside the file or is more than may be read in all.
    fn charge(&mut self, offset: u64, size: u64, what: &'static str) -> Result<(), SymbolError> {
        if offset.checked_add(size).is_none_or(|end| end > self.len) {
            return Err(SymbolError::OutsideFile(what));
        }
        self.remaining = self.remaining.checked_sub(size).ok_or(SymbolError::TooLarge(what))?;
        Ok(())
    }

    fn fill(&self, offset: u64, out: &mut [u8], what: &'static str) -> Result<(), SymbolError> {
        match self.origin {
            Origin::File(file) => {
                file.read_exact_at(out, offset).map_err(|error| match error.kind() {
                    // The file became shorter since its length was taken.
                    io::ErrorKind::UnexpectedEof => SymbolError::OutsideFile(what),
                    _ => SymbolError::Io(error),
                })
            }
            Origin::Bytes(bytes) => {
                let start = offset as usize;
                let source = bytes.get(start..start + out.len()).ok_or(SymbolError::OutsideFile(what))?;
                out.copy_from_slice(source);
                Ok(())
            }
        }
    }
}
