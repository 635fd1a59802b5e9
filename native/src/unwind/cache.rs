//! Tables on disk: what took long to make is not made again.

use super::CallFrames;
use super::stored;
use super::table::{CodeSegment, Table, TableError};
use crate::disk_cache::{DiskCache, Key};

const CACHE_NAME: &str = "tables";
const MAX_CACHE_BYTES: u64 = 256 << 20;
/// Descriptions that are shorter take less than about a millisecond.
const MIN_FRAME_BYTES: usize = 64 << 10;
/// Another version of the builder may make other tables.
const BUILDER: [&str; 4] = [
    include_str!("cfi.rs"),
    include_str!("rule.rs"),
    include_str!("table.rs"),
    include_str!("../../Cargo.lock"),
];

/// The tables that earlier captures have left.
pub struct TableCache(DiskCache);

/// A table and where it came from.
pub struct Found {
    pub table: Table,
    pub cached: bool,
    /// None: it is not worth keeping.
    key: Option<Key>,
}

impl TableCache {
    /// The cache of this user.
    pub fn open() -> Self {
        Self(DiskCache::open(CACHE_NAME, MAX_CACHE_BYTES))
    }

    /// The table of a file, from the cache or made now.
    ///
    /// # Errors
    /// As [`Table::build`].
    pub fn table(&self, frames: &CallFrames, segments: &[CodeSegment]) -> Result<Found, TableError> {
        let key = if frames.len() < MIN_FRAME_BYTES { None } else { self.key(frames, segments) };
        let stored = key.and_then(|key| self.0.load(key, stored::MAX_LEN));
        if let Some(table) = stored.and_then(|stored| stored::decode(&stored)) {
            return Ok(Found { table, cached: true, key });
        }
        Ok(Found { table: Table::build(frames, segments)?, cached: false, key })
    }

    /// Keeps a table that was made now, for later captures.
    pub fn keep(&self, found: &Found) {
        if let (Some(key), false) = (found.key, found.cached) {
            self.0.store(key, &stored::encode(&found.table));
        }
    }

    /// Of all that a table is made from.
    fn key(&self, frames: &CallFrames, segments: &[CodeSegment]) -> Option<Key> {
        let (eh_address, eh_frame) =
            frames.eh_frame.as_ref().map_or((0, &[][..]), |(at, bytes)| (*at, bytes));
        let kind = [
            frames.machine.0.into(),
            frames.is_64.into(),
            frames.big_endian.into(),
            frames.eh_frame.is_some().into(),
            frames.debug_frame.is_some().into(),
        ];
        let special = frames.special.iter().flat_map(|&(start, end, special)| [start, end, special as u64]);
        let segments = segments.iter().flat_map(|segment| [segment.offset, segment.address, segment.len]);
        let head = to_bytes(kind.into_iter().chain([frames.entry, eh_address]));
        let (special, segments) = (to_bytes(special), to_bytes(segments));
        let debug_frame = frames.debug_frame.as_deref().unwrap_or_default();
        let input = [head.as_slice(), &special, &segments, eh_frame, debug_frame];
        self.0.key(BUILDER.iter().map(|source| source.as_bytes()).chain(input))
    }
}

fn to_bytes(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use object::elf;

    use super::*;
    use crate::symbols;
    use crate::unwind::Special;

    type Input = (CallFrames, Vec<CodeSegment>);

    fn input(path: &str) -> Input {
        symbols::call_frames(&File::open(path).unwrap()).unwrap()
    }

    fn open(dir: &Path) -> TableCache {
        TableCache(DiskCache::open_in(dir, MAX_CACHE_BYTES))
    }

    /// As captures do it.
    fn found_in(cache: &TableCache, input: &Input) -> Found {
        let found = cache.table(&input.0, &input.1).unwrap();
        cache.keep(&found);
        found
    }

    fn tables_in(dir: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("secret")).collect()
    }

    #[test]
    fn a_table_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let (input, cache) = (input("/proc/self/exe"), open(dir.path()));
        let made = found_in(&cache, &input);
        let found = found_in(&cache, &input);
        let later = found_in(&open(dir.path()), &input);
        assert_eq!((made.cached, found.cached, later.cached), (false, true, true));
        assert_eq!(made.table, Table::build(&input.0, &input.1).unwrap());
        assert!(found.table == made.table && later.table == made.table);
        assert_eq!(tables_in(dir.path()).len(), 1);
    }

    #[test]
    fn small_tables_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        found_in(&open(dir.path()), &input("/usr/bin/env"));
        assert_eq!(tables_in(dir.path()).len(), 0);
    }

    #[test]
    fn a_damaged_table_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (input, cache) = (input("/proc/self/exe"), open(dir.path()));
        let expected = found_in(&cache, &input).table;
        let [path] = tables_in(dir.path()).try_into().unwrap();
        let whole = fs::read(&path).unwrap();
        for len in [0, 30, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let made = found_in(&cache, &input);
            let found = found_in(&cache, &input);
            assert_eq!((made.cached, found.cached), (false, true));
            assert!(made.table == expected && found.table == expected);
        }
    }

    #[test]
    fn without_a_cache_tables_are_made() {
        let (input, cache) = (input("/proc/self/exe"), open(Path::new("/proc/no-place")));
        assert!(!found_in(&cache, &input).cached && !found_in(&cache, &input).cached);
    }

    #[test]
    fn whatever_a_table_is_made_from_is_in_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        let key = |change: &dyn Fn(&mut Input)| {
            let mut input = input("/usr/bin/env");
            change(&mut input);
            cache.key(&input.0, &input.1).unwrap()
        };
        let eh_frame = |input: &mut Input| input.0.eh_frame.take().unwrap();
        let keys = [
            key(&|_| ()),
            key(&|input| input.0.eh_frame.as_mut().unwrap().1[100] ^= 1),
            key(&|input| input.0.eh_frame.as_mut().unwrap().0 += 1),
            key(&|input| _ = eh_frame(input)),
            key(&|input| input.0.debug_frame = Some(eh_frame(input).1)),
            key(&|input| input.0.debug_frame = Some(Vec::new())),
            key(&|input| input.0.entry += 1),
            key(&|input| input.0.machine = elf::EM_AARCH64),
            key(&|input| input.0.is_64 = false),
            key(&|input| input.0.big_endian = true),
            key(&|input| input.0.special.push((1, 2, Special::Entry))),
            key(&|input| input.0.special.push((1, 2, Special::SignalReturn))),
            key(&|input| input.0.special.push((1, 2, Special::Stubs))),
            key(&|input| input.1[0].offset += 1),
            key(&|input| input.1[0].address += 1),
            key(&|input| input.1[0].len += 1),
            key(&|input| input.1.push(CodeSegment { offset: 0, address: 0, len: 0 })),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(one), "{at}");
        }
        assert_eq!(keys[0], key(&|_| ()));
    }

    /// Prints what the cache saves: `cargo test --release -- --ignored --nocapture cache_times`, the files
    /// in `SBERF_TABLES`, separated by colons.
    #[test]
    #[ignore = "prints figures"]
    fn cache_times() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        for path in std::env::var("SBERF_TABLES").unwrap().split(':') {
            let time = || {
                let started = Instant::now();
                let found = found_in(&cache, &input(path));
                (found.cached, started.elapsed())
            };
            println!("{path}: {:?} {:?} {:?}", time(), time(), time());
        }
    }
}
