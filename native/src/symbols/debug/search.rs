//! Where debug files lie.
//!
//! A file's own debug information comes first.  Else, in this order: the directories that the user
//! names, `.gnu_debuglink`, the system's directory of build-ids, perf's cache, the file's own
//! `.gnu_debugdata`, the cache of debuginfod's clients.  What does not prove to belong to the code,
//! by build-id, or without one by the link's checksum, is never used.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::super::elf::{DebugLink, ElfFile, build_id};
use super::super::text::hex;

const SYSTEM_DIR: &str = "/usr/lib/debug";
/// A user's directory may be a whole file system.
const MAX_FILES: usize = 1 << 18;
const MAX_DEPTH: usize = 16;
const MAX_CHECKED_BYTES: u64 = 4 << 30;
const CHUNK_BYTES: usize = 1 << 20;

/// Directories in which to look for debug files.
#[derive(Default)]
pub struct DebugDirs {
    /// Those that the user named.
    pub extra: Vec<PathBuf>,
    pub system: Option<PathBuf>,
    /// Of perf.
    pub perf_cache: Option<PathBuf>,
    pub debuginfod_cache: Option<PathBuf>,
    /// The ELF files in `extra`, by build-id.
    pub index: OnceLock<HashMap<Vec<u8>, Vec<PathBuf>>>,
}

/// A file with symbols or debug information of some code.
#[derive(Debug)]
pub struct DebugFile {
    pub path: PathBuf,
    pub file: File,
}

/// What is known of the code.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// As it was mapped.
    pub path: Option<&'a Path>,
    pub build_id: Option<&'a [u8]>,
    pub link: Option<&'a DebugLink>,
}

/// What was found of it.
#[derive(Debug, Default)]
pub struct Found {
    pub symbols: Option<DebugFile>,
    /// Inlined calls and lines; the same file as `symbols`, or a later one.
    pub source: Option<DebugFile>,
}

impl DebugDirs {
    /// The usual places of this system and user, after `extra`.
    pub fn usual(extra: Vec<PathBuf>) -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let xdg_cache = variable("XDG_CACHE_HOME").map(|dir| dir.join("debuginfod_client"));
        Self {
            extra,
            system: Some(SYSTEM_DIR.into()),
            perf_cache: in_home(".debug"),
            debuginfod_cache: variable("DEBUGINFOD_CACHE_PATH")
                .or(xdg_cache)
                .or_else(|| in_home(".cache/debuginfod_client")),
            index: OnceLock::new(),
        }
    }

    /// The first debug file of the code that has symbols, and the first with source lines.
    pub fn find(&self, wanted: Wanted<'_>) -> Found {
        let mut found = Found::default();
        for path in self.candidates(wanted) {
            let Some(file) = open_regular(&path).filter(|file| belongs(file, wanted)) else { continue };
            let Ok(elf) = ElfFile::read(&file) else { continue };
            let (has_symtab, has_dwarf) = (elf.has_symtab(), elf.has_dwarf());
            if has_symtab && found.symbols.is_none() {
                found.symbols = file.try_clone().ok().map(|file| DebugFile { path: path.clone(), file });
            }
            if has_dwarf {
                found.source = Some(DebugFile { path, file });
                break;
            }
        }
        found
    }

    /// The code itself, in a directory that the user named.
    pub fn find_code(&self, build_id: &[u8]) -> Option<DebugFile> {
        let open = |path: &PathBuf| {
            let file = open_regular(path)?;
            let symbols = super::super::elf::ElfSymbols::load(&file).ok()?;
            symbols.has_code().then(|| DebugFile { path: path.clone(), file })
        };
        self.index().get(build_id)?.iter().find_map(open)
    }

    /// Where dwz's common part of a debug file may lie.
    pub fn find_supplementary(&self, debug_file: &Path, path: &[u8], build_id: &[u8]) -> Option<File> {
        let relative = Path::new(OsStr::from_bytes(path));
        let beside = debug_file.parent().map(|dir| dir.join(relative));
        let named = self.index().get(build_id).into_iter().flatten().cloned();
        let by_id = self.system.iter().map(|dir| by_build_id(dir, build_id).with_extension("debug"));
        let mut paths = beside.into_iter().chain(named).chain(by_id);
        paths.find_map(|path| {
            open_regular(&path).filter(|file| self::build_id(file).as_deref() == Some(build_id))
        })
    }

    fn candidates(&self, wanted: Wanted<'_>) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if let Some(id) = wanted.build_id {
            paths.extend(self.index().get(id).into_iter().flatten().cloned());
        }
        if let (Some(link), Some(dir)) = (wanted.link, wanted.path.and_then(Path::parent)) {
            // A name with a directory in it comes from nobody's linker.
            let name = Path::new(OsStr::from_bytes(&link.name));
            if name.file_name() == Some(name.as_os_str()) {
                paths.extend([dir.join(name), dir.join(".debug").join(name)]);
                let below = dir.strip_prefix("/").unwrap_or(dir);
                paths.extend(self.system.iter().map(|system| system.join(below).join(name)));
            }
        }
        if let Some(id) = wanted.build_id.filter(|id| id.len() > 1) {
            paths.extend(self.system.iter().map(|dir| by_build_id(dir, id).with_extension("debug")));
            let in_perf_cache = self.perf_cache.iter().map(|dir| by_build_id(dir, id));
            paths.extend(in_perf_cache.flat_map(|place| [place.join("debug"), place.join("elf")]));
            paths.extend(self.debuginfod_cache.iter().map(|dir| dir.join(hex(id)).join("debuginfo")));
        }
        paths
    }

    fn index(&self) -> &HashMap<Vec<u8>, Vec<PathBuf>> {
        self.index.get_or_init(|| {
            let mut index: HashMap<Vec<u8>, Vec<PathBuf>> = HashMap::new();
            let mut left = MAX_FILES;
            for dir in &self.extra {
                visit(dir, MAX_DEPTH, &mut left, &mut |path| {
                    if let Some(id) = open_regular(path).and_then(|file| build_id(&file)) {
                        index.entry(id).or_default().push(path.to_path_buf());
                    }
                });
            }
            index
        })
    }
}

/// Never blocks on what is no regular file: an untrusted process may have put it there.
pub fn open_regular(path: &Path) -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// The files below a directory; links are not followed.
fn visit(dir: &Path, depth: usize, left: &mut usize, see: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if *left == 0 {
            return;
        }
        *left -= 1;
        if metadata.is_dir() && depth > 0 {
            visit(&path, depth - 1, left, see);
        } else if metadata.is_file() {
            see(&path);
        }
    }
}

fn belongs(file: &File, wanted: Wanted<'_>) -> bool {
    match (wanted.build_id, wanted.link) {
        (Some(wanted), _) => build_id(file).as_deref() == Some(wanted),
        (None, Some(link)) => checksum(file) == Some(link.crc),
        (None, None) => false,
    }
}

fn checksum(file: &File) -> Option<u32> {
    let len = file.metadata().ok()?.len();
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < len.min(MAX_CHECKED_BYTES) {
        let part = file.read_at(&mut chunk, done).ok().filter(|&part| part > 0)?;
        hasher.update(&chunk[..part]);
        done += part as u64;
    }
    Some(hasher.finalize())
}

/// `DIR/.build-id/ab/cdef…`
fn by_build_id(dir: &Path, build_id: &[u8]) -> PathBuf {
    let hex = hex(build_id);
    let (first, rest) = hex.split_at_checked(2).unwrap_or((&hex, ""));
    dir.join(".build-id").join(first).join(rest)
}
