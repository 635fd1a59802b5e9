//! Names of code that JIT compilers made, from the perf maps of their processes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::FileStore;
use super::code::{Code, ModuleKind};
use super::processes::{PerfMapOf, Process, Processes};
use crate::spool::Clock;
use crate::symbols::{PerfMap, PerfMapLimits, open_perf_map};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// Maps are read again when so many bytes of them are in memory.
const MAX_LOADED_BYTES: u64 = 256 << 20;
/// So many forks without an exec lie between a compiler and the process that runs its code.
const MAX_FORKS: usize = 16;
const MAX_WARNINGS: usize = 10;
/// A map that was last written before its process began, or after it ended, is another's.
const TIME_TOLERANCE_NS: i64 = 2_000_000_000;

/// The perf maps of the recorded processes.
pub struct PerfMaps<'a> {
    store: &'a dyn FileStore,
    /// CLOCK_REALTIME - CLOCK_MONOTONIC
    realtime_offset_ns: i64,
    loaded: FastMap<u32, Option<Rc<Loaded>>>,
    loaded_bytes: u64,
    /// Versions of address spaces whose generated code has the names of one process's map.
    versions: FastMap<(u64, u32), u64>,
    /// Paths of maps that are larger than can be read.
    cut: BTreeSet<String>,
}

struct Loaded {
    path: String,
    map: PerfMap,
}

impl<'a> PerfMaps<'a> {
    pub fn new(store: &'a dyn FileStore, clock: &Clock) -> Self {
        Self {
            store,
            realtime_offset_ns: clock.realtime_ns.wrapping_sub(clock.monotonic_ns) as i64,
            loaded: FastMap::default(),
            loaded_bytes: 0,
            versions: FastMap::default(),
            cut: BTreeSet::new(),
        }
    }

    /// What a reader of the names should know.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |path| format!("'{path}' is larger than can be read: its newest names are missing");
        self.cut.iter().map(warning).collect()
    }

    /// Decides whose map names the generated code of a process: its own, or after a fork that of
    /// the process that made the code.
    pub fn check(&mut self, processes: &mut Processes, row: u32) {
        let mut owner = Some(row);
        let mut found = PerfMapOf::Nobody;
        for _ in 0..MAX_FORKS {
            let Some(candidate) = owner else { break };
            let process = &processes.rows[candidate as usize];
            if process.perf_map != PerfMapOf::Unchecked {
                found = process.perf_map;
                break;
            }
            if self.open(process).is_some() {
                found = PerfMapOf::Process(candidate);
                break;
            }
            owner = process.parent.filter(|_| process.is_forked());
        }
        let process = &mut processes.rows[row as usize];
        process.perf_map = found;
        if let PerfMapOf::Process(owner) = found {
            // Processes that share mappings, but not their perf maps, must not share stacks.
            let key = (process.space.version(), owner);
            let version = self.versions.entry(key).or_insert_with(|| processes.versions.fresh());
            process.space.set_version(*version);
        }
    }

    /// The frame of generated code, when its process's map names it.
    pub fn frame(
        &mut self,
        code: &mut Code,
        processes: &Processes,
        row: u32,
        address: u64,
        is_return: bool,
    ) -> Option<u32> {
        let PerfMapOf::Process(owner) = processes.rows[row as usize].perf_map else { return None };
        let loaded = self.load(&processes.rows[owner as usize], owner)?;
        let name = loaded.map.lookup(address.wrapping_sub(u64::from(is_return)))?;
        let name = code.names.plain(&name);
        let module = code.named_module(&loaded.path, ModuleKind::Jit, "perf-map");
        Some(code.frame(module, address, is_return, name))
    }

    fn load(&mut self, process: &Process, row: u32) -> Option<Rc<Loaded>> {
        if let Some(loaded) = self.loaded.get(&row) {
            return loaded.clone();
        }
        let loaded = self.open(process).and_then(|file| {
            self.loaded_bytes += file.metadata().map_or(0, |metadata| metadata.len());
            let map = PerfMap::parse(file, PerfMapLimits::default()).ok()?;
            let path = format!("/tmp/perf-{}.map", pid_in_name(process));
            if map.is_cut() && self.cut.len() < MAX_WARNINGS {
                self.cut.insert(path.clone());
            }
            Some(Rc::new(Loaded { path, map }))
        });
        if self.loaded_bytes > MAX_LOADED_BYTES {
            self.loaded.clear();
            self.loaded_bytes = 0;
        }
        self.loaded.insert(row, loaded.clone());
        loaded
    }

    fn open(&self, process: &Process) -> Option<File> {
        let in_its_dir = self.perf_map_dir(process).and_then(|dir| {
            // Without a known user only root's files can be trusted.
            open_perf_map(&dir, pid_in_name(process), process.uid.unwrap_or(0)).ok()
        });
        let file = in_its_dir.or_else(|| self.store.perf_map(process.pid, process.start_ns))?;
        let metadata = file.metadata().ok()?;
        let written_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        let written_ns = written_ns.saturating_sub(self.realtime_offset_ns);
        let early =
            process.start_ns.is_some_and(|start| written_ns < start.saturating_sub(TIME_TOLERANCE_NS));
        let late = process.end_ns.is_some_and(|end| written_ns > end.saturating_add(TIME_TOLERANCE_NS));
        (!early && !late).then_some(file)
    }

    fn perf_map_dir(&self, process: &Process) -> Option<File> {
        match self.store.perf_map_dir(process.pid, process.start_ns) {
            Some(dir) => Some(dir),
            // Our own /tmp says nothing about a process that has another one.
            None if process.container.is_some() || pid_in_name(process) != process.pid => None,
            None => File::open("/tmp").ok(),
        }
    }
}

fn pid_in_name(process: &Process) -> i32 {
    process.ns_pid.unwrap_or(process.pid)
}
