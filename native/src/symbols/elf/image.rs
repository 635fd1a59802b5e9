//! The headers of an ELF file: class, byte order, segments and sections.

use object::elf;

use super::super::range_map::{RangeMap, Span};
use super::SymbolError;
use super::input::Input;
use crate::unwind::CodeSegment;

/// Linked files have less than a hundred; the format allows 4 billion.
const MAX_HEADERS: u64 = 1 << 20;
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// The kernel's own limit is 20; ld accepts any length.
const MAX_BUILD_ID_BYTES: usize = 64;

/// Word size and byte order of the file.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub is_64: bool,
    pub big_endian: bool,
}

impl Format {
    fn number(self, record: &[u8], at: usize, size: usize) -> u64 {
        let bytes = record.get(at..at + size).unwrap_or_default();
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }

    pub fn u16(self, record: &[u8], at: usize) -> u16 {
        self.number(record, at, 2) as u16
    }

    pub fn u32(self, record: &[u8], at: usize) -> u32 {
        self.number(record, at, 4) as u32
    }

    pub fn u64(self, record: &[u8], at: usize) -> u64 {
        self.number(record, at, 8)
    }

    /// An address, offset or size: 4 bytes at `at_32` or 8 bytes at `at_64`.
    pub fn word(self, record: &[u8], at_32: usize, at_64: usize) -> u64 {
        if self.is_64 { self.u64(record, at_64) } else { u64::from(self.u32(record, at_32)) }
    }

    pub fn pick(self, in_32: usize, in_64: usize) -> usize {
        if self.is_64 { in_64 } else { in_32 }
    }
}

/// One entry of the program header table.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub kind: elf::ProgramType,
    flags: elf::ProgramFlags,
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
    pub align: u64,
}

impl Segment {
    fn parse(format: Format, record: &[u8]) -> Self {
        Segment {
            kind: elf::ProgramType(format.u32(record, 0)),
            flags: elf::ProgramFlags(format.u32(record, format.pick(24, 4))),
            offset: format.word(record, 4, 8),
            address: format.word(record, 8, 16),
            file_size: format.word(record, 16, 32),
            align: format.word(record, 28, 48),
        }
    }
}

/// One entry of the section header table.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub name: u32,
    pub kind: elf::SectionType,
    flags: elf::SectionFlags,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
    info: u32,
    align: u64,
    pub entry_size: u64,
}

impl Section {
    fn parse(format: Format, record: &[u8]) -> Self {
        Section {
            name: format.u32(record, 0),
            kind: elf::SectionType(format.u32(record, 4)),
            flags: elf::SectionFlags(format.word(record, 8, 8)),
            address: format.word(record, 12, 16),
            offset: format.word(record, 16, 24),
            size: format.word(record, 20, 32),
            link: format.u32(record, format.pick(24, 40)),
            info: format.u32(record, format.pick(28, 44)),
            align: format.word(record, 32, 48),
            entry_size: format.word(record, 36, 56),
        }
    }

    pub fn is_loaded(&self) -> bool {
        self.flags.contains(elf::SHF_ALLOC) && self.kind != elf::SHT_NOBITS
    }

    /// Debug files keep the headers of the code, but not the code.
    pub fn is_code(&self) -> bool {
        self.flags.contains(elf::SHF_ALLOC) && self.flags.contains(elf::SHF_EXECINSTR)
    }

    pub fn is_compressed(&self) -> bool {
        self.flags.contains(elf::SHF_COMPRESSED)
    }

    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }

    pub fn contains(&self, address: u64) -> bool {
        self.address <= address && address < self.end()
    }
}

/// The ELF header and the program headers: all that the loader needs.
#[derive(Debug)]
pub struct Image {
    pub format: Format,
    pub machine: elf::Machine,
    /// Where the program begins, 0 for most libraries.
    pub entry: u64,
    pub segments: Vec<Segment>,
    section_table: Option<TablePlace>,
    section_names_index: u32,
}

#[derive(Clone, Copy, Debug)]
struct TablePlace {
    offset: u64,
    count: u64,
}

impl Image {
    /// # Errors
    /// `NotElf`, or the reason why the headers cannot be read.
    pub fn read(input: &mut Input) -> Result<Self, SymbolError> {
        let format = read_format(input)?;
        let header_size = format.pick(52, 64) as u64;
        let header = input.read(0, header_size, "the ELF header")?;
        let half = |in_32, in_64| format.u16(&header, format.pick(in_32, in_64));
        let mut image = Image {
            format,
            machine: elf::Machine(format.u16(&header, 18)),
            entry: format.word(&header, 24, 24),
            segments: Vec::new(),
            section_table: None,
            section_names_index: u32::from(half(50, 62)),
        };
        let mut segment_count = u64::from(half(44, 56));
        let section_offset = format.word(&header, 32, 40);
        let mut section_count = u64::from(half(48, 60));
        let section_size = format.pick(40, 64);
        if section_offset != 0 && usize::from(half(46, 58)) == section_size {
            // Counts that do not fit in the header are in the first section header.
            let first = image.first_section(input, section_offset);
            if let (0, Some(first)) = (section_count, first) {
                section_count = first.size;
            }
            if let (0xffff, Some(first)) = (segment_count, first) {
                segment_count = u64::from(first.info);
            }
            if let (0xffff, Some(first)) = (image.section_names_index, first) {
                image.section_names_index = first.link;
            }
            image.section_table = Some(TablePlace { offset: section_offset, count: section_count });
        }
        if segment_count != 0 && usize::from(half(42, 54)) != format.pick(32, 56) {
            return Err(SymbolError::Malformed("the size of a program header"));
        }
        let segment_offset = format.word(&header, 28, 32);
        image.read_segments(input, segment_offset, segment_count)?;
        Ok(image)
    }

    fn first_section(&self, input: &mut Input, offset: u64) -> Option<Section> {
        let size = self.format.pick(40, 64) as u64;
        let record = input.read(offset, size, "the section headers").ok()?;
        Some(Section::parse(self.format, &record))
    }

    fn read_segments(&mut self, input: &mut Input, offset: u64, count: u64) -> Result<(), SymbolError> {
        let format = self.format;
        let record_size = format.pick(32, 56);
        let what = "the program headers";
        let size = table_size(count, record_size, what)?;
        input.records(offset, size, record_size, what, |record| {
            self.segments.push(Segment::parse(format, record));
            Ok(())
        })
    }

    /// Reads the section headers; none when the file has no section header table.
    pub fn read_sections(&self, input: &mut Input) -> Result<Vec<Section>, SymbolError> {
        let Some(place) = self.section_table else {
            return Ok(Vec::new());
        };
        let what = "the section headers";
        let record_size = self.format.pick(40, 64);
        let size = table_size(place.count, record_size, what)?;
        let mut sections = Vec::new();
        input.records(place.offset, size, record_size, what, |record| {
            sections.push(Section::parse(self.format, record));
            Ok(())
        })?;
        Ok(sections)
    }

    /// The section that holds the section names.
    pub fn section_names<'a>(&self, sections: &'a [Section]) -> Option<&'a Section> {
        sections.get(self.section_names_index as usize)
    }

    /// Where the file's bytes are executable: from file offset to the index of the segment.
    pub fn executable_segments(&self) -> RangeMap {
        let spans = self.segments.iter().enumerate().filter_map(|(i, segment)| {
            let is_code = segment.kind == elf::PT_LOAD && segment.flags.contains(elf::PF_X);
            is_code.then(|| Span {
                start: segment.offset,
                end: segment.offset.saturating_add(segment.file_size),
                value: i as u32,
                priority: i as u32,
            })
        });
        RangeMap::new(spans.collect())
    }

    /// The segments that are mapped executable.
    pub fn code_segments(&self) -> Vec<CodeSegment> {
        let code = self.segments.iter().filter(|s| s.kind == elf::PT_LOAD && s.flags.contains(elf::PF_X));
        code.map(|s| CodeSegment { offset: s.offset, address: s.address, len: s.file_size }).collect()
    }

    /// The GNU build-id from the note segments, else from the note sections.
    pub fn build_id(&self, input: &mut Input) -> Option<Vec<u8>> {
        let notes = self.segments.iter().filter(|s| s.kind == elf::PT_NOTE);
        let found = notes.into_iter().find_map(|s| self.build_id_in(input, s.offset, s.file_size, s.align));
        if found.is_some() || self.segments.iter().any(|s| s.kind == elf::PT_LOAD) {
            return found;
        }
        // Relocatable files (kernel modules) have no segments.
        let sections = self.read_sections(input).ok()?;
        sections
            .iter()
            .filter(|section| section.kind == elf::SHT_NOTE)
            .find_map(|s| self.build_id_in(input, s.offset, s.size, s.align))
    }

    fn build_id_in(&self, input: &mut Input, offset: u64, size: u64, align: u64) -> Option<Vec<u8>> {
        if size > MAX_NOTE_BYTES {
            return None;
        }
        let notes = input.read(offset, size, "the notes").ok()?;
        let align = if align == 8 { 8 } else { 4 };
        find_build_id(self.format, &notes, align).map(<[u8]>::to_vec)
    }
}

fn table_size(count: u64, record_size: usize, what: &'static str) -> Result<u64, SymbolError> {
    if count > MAX_HEADERS {
        return Err(SymbolError::TooLarge(what));
    }
    Ok(count * record_size as u64)
}

fn read_format(input: &mut Input) -> Result<Format, SymbolError> {
    let ident = input.read(0, 16, "the ELF header").map_err(|error| match error {
        SymbolError::OutsideFile(_) => SymbolError::NotElf,
        other => other,
    })?;
    if ident[..4] != elf::ELFMAG {
        return Err(SymbolError::NotElf);
    }
    let is_64 = match ident[4] {
        1 => false,
        2 => true,
        _ => return Err(SymbolError::Malformed("the ELF class")),
    };
    let big_endian = match ident[5] {
        1 => false,
        2 => true,
        _ => return Err(SymbolError::Malformed("the byte order")),
    };
    Ok(Format { is_64, big_endian })
}

/// Walks notes: name size, descriptor size, type (4 bytes each), name, descriptor, both padded.
fn find_build_id(format: Format, notes: &[u8], align: usize) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(header) = notes.get(at..at + 12) {
        let name_size = format.u32(header, 0) as usize;
        let desc_size = format.u32(header, 4) as usize;
        let name = notes.get(at + 12..(at + 12).checked_add(name_size)?)?;
        let desc_at = (at + 12 + name_size).next_multiple_of(align);
        let desc_end = desc_at.checked_add(desc_size)?;
        let desc = notes.get(desc_at..desc_end);
        if format.u32(header, 8) == elf::NT_GNU_BUILD_ID.0 && name == b"GNU\0" {
            return desc.filter(|id| !id.is_empty() && id.len() <= MAX_BUILD_ID_BYTES);
        }
        desc?;
        at = desc_end.next_multiple_of(align);
    }
    None
}
