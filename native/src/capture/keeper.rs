//! Opens the files behind executable mappings while their processes live, and keeps them open, so
//! that the code of exited processes and of deleted files still gets names.
//!
//! Runs in a thread of its own: a slow file system must not stall the ring buffers.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::clock::monotonic_ns;
use super::containers::Notes;
use super::procfs::{self, BootClock, RawMapping};
use super::table_maker::{self, Code, TableMaker};
use super::tables::FileKey;
use crate::finalize::FileStore;
use crate::perf_record::without_deleted;
use crate::symbols;
use crate::wire::{self, Cgroup, Inode, MappedFile, ProcessSnapshot, Wanted};

const SCAN_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A file that cannot be opened is asked for so often.
const MAX_FAILURES: u32 = 5;
/// Files that are remembered, kept open or not: a build may run a million different programs.
const MAX_NAMES: usize = 1 << 17;

/// A new mapping that the drain thread has seen in the side-band.
pub struct Mapped {
    pub pid: i32,
    pub start: u64,
    pub end: u64,
    pub file: MappedFile,
    pub raw_path: Vec<u8>,
}

/// What the drain thread asks for.
pub enum Request {
    Keep(Mapped),
    MakeTable(Wanted),
    /// A process ran a program in what may be a container that nobody knew; its cgroups, if they were told.
    Explain {
        container_key: u64,
        pid: i32,
        cgroups: Vec<Cgroup>,
    },
}

/// Which processes to look up at the begin.
pub enum Scan {
    Everything,
    Pids(Vec<i32>),
}

/// The files that were kept.
pub struct KeptFiles {
    files: HashMap<MappedFile, Option<File>>,
    map_dirs: HashMap<i32, Vec<MapDir>>,
    kept: usize,
    limit: usize,
}

/// A directory in which the perf map of a process may lie.
struct MapDir {
    opened_ns: u64,
    dir: File,
    /// The map, if it was there by then.
    map: Option<File>,
}

/// The thread's state.
pub struct Keeper {
    store: KeptFiles,
    /// Names by inode, as /proc/PID/maps has them, to names by build-id, as the side-band has them.
    by_inode: HashMap<MappedFile, MappedFile>,
    clock: BootClock,
    records: SyncSender<Vec<u8>>,
    tables: TableMaker,
    containers: Notes,
    /// How often each file could not be opened.
    failures: HashMap<FileKey, u32>,
}

impl Keeper {
    pub fn new(clock: BootClock, records: SyncSender<Vec<u8>>, limit: usize, tables: TableMaker) -> Self {
        let store = KeptFiles { files: HashMap::new(), map_dirs: HashMap::new(), kept: 0, limit };
        let (by_inode, failures) = (HashMap::new(), HashMap::new());
        Self { store, by_inode, clock, records, tables, containers: Notes::new(), failures }
    }

    /// Serves events until their sender hangs up; scans once `scan_now` is set, between events.
    pub fn run(mut self, events: &Receiver<Request>, scan: Scan, scan_now: &AtomicBool) -> KeptFiles {
        let mut to_scan: Option<Vec<i32>> = None;
        loop {
            let waiting = match &mut to_scan {
                Some(pids) => match pids.pop() {
                    Some(pid) => {
                        self.snapshot(pid);
                        Duration::ZERO
                    }
                    None => Duration::MAX,
                },
                None if scan_now.load(Ordering::Acquire) => {
                    to_scan = Some(scan.pids());
                    Duration::ZERO
                }
                None => SCAN_CHECK_INTERVAL,
            };
            match receive(events, waiting) {
                Ok(Request::Keep(mapped)) => self.handle(mapped),
                Ok(Request::MakeTable(wanted)) => self.make_table(&wanted),
                Ok(Request::Explain { container_key, pid, cgroups }) => {
                    self.explain(container_key, pid, &cgroups);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // A capture that was shorter than the scan still wants its processes' names.
        for pid in to_scan.unwrap_or_default() {
            self.snapshot(pid);
        }
        self.containers.finish(&mut |note| send(&self.records, |out| wire::push_container(out, note)));
        self.store
    }

    fn handle(&mut self, mapped: Mapped) {
        let Mapped { pid, start, end, file, raw_path } = mapped;
        if is_file(&raw_path) {
            self.keep(pid, (start, end), &raw_path, &file);
        } else if is_generated(&raw_path) {
            let Ok(snapshot) = self.identity(pid) else { return };
            self.keep_map_dir(&snapshot);
            send(&self.records, |out| wire::push_process(out, &snapshot));
        }
    }

    /// Opens the file while its process lives; its table is made elsewhere.
    fn make_table(&mut self, wanted: &Wanted) {
        let &Wanted { inode, device, kind, start, end, tgid } = wanted;
        let key = FileKey { inode, device, kind };
        let path = table_maker::path_of_mapping(tgid, start, end).unwrap_or_default();
        let code = match kind {
            0 => open_mapped_exactly(tgid as i32, (start, end), &path).map(Code::File),
            _ => table_maker::vdso(tgid, start, end),
        };
        if let Some(code) = code {
            return self.tables.make(key, code, symbols::decode(without_deleted(&path)).into_owned());
        }
        if self.failures.len() >= MAX_NAMES {
            self.failures.clear();
        }
        let failures = self.failures.entry(key).or_default();
        *failures += 1;
        self.tables.give_up(key, *failures >= MAX_FAILURES);
    }

    /// Reads a whole process and hands it to the drain thread.
    fn snapshot(&mut self, pid: i32) {
        // A process that has gone meanwhile is none of our business: the side-band tells the rest.
        let Ok(mut snapshot) = self.identity(pid) else { return };
        if !snapshot.kernel_thread {
            let mut generated = false;
            let maps = procfs::mappings(pid, |raw| {
                generated |= is_generated(raw.raw_path);
                self.name_file(pid, raw)
            });
            let Ok(maps) = maps else { return };
            snapshot.maps = Some(maps);
            if generated {
                self.keep_map_dir(&snapshot);
            }
        }
        send(&self.records, |out| wire::push_process(out, &snapshot));
    }

    fn identity(&mut self, pid: i32) -> std::io::Result<ProcessSnapshot> {
        let mut snapshot = procfs::identity(pid, monotonic_ns(), self.clock)?;
        let mut tell = |note: &_| send(&self.records, |out| wire::push_container(out, note));
        snapshot.container = self.containers.container_of(pid, &mut tell)?;
        Ok(snapshot)
    }

    fn explain(&mut self, container_key: u64, pid: i32, cgroups: &[Cgroup]) {
        let mut tell = |note: &_| send(&self.records, |out| wire::push_container(out, note));
        self.containers.explain(container_key, pid, cgroups, &mut tell);
    }

    fn keep_map_dir(&mut self, process: &ProcessSnapshot) {
        let &ProcessSnapshot { pid, ns_pid, uid, .. } = process;
        if let (true, Ok(dir)) = (self.store.has_room(), File::open(format!("/proc/{pid}/root/tmp"))) {
            let map = symbols::open_perf_map(&dir, ns_pid.unwrap_or(pid), uid.unwrap_or(0)).ok();
            self.store.kept += 1 + usize::from(map.is_some());
            let opened_ns = monotonic_ns();
            self.store.map_dirs.entry(pid).or_default().push(MapDir { opened_ns, dir, map });
        }
    }

    /// The identity of a mapping in /proc/PID/maps, by build-id where the file has one.
    fn name_file(&mut self, pid: i32, raw: &RawMapping<'_>) -> MappedFile {
        let path = symbols::decode(without_deleted(raw.raw_path)).into_owned();
        let by_inode = MappedFile { path, build_id: None, inode: raw.inode };
        if !is_file(raw.raw_path) {
            return by_inode;
        }
        if let Some(known) = self.by_inode.get(&by_inode) {
            return known.clone();
        }
        let file = open_mapped(pid, (raw.start, raw.end), raw.raw_path, &by_inode);
        let mut named = by_inode.clone();
        if let Some(build_id) = file.as_ref().and_then(symbols::build_id) {
            named = MappedFile { path: named.path, build_id: Some(build_id), inode: None };
        }
        self.store.insert(named.clone(), file);
        self.by_inode.insert(by_inode, named.clone());
        named
    }

    fn keep(&mut self, pid: i32, range: (u64, u64), raw_path: &[u8], file: &MappedFile) {
        if !self.store.files.contains_key(file) {
            let opened = open_mapped(pid, range, raw_path, file);
            self.store.insert(file.clone(), opened);
        }
    }
}

impl KeptFiles {
    fn has_room(&self) -> bool {
        self.kept < self.limit
    }

    fn insert(&mut self, name: MappedFile, file: Option<File>) {
        if self.files.len() >= MAX_NAMES {
            return;
        }
        let file = file.filter(|_| self.has_room());
        self.kept += usize::from(file.is_some());
        self.files.entry(name).or_insert(file);
    }

    /// Of the process that had this ID at that time.
    fn map_dir(&self, pid: i32, started_ns: Option<i64>) -> Option<&MapDir> {
        let started_ns = started_ns.unwrap_or(i64::MIN);
        self.map_dirs.get(&pid)?.iter().find(|dir| dir.opened_ns as i64 >= started_ns)
    }
}

impl FileStore for KeptFiles {
    fn open(&self, file: &MappedFile) -> Option<File> {
        self.files.get(file)?.as_ref()?.try_clone().ok()
    }

    fn perf_map_dir(&self, pid: i32, started_ns: Option<i64>) -> Option<File> {
        self.map_dir(pid, started_ns)?.dir.try_clone().ok()
    }

    fn perf_map(&self, pid: i32, started_ns: Option<i64>) -> Option<File> {
        self.map_dir(pid, started_ns)?.map.as_ref()?.try_clone().ok()
    }
}

impl Scan {
    fn pids(&self) -> Vec<i32> {
        match self {
            Scan::Everything => procfs::all_pids().unwrap_or_default(),
            Scan::Pids(pids) => pids.clone(),
        }
    }
}

fn send(records: &SyncSender<Vec<u8>>, push: impl FnOnce(&mut Vec<u8>)) {
    let mut record = Vec::new();
    push(&mut record);
    // The drain thread outlives us but for a full disk, and then nobody wants the record.
    let _ = records.send(record);
}

fn receive(events: &Receiver<Request>, waiting: Duration) -> Result<Request, RecvTimeoutError> {
    if waiting == Duration::MAX {
        return events.recv().map_err(|_| RecvTimeoutError::Disconnected);
    }
    events.recv_timeout(waiting)
}

/// Does the mapping have a file that can be opened?
pub fn is_file(raw_path: &[u8]) -> bool {
    raw_path.starts_with(b"/") && !is_generated(raw_path) && !raw_path.starts_with(b"/dev/zero")
}

/// Memory that a program fills with code of its own: `//anon` is the side-band's name, none that of
/// /proc/PID/maps.
pub fn is_generated(raw_path: &[u8]) -> bool {
    raw_path.is_empty()
        || raw_path.starts_with(b"//anon")
        || raw_path.starts_with(b"[anon")
        || raw_path.starts_with(b"/memfd:")
}

fn open_mapped(pid: i32, range: (u64, u64), raw_path: &[u8], wanted: &MappedFile) -> Option<File> {
    let path = Path::new(std::ffi::OsStr::from_bytes(without_deleted(raw_path)));
    let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", range.0, range.1));
    let mut in_its_root = PathBuf::from(format!("/proc/{pid}/root"));
    in_its_root.push(path.strip_prefix("/").ok()?);
    [(mapped.as_path(), true), (&in_its_root, false), (path, false)]
        .into_iter()
        .filter_map(|(path, exact)| Some((open_regular(path)?, exact)))
        .find(|(file, exact)| is_wanted(file, wanted, *exact))
        .map(|(file, _)| file)
}

/// The file of a mapping of which only the place is known for certain.
fn open_mapped_exactly(pid: i32, range: (u64, u64), raw_path: &[u8]) -> Option<File> {
    let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", range.0, range.1));
    let path = Path::new(std::ffi::OsStr::from_bytes(raw_path));
    let mut in_its_root = PathBuf::from(format!("/proc/{pid}/root"));
    in_its_root.push(path.strip_prefix("/").unwrap_or(path));
    open_regular(&mapped).or_else(|| (!raw_path.is_empty()).then(|| open_regular(&in_its_root))?)
}

/// Never blocks on what an untrusted process may have put there.
fn open_regular(path: &Path) -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// `exact`: reached through the mapping itself, whose inode need not be checked (and overlay file
/// systems show another one there).
fn is_wanted(file: &File, wanted: &MappedFile, exact: bool) -> bool {
    match (&wanted.build_id, wanted.inode) {
        (Some(build_id), _) => symbols::build_id(file).as_ref() == Some(build_id),
        (None, Some(inode)) => exact || inode_of(file) == Some(inode),
        (None, None) => exact,
    }
}

fn inode_of(file: &File) -> Option<Inode> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    Some(Inode { major: libc::major(device), minor: libc::minor(device), inode: metadata.ino() })
}

/// Files that may be kept open: half of what this process may have at all.
pub fn raise_open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid structure for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
    (limit.rlim_cur / 2).clamp(256, 65536) as usize
}
