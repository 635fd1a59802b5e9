//! The content of one section: in memory, or mapped where it is large.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use super::super::elf::{ElfFile, Extent};
use crate::memory::{Mapping, page_size};

/// Larger sections are mapped: the debug information of a browser is over a gigabyte.
const MAX_BYTES_IN_MEMORY: u64 = 32 << 20;
/// Where nobody can cut the file off, reading more than this takes longer than mapping it.
const MAX_BYTES_TO_READ: u64 = 256 << 10;
const MAX_BYTES: u64 = 8 << 30;
const CHUNK_BYTES: usize = 1 << 20;

/// Read-only bytes.
pub enum Data {
    Memory(Vec<u8>),
    Mapped(FilePart),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::Memory(bytes) => bytes,
            Data::Mapped(part) => part.bytes(),
        }
    }
}

impl Data {
    /// What the section `name` holds; nothing when it is left out or cannot be read.
    pub fn load(file: &File, elf: &ElfFile<'_>, name: &str) -> Data {
        Self::read(file, elf, name).unwrap_or(Data::Memory(Vec::new()))
    }

    fn read(file: &File, elf: &ElfFile<'_>, name: &str) -> Option<Data> {
        let extent = elf.extent(name).filter(|extent| extent.len <= MAX_BYTES)?;
        let is_trusted = is_trusted(file);
        let max_bytes = if is_trusted { MAX_BYTES_TO_READ } else { MAX_BYTES_IN_MEMORY };
        if extent.compressed || extent.len <= max_bytes {
            let bytes = elf.content(name, MAX_BYTES)?;
            return match bytes.len() as u64 {
                0..=MAX_BYTES_IN_MEMORY => Some(Data::Memory(bytes)),
                len => FilePart::new(&written(&bytes).ok()?, 0, len).ok().map(Data::Mapped),
            };
        }
        let Extent { offset, len, .. } = extent;
        let part = match is_trusted {
            true => FilePart::new(file, offset, len),
            false => copied(file, offset, len).and_then(|copy| FilePart::new(&copy, 0, len)),
        };
        part.ok().map(Data::Mapped)
    }

    /// Lets the kernel take back the memory that reading has filled; it is read again when needed.
    pub fn forget_pages(&self) {
        if let Data::Mapped(part) = self {
            part.forget_pages();
        }
    }
}

/// Will nobody cut the file off while it is mapped, which would be a SIGBUS?  Package managers replace
/// files as a whole.
fn is_trusted(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0)
}

/// A file without a name, which nobody else can change.
fn scratch() -> io::Result<File> {
    let in_dir = |dir: &str| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)
    };
    in_dir("/var/tmp").or_else(|_| in_dir("/tmp"))
}

fn written(bytes: &[u8]) -> io::Result<File> {
    let file = scratch()?;
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

fn copied(file: &File, offset: u64, len: u64) -> io::Result<File> {
    let copy = scratch()?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < len {
        let part = &mut chunk[..CHUNK_BYTES.min((len - done) as usize)];
        file.read_exact_at(part, offset + done)?;
        copy.write_all_at(part, done)?;
        done += part.len() as u64;
    }
    Ok(copy)
}

/// A part of a file, mapped read-only.
pub struct FilePart {
    mapping: Mapping,
    /// The part begins so far behind the begin of a page.
    skipped: usize,
    len: usize,
}

impl FilePart {
    /// Fails when the part does not lie in the file.
    fn new(file: &File, offset: u64, len: u64) -> io::Result<Self> {
        let end = offset.checked_add(len).filter(|&end| end <= file.metadata().map_or(0, |m| m.len()));
        let (Some(_), Ok(offset), Ok(len)) = (end, usize::try_from(offset), usize::try_from(len)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let skipped = offset % page_size();
        let mapping = Mapping::new(file.as_raw_fd(), offset - skipped, len + skipped, libc::PROT_READ)?;
        Ok(Self { mapping, skipped, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is as long as this, and nobody writes to it or shortens its file.
        unsafe { std::slice::from_raw_parts(self.mapping.base().add(self.skipped), self.len) }
    }

    fn forget_pages(&self) {
        // SAFETY: pages of a file mapping that is only read come back from the file.
        unsafe {
            libc::madvise(self.mapping.base().cast(), self.skipped + self.len, libc::MADV_DONTNEED);
        }
    }
}
