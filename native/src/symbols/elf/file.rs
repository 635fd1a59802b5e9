//! What an ELF file holds beside its code: where its debug information is.

use std::fs::File;

use super::SymbolError;
use super::image::Image;
use super::input::Input;
use super::sections::Sections;

const MAX_LINK_BYTES: u64 = 8 << 10;
/// A distribution's `.gnu_debugdata` is a few hundred KB.
const MAX_DEBUG_DATA_BYTES: u64 = 64 << 20;

/// The headers of one ELF file.
pub struct ElfFile<'a> {
    file: &'a File,
    image: Image,
    sections: Sections,
}

/// Where the content of a section lies in its file.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
    pub compressed: bool,
}

/// `.gnu_debuglink`: a debug file's name, and the checksum of its content.
#[derive(Debug, PartialEq, Eq)]
pub struct DebugLink {
    pub name: Vec<u8>,
    pub crc: u32,
}

/// `.gnu_debugaltlink`: the file in which dwz put what several debug files share.
#[derive(Debug, PartialEq, Eq)]
pub struct AltLink {
    pub path: Vec<u8>,
    pub build_id: Vec<u8>,
}

impl<'a> ElfFile<'a> {
    /// # Errors
    /// When it is no regular file, no ELF file, or its headers are damaged.
    pub fn read(file: &'a File) -> Result<Self, SymbolError> {
        let mut input = Input::file(file)?;
        let image = Image::read(&mut input)?;
        let sections = Sections::read(&mut input, &image);
        Ok(Self { file, image, sections })
    }

    pub fn is_big_endian(&self) -> bool {
        self.image.format.big_endian
    }

    pub fn has_symtab(&self) -> bool {
        self.sections.has_symtab()
    }

    /// Does it say which source lines its code came from?
    pub fn has_dwarf(&self) -> bool {
        self.sections.find(b".debug_info").is_some()
    }

    /// Where a section's content lies.
    pub fn extent(&self, name: &str) -> Option<Extent> {
        let section = self.sections.find(name.as_bytes())?;
        Some(Extent { offset: section.offset, len: section.size, compressed: section.is_compressed() })
    }

    /// What a section holds, decompressed; None when it is damaged or larger than `max_bytes`.
    pub fn content(&self, name: &str, max_bytes: u64) -> Option<Vec<u8>> {
        let section = self.sections.find(name.as_bytes())?;
        self.sections.content(&mut Input::file(self.file).ok()?, section, max_bytes)
    }

    pub fn debug_link(&self) -> Option<DebugLink> {
        let content = self.content(".gnu_debuglink", MAX_LINK_BYTES)?;
        let name = content.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
        let crc_at = (name.len() + 1).next_multiple_of(4);
        let crc = content.get(crc_at..crc_at + 4)?;
        Some(DebugLink { name: name.to_vec(), crc: self.image.format.u32(crc, 0) })
    }

    pub fn alt_link(&self) -> Option<AltLink> {
        let content = self.content(".gnu_debugaltlink", MAX_LINK_BYTES)?;
        let end = content.iter().position(|&byte| byte == 0)?;
        let (path, build_id) = (content[..end].to_vec(), content[end + 1..].to_vec());
        (!path.is_empty() && !build_id.is_empty()).then_some(AltLink { path, build_id })
    }

    /// The compressed debug image with the symbols that the file itself lacks, as Fedora has it.
    pub fn debug_data(&self) -> Option<Vec<u8>> {
        self.content(".gnu_debugdata", MAX_DEBUG_DATA_BYTES)
    }
}
