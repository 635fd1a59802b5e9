//! Frames of user code: which mapped file an address lies in, and how its names are found.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::FileStore;
use super::address_space::{Files, Map};
use super::code::{Code, Module, ModuleKind, NO_NAME};
use crate::error::describe;
use crate::symbols::{self, CodeFile, CodeNames, DebugDirs, ElfSymbols, Symbol};
use crate::unwind::Table;
use crate::vdso;
use crate::wire::{Inode, MappedFile};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// The vDSO of 32-bit processes is another one, and mapped below.
const FIRST_64_BIT_ADDRESS: u64 = 1 << 32;
const NO_SYMBOL_TABLE: &str = "none: code without a file";

/// What the addresses in a mapping mean.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Offsets in a file.
    File(u32),
    Vdso(u32),
    /// Memory that a program filled itself: only a jitdump or a perf map can name it.
    Generated(u32),
}

/// Path and build-id, or path and inode.
type FileKey = (String, Option<Vec<u8>>, Option<Inode>);

/// Finds the module of each mapped file, once.
pub struct MappedCode<'a> {
    files: &'a Files,
    store: &'a dyn FileStore,
    places: FastMap<u32, Place>,
    modules: FastMap<FileKey, u32>,
    vdso: Result<ElfSymbols, String>,
    /// By module; None: it has none.
    tables: FastMap<u32, Option<Arc<Table>>>,
}

impl<'a> MappedCode<'a> {
    /// `same_boot`: the vDSO of this process is that of the recorded ones.
    pub fn new(files: &'a Files, store: &'a dyn FileStore, same_boot: bool) -> Self {
        let vdso = if same_boot { own_vdso() } else { Err("rebooted since the recording".to_string()) };
        let (places, modules, tables) = (FastMap::default(), FastMap::default(), FastMap::default());
        Self { files, store, places, modules, vdso, tables }
    }

    pub fn place(&mut self, code: &mut Code, map: &Map) -> Place {
        if let Some(&place) = self.places.get(&map.file) {
            return place;
        }
        let file = self.files.get(map.file);
        let place = if file.path == "[vdso]" {
            self.vdso_place(code, map)
        } else if is_generated(file) {
            let path = if file.path.is_empty() { "//anon" } else { &file.path };
            Place::Generated(code.named_module(path, ModuleKind::Anon, NO_SYMBOL_TABLE))
        } else {
            Place::File(self.file_module(code, map.file))
        };
        if !matches!(place, Place::Vdso(_)) {
            self.places.insert(map.file, place); // both vDSOs have the same path
        }
        place
    }

    /// The unwind table of a module.
    pub fn table(&mut self, code: &Code, place: Place) -> Option<Arc<Table>> {
        let (Place::File(module) | Place::Vdso(module)) = place else { return None };
        if let Some(table) = self.tables.get(&module) {
            return table.clone();
        }
        let table = match (place, code.modules[module as usize].file) {
            (Place::File(_), Some(file)) => {
                let file = open_file(self.store, self.files.get(file)).ok();
                file.and_then(|file| symbols::call_frames(&file).ok())
            }
            (Place::Vdso(_), _) if code.modules[module as usize].path == "[vdso]" => {
                vdso::own_image().ok().and_then(|image| symbols::call_frames_of_bytes(&image).ok())
            }
            _ => None,
        };
        let table = table.and_then(|(frames, segments)| match self.store.table_cache() {
            Some(cache) => cache.table(&frames, &segments).ok().map(|found| found.table),
            None => Table::build(&frames, &segments).ok(),
        });
        let table = table.map(Arc::new);
        self.tables.insert(module, table.clone());
        table
    }

    /// The frame of an address in a vDSO.
    pub fn vdso_frame(&self, code: &mut Code, module: u32, offset: u64, is_return: bool) -> u32 {
        let is_ours = code.modules[module as usize].path == "[vdso]";
        let symbols = self.vdso.as_ref().ok().filter(|_| is_ours);
        let name = symbols.and_then(|symbols| vdso_function(symbols, offset, is_return));
        let name = name.map_or(NO_NAME, |name| code.names.plain(&name));
        code.frame(module, offset, is_return, name)
    }

    fn vdso_place(&self, code: &mut Code, map: &Map) -> Place {
        if map.start < FIRST_64_BIT_ADDRESS {
            let symbols = "none: the vDSO of 32-bit processes cannot be read";
            return Place::Vdso(code.named_module("[vdso32]", ModuleKind::Vdso, symbols));
        }
        let (build_id, symbols) = match &self.vdso {
            Ok(vdso) => (vdso.build_id().map(<[u8]>::to_vec), vdso.source().to_string()),
            Err(reason) => (None, format!("none: {reason}")),
        };
        Place::Vdso(code.named_module_with_id("[vdso]", build_id, ModuleKind::Vdso, &symbols))
    }

    fn file_module(&mut self, code: &mut Code, id: u32) -> u32 {
        let file = self.files.get(id);
        // /proc/PID/maps tells no build-id; the file itself must, so that both names of one file meet.
        let read_build_id = || symbols::build_id(&open_file(self.store, file).ok()?);
        let build_id = file.build_id.clone().or_else(read_build_id);
        let inode = file.inode.filter(|_| build_id.is_none());
        let key = (file.path.clone(), build_id.clone(), inode);
        if let Some(&module) = self.modules.get(&key) {
            return module;
        }
        let unread = "none: not looked up".to_string();
        let module = code.add_module(file.path.clone(), build_id, ModuleKind::Elf, unread, Some(id));
        self.modules.insert(key, module);
        module
    }
}

/// The file behind a mapping, or why there is none.
pub fn open_file(store: &dyn FileStore, file: &MappedFile) -> Result<File, &'static str> {
    match store.open(file) {
        Some(file) => Ok(file),
        None => open_here(file),
    }
}

/// What names the code of a module that a file backs, or why nothing does.
pub fn names_of(
    module: &Module,
    files: &Files,
    store: &dyn FileStore,
    dirs: &DebugDirs,
) -> Result<CodeNames, String> {
    let mapped = files.get(module.file.ok_or("file is gone")?);
    // A debug file alone does not say where in the code a file offset is.
    let file = open_file(store, mapped)?;
    let code =
        CodeFile { file: Ok(&file), path: Path::new(&mapped.path), build_id: module.build_id.as_deref() };
    CodeNames::load(&code, dirs)
}

/// The address whose symbol names a frame: of a return address, that of the call before it.
pub fn address_of_call<'a>(
    address: u64,
    is_return: bool,
    symbol_at: impl FnOnce(u64) -> Option<Symbol<'a>>,
) -> Option<u64> {
    // No call precedes a signal handler's return: the kernel makes it return to this function's begin.
    let is_begin = |symbol: &Symbol<'_>| symbol.start == address && is_signal_return(&symbol.name);
    match is_return && !symbol_at(address).is_some_and(|symbol| is_begin(&symbol)) {
        true => address.checked_sub(1),
        false => Some(address),
    }
}

fn is_signal_return(name: &str) -> bool {
    matches!(name, "__restore_rt" | "__restore" | "__kernel_rt_sigreturn" | "__kernel_sigreturn")
}

/// Opens the path on this system, provided that it is still the file that was mapped.
pub fn open_here(wanted: &MappedFile) -> Result<File, &'static str> {
    if !wanted.path.starts_with('/') {
        return Err("file is gone");
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&wanted.path);
    let file = file.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => "file may not be read",
        _ => "file is gone",
    })?;
    let metadata = file.metadata().map_err(|_| "file is gone")?;
    let is_same = match (&wanted.build_id, wanted.inode) {
        (Some(build_id), _) => symbols::build_id(&file).as_ref() == Some(build_id),
        (None, Some(inode)) => inode == inode_of(&metadata),
        (None, None) => false,
    };
    if is_same && metadata.is_file() { Ok(file) } else { Err("file changed") }
}

fn inode_of(metadata: &fs::Metadata) -> Inode {
    let device = metadata.dev();
    Inode { major: libc::major(device), minor: libc::minor(device), inode: metadata.ino() }
}

/// Is there no file that could name the code?  An ELF file in a memfd can.
fn is_generated(file: &MappedFile) -> bool {
    const PREFIXES: [&str; 6] = ["//anon", "/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage", "anon_inode:"];
    let path = &file.path;
    let unnamed = !path.starts_with('/') || PREFIXES.iter().any(|prefix| path.starts_with(prefix));
    // Compilers map the begin of a jitdump as if it were code, so that profilers find it.
    (unnamed || symbols::pid_in_jitdump_name(path).is_some()) && file.build_id.is_none()
}

fn vdso_function(vdso: &ElfSymbols, offset: u64, is_return: bool) -> Option<String> {
    let before = u64::from(is_return);
    let address = vdso.address_of(offset.checked_sub(before)?)?.checked_add(before)?;
    let address = address_of_call(address, is_return, |address| vdso.lookup(address))?;
    Some(vdso.lookup(address)?.name.into_owned())
}

fn own_vdso() -> Result<ElfSymbols, String> {
    let image = vdso::own_image().map_err(|error| describe(&error))?;
    ElfSymbols::from_bytes(&image).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_vdso_has_names() {
        let vdso = own_vdso().unwrap();
        let names: Vec<_> = (0..8192).filter_map(|offset| vdso_function(&vdso, offset, false)).collect();
        assert!(names.iter().any(|name| name.contains("clock_gettime")), "{:?}", names.first());
    }

    #[test]
    fn a_file_that_changed_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lib.so");
        fs::write(&path, "one").unwrap();
        let inode = Some(inode_of(&fs::metadata(&path).unwrap()));
        let file = MappedFile { path: path.to_str().unwrap().to_string(), build_id: None, inode };
        assert!(open_here(&file).is_ok());
        let other = MappedFile { build_id: Some(vec![1]), ..file.clone() };
        assert_eq!(open_here(&other).unwrap_err(), "file changed");
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(open_here(&file).unwrap_err(), "file changed");
        fs::remove_file(&path).unwrap();
        assert_eq!(open_here(&file).unwrap_err(), "file is gone");
    }
}
