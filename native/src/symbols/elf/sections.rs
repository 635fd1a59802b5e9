//! The named sections of a file, and their content.

use std::borrow::Cow;

use object::elf;

use super::image::{Format, Image, Section};
use super::input::Input;
use super::table::name_at;

const MAX_NAMES_BYTES: u64 = 1 << 20;

/// The section headers of a file, with their names.
pub struct Sections {
    format: Format,
    headers: Vec<Section>,
    names: Vec<u8>,
}

impl Sections {
    /// None of them when the headers are damaged or left out.
    pub fn read(input: &mut Input, image: &Image) -> Self {
        let headers = image.read_sections(input).unwrap_or_default();
        let names = image
            .section_names(&headers)
            .filter(|names| names.size <= MAX_NAMES_BYTES)
            .and_then(|names| input.read(names.offset, names.size, "the section names").ok())
            .unwrap_or_default();
        Self { format: image.format, headers, names }
    }

    /// The section of this name, when the file holds its content.
    pub fn find(&self, name: &[u8]) -> Option<&Section> {
        let is_named = |section: &&Section| name_at(&self.names, section.name) == name;
        self.headers.iter().find(is_named).filter(|section| section.kind != elf::SHT_NOBITS)
    }

    /// Is there a symbol table with the file's own functions, not only those that it exports?
    pub fn has_symtab(&self) -> bool {
        self.headers.iter().any(|section| section.kind == elf::SHT_SYMTAB)
    }

    /// What a section holds, decompressed; None when it is damaged or larger than `max_bytes`.
    pub fn content(&self, input: &mut Input, section: &Section, max_bytes: u64) -> Option<Vec<u8>> {
        if section.size > max_bytes {
            return None;
        }
        let bytes = input.read(section.offset, section.size, "the section").ok()?;
        if section.is_compressed() { decompress(self.format, &bytes, max_bytes) } else { Some(bytes) }
    }
}

/// `{u32 type; u32 reserved (64-bit only); word size, align}` and the data.
fn decompress(format: Format, bytes: &[u8], max_bytes: u64) -> Option<Vec<u8>> {
    let header_len = format.pick(12, 24);
    let (header, data) = bytes.split_at_checked(header_len)?;
    let uncompressed_size = format.word(header, 4, 8);
    let kind = match format.u32(header, 0) {
        1 => object::CompressionFormat::Zlib,
        2 => object::CompressionFormat::Zstandard,
        _ => return None,
    };
    if uncompressed_size > max_bytes {
        return None;
    }
    let compressed = object::CompressedData { format: kind, data, uncompressed_size };
    compressed.decompress().ok().map(Cow::into_owned)
}
