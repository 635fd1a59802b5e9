//! Names the code of one ELF file.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;

use super::range_map::RangeMap;
use super::text;
pub use file::{DebugLink, ElfFile, Extent};
pub use frames::{call_frames, call_frames_of_bytes};
use image::{Image, Segment};
use input::Input;

mod file;
mod frames;
mod image;
mod input;
mod plt;
mod sections;
mod table;
#[cfg(test)]
mod tests;

/// Why the symbols of a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("not a regular file")]
    NotRegular,
    #[error("not an ELF file")]
    NotElf,
    #[error("damaged ELF file: {0} lie outside the file")]
    OutsideFile(&'static str),
    #[error("damaged ELF file: {0} makes no sense")]
    Malformed(&'static str),
    #[error("{0} are too large to read")]
    TooLarge(&'static str),
}

/// Where the names of a file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolSource {
    Symtab,
    Dynsym,
    /// There are no names, and why.
    None(&'static str),
}

impl fmt::Display for SymbolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SymbolSource::Symtab => f.write_str("symtab"),
            SymbolSource::Dynsym => f.write_str("dynsym"),
            SymbolSource::None(reason) => write!(f, "none: {reason}"),
        }
    }
}

/// A function of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name as in the symbol table; `malloc@plt` for a stub of the procedure linkage table.
    pub name: Cow<'a, str>,
    /// The address of its first byte, as linked.
    pub start: u64,
    /// In bytes.  For a symbol that tells no size: as far as it can reach.
    pub size: u64,
}

/// The function symbols of one ELF file, from `.symtab`, else from `.dynsym`, and its PLT stubs.
#[derive(Debug)]
pub struct ElfSymbols {
    /// NUL-terminated names.
    names: Vec<u8>,
    /// By address as linked; the value is the offset in `names`.
    symbols: RangeMap,
    /// By file offset; the value is the index in `segments`.
    executable: RangeMap,
    segments: Vec<Segment>,
    build_id: Option<Vec<u8>>,
    source: SymbolSource,
}

impl ElfSymbols {
    /// Reads the symbols through `pread`; the file position does not move.
    ///
    /// # Errors
    /// When it is no regular file, no ELF file, or its headers or all its symbol tables are
    /// damaged.  A file without symbols is no error: see [`Self::source`].
    pub fn load(file: &File) -> Result<Self, SymbolError> {
        Self::read(Input::file(file)?)
    }

    /// Reads the symbols of an image in memory, such as the vDSO.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SymbolError> {
        Self::read(Input::bytes(bytes))
    }

    /// Reads the symbols of a debug file, which has no code of its own.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_debug(file: &File) -> Result<Self, SymbolError> {
        let mut input = Input::file(file)?;
        let image = Image::read(&mut input)?;
        Self::with_symbols(&mut input, image)
    }

    /// Reads the symbols of the debug image that a file carries in `.gnu_debugdata`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_debug_bytes(bytes: &[u8]) -> Result<Self, SymbolError> {
        let mut input = Input::bytes(bytes);
        let image = Image::read(&mut input)?;
        Self::with_symbols(&mut input, image)
    }

    fn read(mut input: Input) -> Result<Self, SymbolError> {
        let image = Image::read(&mut input)?;
        if !image.executable_segments().is_empty() {
            return Self::with_symbols(&mut input, image);
        }
        let none = SymbolSource::None("no executable segment");
        Ok(Self::new(&mut input, image, none, Vec::new(), RangeMap::default()))
    }

    fn with_symbols(input: &mut Input, image: Image) -> Result<Self, SymbolError> {
        let table = table::read(input, &image)?;
        Ok(Self::new(input, image, table.source, table.names, RangeMap::new(table.spans)))
    }

    fn new(input: &mut Input, image: Image, source: SymbolSource, names: Vec<u8>, symbols: RangeMap) -> Self {
        let (executable, build_id) = (image.executable_segments(), image.build_id(input));
        Self { names, symbols, executable, segments: image.segments, build_id, source }
    }

    /// The GNU build-id.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Where the names came from, or why there are none.
    pub fn source(&self) -> SymbolSource {
        self.source
    }

    /// Is any of its code in this file?  That of a debug file is elsewhere.
    pub fn has_code(&self) -> bool {
        !self.executable.is_empty()
    }

    /// The address as linked of the byte of code at `file_offset`.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let index = self.executable.find(file_offset)?.value;
        let segment = self.segments.get(index as usize)?;
        segment.address.checked_add(file_offset - segment.offset)
    }

    /// The symbol that covers the byte at `address`, as linked; never a neighbour.
    ///
    /// Among symbols that overlap the one that starts last wins.  A symbol that tells no size
    /// (often hand-written assembly) reaches to the next symbol or the end of its section.
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let span = self.symbols.find(address)?;
        let name = text::decode(table::name_at(&self.names, span.value));
        Some(Symbol { name, start: span.start, size: span.end - span.start })
    }
}

/// The GNU build-id of an ELF file, from as few reads as possible.
pub fn build_id(file: &File) -> Option<Vec<u8>> {
    let mut input = Input::file(file).ok()?;
    Image::read(&mut input).ok()?.build_id(&mut input)
}
