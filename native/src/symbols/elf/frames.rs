//! Finds what a file says of its call frames, and where its code is.

use std::fs::File;

use object::elf;

use super::SymbolError;
use super::image::{Image, Section};
use super::input::Input;
use super::sections::Sections;
use super::table::{self, name_at};
use crate::unwind::{CallFrames, CodeSegment, Special};

/// The largest browser has 25 MB.
const MAX_FRAME_BYTES: u64 = 256 << 20;

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
    let sections = Sections::read(&mut input, &image);
    let mut section = |name: &[u8]| {
        let found = sections.find(name)?;
        Some((found.address, sections.content(&mut input, found, MAX_FRAME_BYTES)?))
    };
    let eh_frame = section(b".eh_frame");
    let debug_frame = section(b".debug_frame").map(|(_, bytes)| bytes);
    let eh_frame = eh_frame.or_else(|| eh_frame_of_header(&image, &mut input));
    let is_described = eh_frame.is_some() || debug_frame.is_some();
    let special = if sections.find(b".go.buildinfo").is_some() {
        functions_that_are(go_function, &mut input, &image)
    } else if image.machine != elf::EM_AARCH64 {
        Vec::new()
    } else if is_described {
        stubs_of_arm64(&sections)
    } else {
        functions_that_are(vdso_function, &mut input, &image)
    };
    let frames = CallFrames {
        machine: image.machine,
        is_64: image.format.is_64,
        big_endian: image.format.big_endian,
        entry: image.entry,
        special,
        eh_frame,
        debug_frame,
    };
    Ok((frames, image.code_segments()))
}

/// The functions that `special` knows by name.
fn functions_that_are(
    special: fn(&[u8]) -> Option<Special>,
    input: &mut Input,
    image: &Image,
) -> Vec<(u64, u64, Special)> {
    let Ok(table) = table::read(input, image) else { return Vec::new() };
    let spans = table.spans.iter();
    spans
        .filter_map(|span| Some((span.start, span.end, special(name_at(&table.names, span.value))?)))
        .collect()
}

/// Functions of Go's runtime that its call frames describe as if they were ordinary ones.
fn go_function(name: &[u8]) -> Option<Special> {
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
}

/// arm64's vDSO has no call frames, so that unwinders know a signal's frame by its code or its name.
fn vdso_function(name: &[u8]) -> Option<Special> {
    (name == b"__kernel_rt_sigreturn").then_some(Special::SignalReturn)
}

/// What follows the first stub, which is another one: it goes to the dynamic linker.
fn stubs_of_arm64(sections: &Sections) -> Vec<(u64, u64, Special)> {
    const FIRST_STUB_BYTES: u64 = 32;
    let plt = sections.find(b".plt").filter(|plt| plt.size > FIRST_STUB_BYTES);
    let end = |plt: &Section| plt.address.checked_add(plt.size);
    plt.and_then(|plt| Some((plt.address + FIRST_STUB_BYTES, end(plt)?, Special::Stubs)))
        .into_iter()
        .collect()
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
