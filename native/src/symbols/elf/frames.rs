//! Finds what a file says of its call frames, and where its code is.

use std::fs::File;

use object::elf;

use super::SymbolError;
use super::image::{Image, Section};
use super::input::Input;
use super::table::name_at;
use crate::unwind::{CallFrames, CodeSegment};

/// The largest browser has 25 MB.
const MAX_FRAME_BYTES: u64 = 256 << 20;
const MAX_NAMES_BYTES: u64 = 1 << 20;

/// Reads `.eh_frame` and `.debug_frame` of a file, and its executable segments.
///
/// # Errors
/// When it is no ELF file, or its headers are damaged.
pub fn call_frames(file: &File) -> Result<(CallFrames, Vec<CodeSegment>), SymbolError> {
    read(Input::file(file)?)
}

/// The same of an image in memory, such as the vDSO.
///
/// # Errors
/// As [`call_frames`].
pub fn call_frames_of_bytes(bytes: &[u8]) -> Result<(CallFrames, Vec<CodeSegment>), SymbolError> {
    read(Input::bytes(bytes))
}

fn read(mut input: Input) -> Result<(CallFrames, Vec<CodeSegment>), SymbolError> {
    let image = Image::read(&mut input)?;
    let sections = image.read_sections(&mut input).unwrap_or_default();
    let names = image
        .section_names(&sections)
        .filter(|names| names.size <= MAX_NAMES_BYTES)
        .and_then(|names| input.read(names.offset, names.size, "the section names").ok())
        .unwrap_or_default();
    let mut section = |name: &[u8]| {
        let found = sections.iter().find(|section| name_at(&names, section.name) == name)?;
        Some((found.address, content(&mut input, found)?))
    };
    let eh_frame = section(b".eh_frame");
    let debug_frame = section(b".debug_frame").map(|(_, bytes)| bytes);
    let eh_frame = eh_frame.or_else(|| eh_frame_of_header(&image, &mut input));
    let frames = CallFrames {
        machine: image.machine,
        is_64: image.format.is_64,
        big_endian: image.format.big_endian,
        entry: image.entry,
        eh_frame,
        debug_frame,
    };
    Ok((frames, image.code_segments()))
}

/// None when it is compressed, left out or too large.
fn content(input: &mut Input, section: &Section) -> Option<Vec<u8>> {
    let plain =
        section.kind != elf::SHT_NOBITS && !section.is_compressed() && section.size <= MAX_FRAME_BYTES;
    if plain { input.read(section.offset, section.size, "the call frames").ok() } else { None }
}

/// Without section headers: `.eh_frame_hdr` begins `{u8 version, u8 encodings[3], s32 place}`, where the
/// place of `.eh_frame` is relative to itself, as all linkers write it.
fn eh_frame_of_header(image: &Image, input: &mut Input) -> Option<(u64, Vec<u8>)> {
    const PCREL_SDATA4: u8 = 0x1b;
    let header = image.segments.iter().find(|segment| segment.kind == elf::PT_GNU_EH_FRAME)?;
    let bytes = input.read(header.offset, 8, "the frame header").ok()?;
    if bytes[0] != 1 || bytes[1] != PCREL_SDATA4 {
        return None;
    }
    let distance = i64::from(image.format.u32(&bytes, 4) as i32);
    let address = (header.address + 4).wrapping_add_signed(distance);
    let segment = image.segments.iter().find(|segment| {
        segment.kind == elf::PT_LOAD
            && segment.address <= address
            && address - segment.address < segment.file_size
    })?;
    let skipped = address - segment.address;
    // Its length is told nowhere: it ends with an entry of length 0.
    let len = (segment.file_size - skipped).min(MAX_FRAME_BYTES);
    Some((address, input.read(segment.offset + skipped, len, "the call frames").ok()?))
}
