//! Names of generated code over time, from the jitdumps that their processes had mapped.

use std::collections::{BTreeMap, HashMap};

use super::FileStore;
use super::address_space::Files;
use super::code::{Code, ModuleKind, Source};
use super::mapped::open_file;
use super::processes::Processes;
use crate::symbols::{JitCode, Jitdump, JitdumpLimits, pid_in_jitdump_name};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// Dumps that one process may have mapped: its own, and those of the processes that it was forked from.
const MAX_DUMPS: usize = 8;
/// Functions in all dumps together.
const MAX_CODES: u32 = 4_000_000;
/// Addresses of one dump that are watched for a change.
const MAX_WATCHED: usize = 1 << 20;
const MAX_WARNINGS: usize = 10;
/// In the place of a load's number.
const OF_ANOTHER_DUMP: u32 = u32::MAX;

/// Which of the mapped files have the name of a jitdump, and the process ID in it.
#[derive(Default)]
pub struct DumpNames(FastMap<u32, i32>);

impl DumpNames {
    pub fn new(files: &Files) -> Self {
        let pid = |file: &crate::wire::MappedFile| pid_in_jitdump_name(&file.path);
        Self(files.iter().filter_map(|(id, file)| Some((id, pid(file)?))).collect())
    }

    pub fn pid(&self, file: u32) -> Option<i32> {
        self.0.get(&file).copied()
    }
}

/// The dumps that a process has mapped, the latest first.
#[derive(Clone, Default)]
pub struct MappedDumps {
    dumps: Vec<MappedDump>,
    /// The state of all dumps for which the process's address space has its version.
    seen: Option<u64>,
}

#[derive(Clone, Copy)]
struct MappedDump {
    /// Key into [`Files`].
    file: u32,
    /// The fork since which the process's code is a copy, so that later loads are not in it.
    forked_ns: Option<i64>,
}

impl MappedDumps {
    /// The process itself has mapped it.
    pub fn mapped(&mut self, file: u32) {
        self.dumps.retain(|dump| dump.file != file);
        self.add(MappedDump { file, forked_ns: None });
    }

    /// It was seen to be mapped; `forked_ns`: since that fork.
    pub fn found(&mut self, file: u32, forked_ns: Option<i64>) {
        if self.dumps.iter().all(|dump| dump.file != file) {
            self.add(MappedDump { file, forked_ns });
        }
    }

    /// What a child has of them.
    pub fn inherited(&self, ts_ns: i64) -> Self {
        let copy = |dump: &MappedDump| MappedDump { forked_ns: dump.forked_ns.or(Some(ts_ns)), ..*dump };
        Self { dumps: self.dumps.iter().map(copy).collect(), seen: None }
    }

    fn add(&mut self, dump: MappedDump) {
        self.dumps.insert(0, dump);
        self.dumps.truncate(MAX_DUMPS);
        self.seen = None;
    }
}

/// All dumps that were asked for a name.
pub struct Jitdumps<'a> {
    files: &'a Files,
    store: &'a dyn FileStore,
    /// None: it cannot be read.
    dumps: FastMap<u32, Option<Followed>>,
    codes: u32,
}

/// A dump, followed in time.
struct Followed {
    path: String,
    dump: Jitdump,
    /// Loads and moves that have happened.
    now: u32,
    /// Addresses that have a name now, with the load that it came from.
    watched: BTreeMap<u64, u32>,
    /// How often an address's name has changed.
    changes: u64,
    /// By function, keys into [`super::code::Names`]; None: it has no name.
    names: FastMap<u32, Option<u32>>,
    /// By frame, the function that was last asked for its source line.
    sources: FastMap<u32, u32>,
}

impl<'a> Jitdumps<'a> {
    pub fn new(files: &'a Files, store: &'a dyn FileStore) -> Self {
        Self { files, store, dumps: FastMap::default(), codes: 0 }
    }

    /// Gives the process's address space another version when an address that was named has another
    /// name now.
    pub fn advance(&mut self, processes: &mut Processes, row: u32, ts_ns: u64) {
        let process = &mut processes.rows[row as usize];
        if process.dumps.dumps.is_empty() {
            return;
        }
        let mut state = 0;
        for mapped in &process.dumps.dumps {
            if let Some(followed) = self.open(mapped.file).filter(|dump| dump.changes_for(mapped)) {
                followed.advance(ts_ns);
                state += followed.changes;
            }
        }
        // Processes that share mappings, but not the time of a fork, must not share stacks.
        if process.dumps.seen != Some(state) {
            process.dumps.seen = Some(state);
            process.space.set_version(processes.versions.fresh());
        }
    }

    /// The frame of generated code, when a dump of its process names it.
    pub fn frame(
        &mut self,
        code: &mut Code,
        dumps: &MappedDumps,
        ts_ns: u64,
        address: u64,
        is_return: bool,
    ) -> Option<u32> {
        let in_code = address.wrapping_sub(u64::from(is_return));
        let (file, found) = self.find(dumps, in_code, ts_ns)?;
        for mapped in &dumps.dumps {
            if let Some(followed) = self.open(mapped.file).filter(|dump| dump.changes_for(mapped)) {
                let span = if mapped.file == file { found.span } else { OF_ANOTHER_DUMP };
                followed.watched.insert(in_code, span);
            }
        }
        let followed = self.open(file)?;
        let name = followed.name(code, found)?;
        let module = code.named_module(&followed.path, ModuleKind::Jit, "jitdump");
        let frames = code.frames.len();
        let frame = code.frame(module, address, is_return, name);
        followed.note_source(code, frame, frame as usize == frames, found);
        Some(frame)
    }

    /// What is there counts for more than what will be; that counts because compilers tell of code a
    /// little after they have made it.
    fn find(&mut self, dumps: &MappedDumps, address: u64, ts_ns: u64) -> Option<(u32, JitCode)> {
        for find in [Jitdump::find, Jitdump::find_later] {
            for mapped in &dumps.dumps {
                let Some(followed) = self.open(mapped.file) else { continue };
                let spans = followed.spans_at(mapped, ts_ns);
                if let Some(found) = find(&followed.dump, address, spans) {
                    return Some((mapped.file, found));
                }
            }
        }
        None
    }

    /// What a reader of the names should know.
    pub fn warnings(&self) -> Vec<String> {
        let read = self.dumps.values().flatten();
        let warnings = read.filter_map(|Followed { path, dump, .. }| {
            if dump.is_cut() {
                return Some(format!("'{path}' is larger than can be read: its newest names are missing"));
            }
            let no_times = "has times of another clock: code that moved or was replaced has its last name";
            (!dump.has_usable_times()).then(|| format!("'{path}' {no_times}"))
        });
        let mut warnings: Vec<String> = warnings.collect();
        warnings.sort_unstable();
        warnings.truncate(MAX_WARNINGS);
        warnings
    }

    fn open(&mut self, file: u32) -> Option<&mut Followed> {
        let Self { files, store, dumps, codes } = self;
        let read = || {
            let mapped = files.get(file);
            let mut limits = JitdumpLimits::default();
            limits.codes = limits.codes.min(MAX_CODES - *codes);
            let dump = Jitdump::read(open_file(*store, mapped).ok()?, limits).ok()?;
            *codes += dump.spans();
            Some(Followed::new(mapped.path.clone(), dump))
        };
        dumps.entry(file).or_insert_with(read).as_mut()
    }
}

impl Followed {
    fn new(path: String, dump: Jitdump) -> Self {
        let (watched, names, sources) = (BTreeMap::new(), FastMap::default(), FastMap::default());
        Self { path, dump, now: 0, watched, changes: 0, names, sources }
    }

    /// Does what happens in the dump happen to that process's code?
    fn changes_for(&self, mapped: &MappedDump) -> bool {
        mapped.forked_ns.is_none() || self.dump.is_shared()
    }

    fn advance(&mut self, ts_ns: u64) {
        let then = self.dump.spans_at(ts_ns);
        if then < self.now || self.watched.len() > MAX_WATCHED {
            self.forget();
        }
        let happened = self.now..then;
        let mut ranges = happened.filter_map(|number| Some((number, self.dump.span(number)?)));
        let watched = &self.watched;
        if !watched.is_empty()
            && ranges.any(|(number, range)| watched.range(range).any(|(_, &owner)| owner != number))
        {
            self.forget();
        }
        self.now = then;
    }

    /// Whoever has used its names asks for them again.
    fn forget(&mut self) {
        self.watched.clear();
        self.changes += 1;
    }

    fn spans_at(&self, mapped: &MappedDump, ts_ns: u64) -> u32 {
        match mapped.forked_ns.filter(|_| !self.changes_for(mapped)) {
            Some(forked_ns) => self.dump.spans_at(forked_ns.max(0) as u64),
            None => self.dump.spans_at(ts_ns),
        }
    }

    fn name(&mut self, code: &mut Code, found: JitCode) -> Option<u32> {
        let Self { dump, names, .. } = self;
        *names.entry(found.code).or_insert_with(|| Some(code.names.plain(&dump.name(found)?)))
    }

    /// Two functions may have had one name and one address, as when one is compiled again: their frame
    /// has a line only where they agree.
    fn note_source(&mut self, code: &mut Code, frame: u32, is_new: bool, found: JitCode) {
        if self.sources.insert(frame, found.code) == Some(found.code) {
            return;
        }
        let source = self.dump.source(found).map_or(Source::UNKNOWN, |(file, line)| {
            let file = code.source_files.plain(&file);
            Source { file, line }
        });
        let known = &mut code.frames[frame as usize].source;
        *known = if is_new || *known == source { source } else { Source::UNKNOWN };
    }
}
