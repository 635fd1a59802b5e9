//! Finds what a file says of its call frames, and where its code is.

use std::fs::File;

use object::elf;

use super::SymbolError;
use super::image::{Format, Image, Section};
use super::input::Input;
use super::table::{self, name_at};
use crate::unwind::{CallFrames, CodeSegment, Special};

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
        Some((found.address, content(&mut input, image.format, found)?))
    };
    let eh_frame = section(b".eh_frame");
    let debug_frame = section(b".debug_frame").map(|(_, bytes)| bytes);
    let is_go = section(b".go.buildinfo").is_some();
    let eh_frame = eh_frame.or_else(|| eh_frame_of_header(&image, &mut input));
    let frames = CallFrames {
        machine: image.machine,
        is_64: image.format.is_64,
        big_endian: image.format.big_endian,
        entry: image.entry,
        special: if is_go { go_functions(&mut input, &image) } else { Vec::new() },
        eh_frame,
        debug_frame,
    };
    Ok((frames, image.code_segments()))
}

/// Functions of Go's runtime that its call frames describe as if they were ordinary ones.
fn go_functions(input: &mut Input, image: &Image) -> Vec<(u64, u64, Special)> {
    let Ok(table) = table::read(input, image) else { return Vec::new() };
    let special = |name: &[u8]| {
        // The first thread's own stack goes on below the call that made the first goroutine.
        if name == b"runtime.newproc.abi0" {
            return Some(Special::Entry);
        }
        let name = name.strip_suffix(b".abi0").unwrap_or(name);
        match name.strip_prefix(b"runtime.")? {
            // A goroutine's or a thread's begin, and where the runtime goes over to a thread's own stack.
            b"goexit" | b"rt0_go" | b"mstart" | b"clone" | b"mcall" | b"systemstack" => Some(Special::Entry),
            b"sigreturn" | b"sigreturn__sigaction" => Some(Special::SignalReturn),
            _ => None,
        }
    };
    let spans = table.spans.iter();
    spans
        .filter_map(|span| Some((span.start, span.end, special(name_at(&table.names, span.value))?)))
        .collect()
}

/// None when it is left out, damaged or too large.
fn content(input: &mut Input, format: Format, section: &Section) -> Option<Vec<u8>> {
    if section.kind == elf::SHT_NOBITS || section.size > MAX_FRAME_BYTES {
        return None;
    }
    let bytes = input.read(section.offset, section.size, "the call frames").ok()?;
    if section.is_compressed() { decompress(format, &bytes) } else { Some(bytes) }
}

/// `{u32 type; u32 reserved (64-bit only); word size, align}` and the data: Go compresses its `.debug_frame`.
fn decompress(format: Format, bytes: &[u8]) -> Option<Vec<u8>> {
    let header_len = format.pick(12, 24);
    let (header, data) = bytes.split_at_checked(header_len)?;
    let uncompressed_size = format.word(header, 4, 8);
    let kind = match format.u32(header, 0) {
        1 => object::CompressionFormat::Zlib,
        2 => object::CompressionFormat::Zstandard,
        _ => return None,
    };
    if uncompressed_size > MAX_FRAME_BYTES {
        return None;
    }
    let compressed = object::CompressedData { format: kind, data, uncompressed_size };
    compressed.decompress().ok().map(std::borrow::Cow::into_owned)
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
