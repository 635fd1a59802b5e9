//! Which inlined calls and source lines an address came from.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{
    Dwarf, DwarfFileType, DwarfPackageSections, DwarfSections, EndianSlice, RunTimeEndian, SectionId,
};
use rayon::prelude::*;
use typed_arena::Arena;

use super::super::elf::{ElfFile, SymbolError};
use super::data::Data;
use super::search::open_regular;
use crate::symbols::text;

type Reader<'a> = EndianSlice<'a, RunTimeEndian>;

/// So many addresses are worth a context of their own, which another CPU can work on.
const ADDRESSES_IN_PART: usize = 4096;
/// More calls than any compiler inlines into one another.
const MAX_INLINED: usize = 256;
/// A damaged or hostile file gets so much time for all its addresses.
const TIME_LIMIT: Duration = Duration::from_secs(60);
const CHECKED_EVERY: usize = 64;

/// One call at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCall {
    /// As the linker knows it; None where the debug information has no name.
    pub function: Option<Arc<str>>,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
}

/// The debug information of one file.
pub struct SourceInfo {
    sections: DwarfSections<Data>,
    /// What dwz took out of it.
    supplementary: Option<DwarfSections<Data>>,
    /// The split parts of its units, in one file.
    package: Option<DwarfPackageSections<Data>>,
    endian: RunTimeEndian,
    /// Were other files or a limit met, so that the next time more may be found?
    incomplete: AtomicBool,
}

impl SourceInfo {
    /// Reads the sections of `file`.  `supplementary`: the file that its `.gnu_debugaltlink` names;
    /// `package`: its `.dwp` file.
    ///
    /// # Errors
    /// When it is no ELF file, or its headers are damaged.
    pub fn load(
        file: &File,
        supplementary: Option<&File>,
        package: Option<&File>,
    ) -> Result<Self, SymbolError> {
        let elf = ElfFile::read(file)?;
        let endian = if elf.is_big_endian() { RunTimeEndian::Big } else { RunTimeEndian::Little };
        let supplementary = supplementary.and_then(|file| Some(sections(file, &ElfFile::read(file).ok()?)));
        let package = package.and_then(|file| package_sections(file, &ElfFile::read(file).ok()?));
        Ok(Self {
            sections: sections(file, &elf),
            supplementary,
            package,
            endian,
            incomplete: AtomicBool::new(false),
        })
    }

    /// The calls at each of these addresses (as linked), innermost first, the function itself last;
    /// none where nothing is known.
    pub fn calls(&self, addresses: &[u64]) -> Vec<Vec<SourceCall>> {
        let deadline = Instant::now() + TIME_LIMIT;
        let parts = addresses.par_chunks(ADDRESSES_IN_PART);
        parts.flat_map_iter(|part| self.calls_in_part(part, deadline)).collect()
    }

    /// Did everything come from the files that were given?
    pub fn is_whole(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }

    fn calls_in_part(&self, addresses: &[u64], deadline: Instant) -> Vec<Vec<SourceCall>> {
        let mut calls = vec![Vec::new(); addresses.len()];
        let loaded = Arena::new();
        let dwarf = self.sections.borrow_with_sup(self.supplementary.as_ref(), |data| self.slice(data));
        let Ok(context) = Context::from_dwarf(dwarf) else { return calls };
        let mut texts = Interned::default();
        for (at, (&address, calls)) in addresses.iter().zip(&mut calls).enumerate() {
            if at % CHECKED_EVERY == 0 && Instant::now() > deadline {
                self.incomplete.store(true, Ordering::Relaxed);
                break;
            }
            // What a damaged place cuts off is unknown, not wrong.
            let _ = self.add_calls(&context, &loaded, address, &mut texts, calls);
        }
        self.forget_pages();
        calls
    }

    fn add_calls<'a>(
        &'a self,
        context: &Context<Reader<'a>>,
        loaded: &'a Arena<DwarfSections<Data>>,
        address: u64,
        texts: &mut Interned,
        calls: &mut Vec<SourceCall>,
    ) -> gimli::Result<()> {
        let mut lookup = context.find_frames(address);
        let mut frames = loop {
            match lookup {
                LookupResult::Output(frames) => break frames?,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.split(load, loaded));
                }
            }
        };
        while let Some(frame) = frames.next()?
            && calls.len() < MAX_INLINED
        {
            let name = frame.function.as_ref().map(|function| text::decode(function.name.slice()));
            let location = frame.location.as_ref();
            calls.push(SourceCall {
                function: name.filter(|name| !name.is_empty()).map(|name| texts.get(&name)),
                file: location.and_then(|location| location.file).map(|file| texts.get(file)),
                line: location.and_then(|location| location.line).filter(|&line| line != 0),
            });
        }
        Ok(())
    }

    /// The part of a unit that the compiler left in a file of its own.
    fn split<'a>(
        &'a self,
        load: SplitDwarfLoad<Reader<'a>>,
        loaded: &'a Arena<DwarfSections<Data>>,
    ) -> Option<Arc<Dwarf<Reader<'a>>>> {
        if let Some(sections) = &self.package {
            let empty = EndianSlice::new(&[], self.endian);
            let package = sections.borrow(|data| self.slice(data), empty).ok()?;
            if let Some(unit) = package.find_cu(load.dwo_id, &load.parent).ok()? {
                return Some(Arc::new(unit));
            }
        }
        self.incomplete.store(true, Ordering::Relaxed);
        let mut path = PathBuf::from(os_text(load.comp_dir.as_ref().map_or(&[][..], |dir| dir.slice())));
        path.push(os_text(load.path?.slice()));
        let file = open_regular(&path)?;
        let elf = ElfFile::read(&file).ok()?;
        let sections = &*loaded.alloc(split_sections(&file, &elf));
        let mut dwarf = sections.borrow(|data| self.slice(data));
        dwarf.make_dwo(&load.parent);
        dwarf.file_type = DwarfFileType::Dwo;
        let header = dwarf.units().next().ok()??;
        let unit = dwarf.unit(header).ok()?;
        (unit.dwo_id == Some(load.dwo_id)).then(|| Arc::new(dwarf))
    }

    fn slice<'a>(&self, data: &'a Data) -> Reader<'a> {
        EndianSlice::new(data, self.endian)
    }

    /// What one part has read is of little use to the next.
    fn forget_pages(&self) {
        for sections in [Some(&self.sections), self.supplementary.as_ref()].into_iter().flatten() {
            sections.borrow(|data| {
                data.forget_pages();
                self.slice(data)
            });
        }
    }
}

fn os_text(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// What is never asked for is not read.
fn is_needed(id: SectionId) -> bool {
    !matches!(
        id,
        SectionId::DebugLoc | SectionId::DebugLocLists | SectionId::DebugMacinfo | SectionId::DebugMacro
    )
}

fn load(file: &File, elf: &ElfFile<'_>, id: SectionId, name: Option<&str>) -> Data {
    match name.filter(|_| is_needed(id)) {
        Some(name) => Data::load(file, elf, name),
        None => Data::Memory(Vec::new()),
    }
}

fn sections(file: &File, elf: &ElfFile<'_>) -> DwarfSections<Data> {
    let load = |id: SectionId| Ok::<_, std::convert::Infallible>(load(file, elf, id, Some(id.name())));
    let Ok(sections) = DwarfSections::load(load);
    sections
}

fn split_sections(file: &File, elf: &ElfFile<'_>) -> DwarfSections<Data> {
    let load = |id: SectionId| Ok::<_, std::convert::Infallible>(load(file, elf, id, id.dwo_name()));
    let Ok(sections) = DwarfSections::load(load);
    sections
}

/// All of them: the package's index gives each unit its part of every section.
fn package_sections(file: &File, elf: &ElfFile<'_>) -> Option<DwarfPackageSections<Data>> {
    DwarfPackageSections::load(|id| {
        let name = id.dwo_name().unwrap_or_default();
        Ok::<_, gimli::Error>(Data::load(file, elf, name))
    })
    .ok()
}

/// Names and paths, each kept once.
#[derive(Default)]
struct Interned {
    all: HashSet<Arc<str>, ahash::RandomState>,
}

impl Interned {
    fn get(&mut self, text: &str) -> Arc<str> {
        self.all.get(text).cloned().unwrap_or_else(|| {
            let new: Arc<str> = text.into();
            self.all.insert(Arc::clone(&new));
            new
        })
    }
}
