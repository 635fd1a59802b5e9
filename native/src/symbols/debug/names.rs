//! All that names the code of one file: its symbols, those of its debug file, its source lines.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;

use super::super::elf::{ElfFile, ElfSymbols, Symbol, SymbolError, SymbolSource};
use super::known::KnownCalls;
use super::search::{DebugDirs, DebugFile, Found, Wanted, open_regular};
use super::source::{SourceCall, SourceInfo};

/// A distribution's debug image is a few megabytes.
const MAX_DEBUG_IMAGE_BYTES: u64 = 256 << 20;
const MAX_XZ_MEMORY_KIB: u32 = 64 << 10;

/// The code whose names are asked for.
pub struct CodeFile<'a> {
    /// None, and why: it is not here, but maybe a debug file.
    pub file: Result<&'a File, &'static str>,
    /// Where it was when it was mapped.
    pub path: &'a Path,
    pub build_id: Option<&'a [u8]>,
}

/// What names the code of one file.
pub struct CodeNames {
    /// Of the file itself.
    own: Option<ElfSymbols>,
    /// From its debug file, or from the debug image that it carries.
    debug: Option<ElfSymbols>,
    source: Option<SourceFiles>,
    symbols: String,
    debug_file: Option<PathBuf>,
}

impl CodeNames {
    /// Reads what there is.
    ///
    /// # Errors
    /// Why there are no names, in words: the file is not here, or damaged, and no debug file was found.
    pub fn load(code: &CodeFile<'_>, dirs: &DebugDirs) -> Result<Self, String> {
        let own = match code.file {
            Ok(file) => ElfSymbols::load(file).map_err(|error| error.to_string()),
            Err(reason) => Err(reason.to_string()),
        };
        if own.as_ref().is_ok_and(|own| code.build_id != own.build_id()) {
            return Err("file changed".to_string());
        }
        let elf = code.file.ok().and_then(|file| ElfFile::read(file).ok());
        let found = find(code, elf.as_ref(), dirs);
        let debug = found.symbols.as_ref().and_then(|debug| ElfSymbols::load_debug(&debug.file).ok());
        let debug = debug.filter(|debug| debug.source() == SymbolSource::Symtab);
        let needs_image =
            debug.is_none() && own.as_ref().is_ok_and(|own| own.source() != SymbolSource::Symtab);
        let image = elf.as_ref().filter(|_| needs_image).and_then(carried);
        let source = found.source.map(|file| SourceFiles::find(file, code, dirs));
        let symbols = match (&own, &debug, &image) {
            (_, Some(_), _) => "symtab".to_string(),
            (_, None, Some(_)) => "gnu_debugdata".to_string(),
            (Ok(own), None, None) => own.source().to_string(),
            (Err(_), None, None) if source.is_some() => "dwarf".to_string(),
            (Err(reason), None, None) => return Err(reason.clone()),
        };
        let used_symbols = found.symbols.filter(|_| debug.is_some());
        let debug_file = source.as_ref().map(|source| &source.debug).or(used_symbols.as_ref());
        let debug_file = debug_file.map(|debug| debug.path.clone());
        Ok(Self { own: own.ok(), debug: debug.or(image), source, symbols, debug_file })
    }

    /// How the names came here: a value of the column `modules.symbols`.
    pub fn symbols(&self) -> &str {
        &self.symbols
    }

    /// Where inlined calls and lines, or symbols that the file itself lacks, came from.
    pub fn debug_file(&self) -> Option<&Path> {
        self.debug_file.as_deref()
    }

    /// The address as linked of the code at a file offset.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.own.as_ref()?.address_of(file_offset)
    }

    /// The symbol that covers an address.  Stubs of the linkage table have names in the file itself alone.
    pub fn symbol_at(&self, address: u64) -> Option<Symbol<'_>> {
        let in_debug = self.debug.as_ref().and_then(|symbols| symbols.lookup(address));
        in_debug.or_else(|| self.own.as_ref()?.lookup(address))
    }

    /// The calls at each address, innermost first, the function itself last; see [`SourceInfo::calls`].
    pub fn calls(&self, addresses: &[u64], cache: &KnownCalls) -> Vec<Vec<SourceCall>> {
        match &self.source {
            Some(source) => source.calls(addresses, cache),
            None => vec![Vec::new(); addresses.len()],
        }
    }
}

/// Looks for what the file itself does not have.
fn find(code: &CodeFile<'_>, elf: Option<&ElfFile<'_>>, dirs: &DebugDirs) -> Found {
    let own_source = || {
        elf.filter(|elf| elf.has_dwarf())?;
        let file = code.file.ok()?.try_clone().ok()?;
        Some(DebugFile { path: code.path.to_path_buf(), file })
    };
    let (own_source, has_symtab) = (own_source(), elf.is_some_and(ElfFile::has_symtab));
    if has_symtab && own_source.is_some() {
        return Found { symbols: None, source: own_source };
    }
    let link = elf.and_then(ElfFile::debug_link);
    let wanted = Wanted { path: Some(code.path), build_id: code.build_id, link: link.as_ref() };
    let found = dirs.find(wanted);
    Found { symbols: found.symbols.filter(|_| !has_symtab), source: own_source.or(found.source) }
}

/// The files that hold the debug information of some code.
struct SourceFiles {
    debug: DebugFile,
    /// What dwz has moved out of it.
    supplementary: Option<File>,
    /// The split parts of its units.
    package: Option<File>,
}

impl SourceFiles {
    fn find(debug: DebugFile, code: &CodeFile<'_>, dirs: &DebugDirs) -> Self {
        let alt = ElfFile::read(&debug.file).ok().and_then(|elf| elf.alt_link());
        let supplementary =
            alt.and_then(|alt| dirs.find_supplementary(&debug.path, &alt.path, &alt.build_id));
        let package = [code.path, &debug.path].into_iter().find_map(|path| {
            let mut path = path.as_os_str().to_owned();
            path.push(".dwp");
            open_regular(Path::new(&path))
        });
        Self { debug, supplementary, package }
    }

    fn load(&self) -> Result<SourceInfo, SymbolError> {
        SourceInfo::load(&self.debug.file, self.supplementary.as_ref(), self.package.as_ref())
    }

    /// The debug information is read only for what was never asked for before.
    fn calls(&self, addresses: &[u64], cache: &KnownCalls) -> Vec<Vec<SourceCall>> {
        let files = [Some(&self.debug.file), self.supplementary.as_ref(), self.package.as_ref()];
        let key = cache.key(&files);
        let mut known = key.map(|key| cache.load(key)).unwrap_or_default();
        let mut missing: Vec<u64> = addresses.iter().copied().filter(|at| !known.contains_key(at)).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty()
            && let Ok(source) = self.load()
        {
            let calls = source.calls(&missing);
            known.extend(missing.into_iter().zip(calls));
            // The parts in files of their own may change without this one.
            if let Some(key) = key.filter(|_| source.is_whole()) {
                cache.store(key, &known);
            }
        }
        addresses.iter().map(|address| known.get(address).cloned().unwrap_or_default()).collect()
    }
}

/// The symbols in `.gnu_debugdata`.
fn carried(elf: &ElfFile<'_>) -> Option<ElfSymbols> {
    let compressed = elf.debug_data()?;
    let reader = XzReader::new_mem_limit(compressed.as_slice(), false, MAX_XZ_MEMORY_KIB);
    let mut image = Vec::new();
    reader.take(MAX_DEBUG_IMAGE_BYTES).read_to_end(&mut image).ok()?;
    let symbols = ElfSymbols::from_debug_bytes(&image).ok()?;
    (symbols.source() == SymbolSource::Symtab).then_some(symbols)
}
