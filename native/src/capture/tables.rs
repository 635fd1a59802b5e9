//! Keeps the unwind tables in the BPF programs' memory, as bpf/tables.h lays it out.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::programs::fill;
use crate::memory::Mapping;
use crate::unwind::{Table, WireRule};
use crate::wire::Inode;

const CHUNK_SHIFT: u32 = 15;
const CHUNK_WORDS: u32 = 1 << CHUNK_SHIFT;
const MAX_RULES: usize = 65536;
/// Chunks that are added at once, at least: 1 MiB.
const MIN_NEW_CHUNKS: usize = 8;
/// 48 MiB; numbers of words have 24 bits.
const MAX_WORDS: u32 = 12 << 20;
/// A page's rows are at most so many, and never cross the end of a chunk.
const MAX_ROWS_IN_PAGE: u32 = 255;
const UNSUPPORTED: u32 = 1;

/// `struct sberf_file_key`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    pub inode: u64,
    pub device: u32,
    /// 1: the vDSO; `inode` is 0 for that of 64-bit programs, 1 for that of 32-bit ones.
    pub kind: u32,
}

/// What becomes of a file that the unwinder has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready = 1,
    /// It describes no call frames.
    None = 2,
    Refused = 3,
}

/// Why a table could not be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("all tables together would take more than 48 MiB")]
    NoRoom,
    #[error("the kernel gave no memory")]
    NoMemory,
}

/// The maps that the tables live in.
pub struct TableMaps {
    pub chunks: MapHandle,
    pub rules: MapHandle,
    pub files: MapHandle,
    pub generation: MapHandle,
}

/// All tables of a capture.
pub struct TableStore {
    maps: TableMaps,
    chunks: Vec<(MapHandle, Mapping)>,
    rules: Mapping,
    rule_ids: HashMap<WireRule, u32, ahash::RandomState>,
    /// By their first word.
    free: Vec<Words>,
    installed: Vec<(FileKey, Words)>,
    generation: u32,
    pub evicted: u64,
}

/// A run of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    start: u32,
    len: u32,
}

impl TableStore {
    pub fn new(maps: TableMaps) -> io::Result<Self> {
        let rules = map_memory(&maps.rules, MAX_RULES * 16)?;
        let mut store = Self {
            maps,
            chunks: Vec::new(),
            rules,
            rule_ids: HashMap::default(),
            free: vec![Words { start: 0, len: MAX_WORDS }],
            installed: Vec::new(),
            generation: 0,
            evicted: 0,
        };
        store.rule_id(crate::unwind::Rule::NONE.to_wire());
        store.rule_id(crate::unwind::Rule::UNSUPPORTED.to_wire());
        Ok(store)
    }

    /// Lets the unwinder use a table, evicting those that were not used for longest.
    ///
    /// # Errors
    /// When there is no room for it; the unwinder then says so where it would need it.
    pub fn install(&mut self, key: FileKey, table: &Table) -> Result<(), Refused> {
        if self.installed.iter().any(|(installed, _)| *installed == key) {
            return Ok(()); // asked for before it was there
        }
        let pages = table.pages() as u32;
        let rows = table.rows.len() as u32;
        let crossings = rows / (CHUNK_WORDS - MAX_ROWS_IN_PAGE) + 2;
        let wanted = pages + rows + crossings * MAX_ROWS_IN_PAGE;
        let placed = self.allocate(wanted).ok_or(Refused::NoRoom).and_then(|words| {
            self.reserve(words.start + words.len).map_err(|_| Refused::NoMemory)?;
            let end = self.write(words, table);
            self.release(Words { start: end, len: words.start + words.len - end });
            Ok(Words { start: words.start, len: end - words.start })
        });
        match placed {
            Ok(words) => {
                self.installed.push((key, words));
                self.set(key, State::Ready, words.start, table.first_page, pages);
                Ok(())
            }
            Err(refused) => {
                self.refuse(key);
                Err(refused)
            }
        }
    }

    /// The file has no table: its code is walked by frame pointer.
    pub fn install_none(&mut self, key: FileKey) {
        self.set(key, State::None, 0, 0, 0);
    }

    /// The file's code cannot be unwound; the stacks that need it say so.
    pub fn refuse(&mut self, key: FileKey) {
        self.set(key, State::Refused, 0, 0, 0);
    }

    /// The file could not be read now; the next sample in it asks again.
    pub fn forget(&mut self, key: FileKey) {
        let _ = self.maps.files.delete(&key.to_bytes());
        self.bump();
    }

    fn set(&mut self, key: FileKey, state: State, index: u32, first_page: u32, pages: u32) {
        let mut value = [0; 24];
        for (at, word) in [state as u32, index, first_page, pages].into_iter().enumerate() {
            value[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        value[16..].copy_from_slice(&super::clock::monotonic_ns().to_ne_bytes());
        // The map is full: then the file stays unknown to the unwinder, which says so.
        let _ = self.maps.files.update(&key.to_bytes(), &value, MapFlags::ANY);
        self.bump();
    }

    fn bump(&mut self) {
        self.generation += 1;
        let _ =
            self.maps.generation.update(&0u32.to_ne_bytes(), &self.generation.to_ne_bytes(), MapFlags::ANY);
    }

    /// Writes index and rows; returns the word behind them.
    fn write(&mut self, words: Words, table: &Table) -> u32 {
        let ids: Vec<u32> = table.rules.iter().map(|rule| self.rule_id(rule.to_wire())).collect();
        let mut at = words.start + table.pages() as u32;
        let mut rows = table.rows.iter();
        for (page, range) in table.starts.windows(2).enumerate() {
            let count = range[1] - range[0];
            if at % CHUNK_WORDS + count > CHUNK_WORDS {
                at = at.next_multiple_of(CHUNK_WORDS);
            }
            self.word(words.start + page as u32).store(at << 8 | count, Ordering::Relaxed);
            for row in rows.by_ref().take(count as usize) {
                let id = ids.get((row & 0x3f_ffff) as usize).copied().unwrap_or(UNSUPPORTED);
                self.word(at).store(row & !0x3f_ffff | id, Ordering::Relaxed);
                at += 1;
            }
        }
        at
    }

    /// The same rule has the same number in all tables.
    fn rule_id(&mut self, rule: WireRule) -> u32 {
        if let Some(&id) = self.rule_ids.get(&rule) {
            return id;
        }
        let id = self.rule_ids.len();
        if id >= MAX_RULES {
            return UNSUPPORTED;
        }
        for (at, word) in rule.into_iter().enumerate() {
            // SAFETY: the mapping holds MAX_RULES aligned pairs of words of eight bytes.
            let place = unsafe { AtomicU64::from_ptr(self.rules.base().cast::<u64>().add(2 * id + at)) };
            place.store(word, Ordering::Relaxed);
        }
        self.rule_ids.insert(rule, id as u32);
        id as u32
    }

    fn word(&self, number: u32) -> &AtomicU32 {
        let base = self.chunks[(number >> CHUNK_SHIFT) as usize].1.base().cast::<u32>();
        // SAFETY: each mapping holds CHUNK_WORDS aligned words.
        unsafe { AtomicU32::from_ptr(base.add((number % CHUNK_WORDS) as usize)) }
    }

    /// Makes room for the words before `end`.  Several chunks at once: after each change of a map of maps the
    /// kernel waits until no program uses the old one, which takes 20 ms and more.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn reserve(&mut self, end: u32) -> io::Result<()> {
        let (have, needed) = (self.chunks.len(), end.div_ceil(CHUNK_WORDS) as usize);
        if needed <= have {
            return Ok(());
        }
        let wanted = needed.max(have + MIN_NEW_CHUNKS).min(MAX_WORDS.div_ceil(CHUNK_WORDS) as usize);
        let added = (have..wanted).map(|_| new_chunk()).collect::<io::Result<Vec<_>>>()?;
        let maps: Vec<_> = added.iter().map(|(map, _)| map).collect();
        fill(&self.maps.chunks, have as u32, &maps).map_err(io::Error::other)?;
        self.chunks.extend(added);
        Ok(())
    }

    /// Evicts other tables if need be.
    fn allocate(&mut self, len: u32) -> Option<Words> {
        let mut evicted = 0;
        let at = loop {
            match self.free.iter().position(|free| free.len >= len) {
                Some(at) => break at,
                None => self.evict()?,
            }
            evicted += 1;
        };
        if evicted > 0 {
            self.evicted += evicted;
            self.wait_for_programs();
        }
        let words = Words { start: self.free[at].start, len };
        self.free[at].start += len;
        self.free[at].len -= len;
        self.free.retain(|free| free.len > 0);
        Some(words)
    }

    fn release(&mut self, words: Words) {
        if words.len == 0 {
            return;
        }
        let at = self.free.partition_point(|free| free.start < words.start);
        self.free.insert(at, words);
        self.free.dedup_by(|next, last| {
            let adjacent = last.start + last.len == next.start;
            last.len += if adjacent { next.len } else { 0 };
            adjacent
        });
    }

    /// Removes the table that was not used for longest; None when there is none.  Programs may still read it.
    fn evict(&mut self) -> Option<()> {
        let used_ns = |key: &FileKey| {
            let value = self.maps.files.lookup(&key.to_bytes(), MapFlags::ANY).ok().flatten();
            value.map_or(0, |value| crate::wire::u64_at(&value, 16))
        };
        let (oldest, _) = self.installed.iter().enumerate().min_by_key(|(_, (key, _))| used_ns(key))?;
        let (key, words) = self.installed.swap_remove(oldest);
        self.forget(key);
        self.release(words);
        Some(())
    }

    /// Returns when no program uses what was removed before: an update of a map of maps waits for that
    /// (maybe_wait_bpf_programs() in kernel/bpf/syscall.c).
    fn wait_for_programs(&self) {
        if let Some((map, _)) = self.chunks.first() {
            let fd = map.as_fd().as_raw_fd().to_ne_bytes();
            let _ = self.maps.chunks.update(&0u32.to_ne_bytes(), &fd, MapFlags::ANY);
        }
    }
}

impl FileKey {
    pub fn of_inode(inode: Inode) -> Self {
        Self { inode: inode.inode, device: inode.major << 20 | inode.minor, kind: 0 }
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.inode.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.device.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.kind.to_ne_bytes());
        bytes
    }
}

/// Options of a new map.
pub fn map_options(map_flags: u32) -> libbpf_sys::bpf_map_create_opts {
    // SAFETY: all-zero options but for size and flags are what libbpf's own macro makes.
    let mut options: libbpf_sys::bpf_map_create_opts = unsafe { MaybeUninit::zeroed().assume_init() };
    options.sz = size_of::<libbpf_sys::bpf_map_create_opts>() as _;
    options.map_flags = map_flags;
    options
}

/// A piece of the memory that tables lie in.
pub fn new_chunk_map() -> libbpf_rs::Result<MapHandle> {
    let options = map_options(libbpf_sys::BPF_F_MMAPABLE);
    MapHandle::create(MapType::Array, Some("sberf_chunk"), 4, 4 * CHUNK_WORDS, 1, &options)
}

fn new_chunk() -> io::Result<(MapHandle, Mapping)> {
    let map = new_chunk_map().map_err(io::Error::other)?;
    let mapping = map_memory(&map, 4 * CHUNK_WORDS as usize)?;
    Ok((map, mapping))
}

fn map_memory(map: &MapHandle, len: usize) -> io::Result<Mapping> {
    Mapping::new(map.as_fd().as_raw_fd(), 0, len, libc::PROT_READ | libc::PROT_WRITE)
}
