//! Opens the files behind executable mappings while their processes live, and keeps them open, so
//! that the code of exited processes and of deleted files still gets names.
//!
//! Runs in a thread of its own: a slow file system must not stall the ring buffers.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::monotonic_ns;
use super::containers::Notes;
use super::procfs::{self, BootClock, RawMapping};
use super::table_maker::{Code, TableMaker};
use super::tables::FileKey;
use crate::finalize::FileStore;
use crate::perf_record::without_deleted;
use crate::symbols::{self, open_regular};
use crate::unwind::TableCache;
use crate::vdso;
use crate::wire::{self, Cgroup, Inode, MappedFile, ProcessSnapshot, Wanted};

/// After a file could not be opened; twice as long after each further time.
const RETRY_NS: u64 = 1_000_000;
const MAX_RETRY_DOUBLINGS: u32 = 10;
/// Then the stacks that need its table are not copied any more while it is waited for.
const MAX_FAILURES: u32 = 5;
/// Processes whose tables are made before the capture begins.
const MAX_AHEAD: usize = 64;
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

/// What the keeper is asked for.
pub enum Request {
    Keep(Mapped),
    MakeTable(Wanted),
    /// A process ran a program in what may be a container that nobody knew; its cgroups, if they were told.
    Explain {
        container_key: u64,
        pid: i32,
        cgroups: Vec<Cgroup>,
    },
    /// The capture has begun.
    Scan(Scan),
}

/// Which processes to look up at the begin.
pub enum Scan {
    Everything,
    Pids(Vec<i32>),
}

/// The thread, and the ways to it and from it.
pub struct KeeperThread {
    pub thread: JoinHandle<KeptFiles>,
    pub requests: SyncSender<Request>,
    /// For the spool.
    pub records: Receiver<Vec<u8>>,
}

/// Which processes are likely to be sampled first.
pub enum Likely {
    Running,
    Pids(Vec<i32>),
}

/// What there is to do while nothing is asked for.
enum Work {
    /// Tables of what the process has mapped.
    MakeTables(i32),
    Snapshot(i32),
}

/// The files that were kept.
pub struct KeptFiles {
    files: HashMap<MappedFile, Option<File>>,
    by_key: HashMap<FileKey, MappedFile>,
    tables: Arc<TableCache>,
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
    /// Files whose tables were made before the capture began.
    ahead: HashSet<FileKey>,
    /// How often each file could not be opened.
    failures: HashMap<FileKey, u32>,
    /// When such files may be asked for again.
    retries: Vec<(u64, FileKey)>,
}

impl Keeper {
    pub fn new(clock: BootClock, records: SyncSender<Vec<u8>>, limit: usize, tables: TableMaker) -> Self {
        Self {
            store: KeptFiles::new(limit, tables.cache()),
            by_inode: HashMap::new(),
            clock,
            records,
            tables,
            containers: Notes::new(),
            ahead: HashSet::new(),
            failures: HashMap::new(),
            retries: Vec::new(),
        }
    }

    /// Makes the tables that are likely to be needed first, then serves requests until their sender hangs up.
    pub fn run(mut self, requests: &Receiver<Request>, likely: Likely) -> KeptFiles {
        let mut work: Vec<Work> = likely.pids().into_iter().take(MAX_AHEAD).map(Work::MakeTables).collect();
        loop {
            let mut waiting = self.until_retry();
            if let Some(one) = work.pop() {
                self.work(one);
                waiting = Duration::ZERO;
            }
            match receive(requests, waiting) {
                Ok(Request::Keep(mapped)) => self.handle(mapped),
                Ok(Request::MakeTable(wanted)) => self.make_table(&wanted),
                Ok(Request::Explain { container_key, pid, cgroups }) => {
                    self.explain(container_key, pid, &cgroups);
                }
                Ok(Request::Scan(scan)) => work = scan.pids().into_iter().map(Work::Snapshot).collect(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // A capture that was shorter than the scan still wants its processes' names.
        let is_snapshot = |one: &Work| matches!(one, Work::Snapshot(_));
        work.into_iter().filter(is_snapshot).for_each(|one| self.work(one));
        self.containers.finish(&mut |note| send(&self.records, |out| wire::push_container(out, note)));
        self.store
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::MakeTables(pid) => self.make_tables(pid),
            Work::Snapshot(pid) => self.snapshot(pid),
        }
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

    /// Before any sample needs them.
    fn make_tables(&mut self, pid: i32) {
        let _ = procfs::mappings(pid, |raw| {
            let name = self.name_file(pid, raw);
            let key = raw.inode.map(FileKey::of_inode).filter(|key| !self.ahead.contains(key));
            if let (Some(key), Some(file)) = (key, self.store.open(&name)) {
                self.ahead.insert(key);
                self.tables.make(key, Code::File(file), name.path.clone());
            }
            name
        });
    }

    /// Finds the file; its table is made elsewhere.
    fn make_table(&mut self, wanted: &Wanted) {
        let &Wanted { inode, device, kind, start, end, tgid } = wanted;
        let key = FileKey { inode, device, kind };
        let found = match kind {
            0 => self.open_wanted(&key, tgid as i32, (start, end)),
            _ => vdso::image(&tgid.to_string(), start, end)
                .ok()
                .map(|image| (Code::Bytes(image), String::new())),
        };
        match found {
            Some((code, name)) => self.tables.make(key, code, name),
            None => self.ask_again(key),
        }
    }

    /// Most processes have mapped what others had mapped before them, and may be gone by now.
    fn open_wanted(&self, key: &FileKey, pid: i32, range: (u64, u64)) -> Option<(Code, String)> {
        if let Some((file, name)) = self.store.open_by_key(key) {
            return Some((Code::File(file), name));
        }
        let raw_path = procfs::path_of_mapping(pid, range.0, range.1).unwrap_or_default();
        let file = open_mapped_exactly(pid, range, &raw_path)?;
        Some((Code::File(file), symbols::decode(without_deleted(&raw_path)).into_owned()))
    }

    /// The process is gone, or hides its files; the next one that has the file mapped may live longer.
    fn ask_again(&mut self, key: FileKey) {
        if self.failures.len() >= MAX_NAMES {
            self.failures.clear();
        }
        let failures = self.failures.entry(key).or_default();
        let due_ns = monotonic_ns() + (RETRY_NS << (*failures).min(MAX_RETRY_DOUBLINGS));
        *failures += 1;
        if *failures >= MAX_FAILURES {
            self.tables.refuse(key);
        }
        self.retries.push((due_ns, key));
    }

    /// Lets files be asked for again whose time has come; returns how long that of the next one takes.
    fn until_retry(&mut self) -> Duration {
        let now_ns = monotonic_ns();
        let due: Vec<_> = self.retries.extract_if(.., |(due_ns, _)| *due_ns <= now_ns).collect();
        due.into_iter().for_each(|(_, key)| self.tables.forget(key));
        let next = self.retries.iter().map(|(due_ns, _)| *due_ns).min();
        next.map_or(Duration::MAX, |due_ns| Duration::from_nanos(due_ns - now_ns))
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
    fn new(limit: usize, tables: Arc<TableCache>) -> Self {
        let (files, by_key, map_dirs) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { files, by_key, tables, map_dirs, kept: 0, limit }
    }

    fn has_room(&self) -> bool {
        self.kept < self.limit
    }

    fn insert(&mut self, name: MappedFile, file: Option<File>) {
        if self.files.len() >= MAX_NAMES {
            return;
        }
        let file = file.filter(|_| self.has_room());
        self.kept += usize::from(file.is_some());
        if let Some(inode) = file.as_ref().and_then(inode_of) {
            self.by_key.insert(FileKey::of_inode(inode), name.clone());
        }
        self.files.entry(name).or_insert(file);
    }

    /// Of the process that had this ID at that time.
    fn map_dir(&self, pid: i32, started_ns: Option<i64>) -> Option<&MapDir> {
        let started_ns = started_ns.unwrap_or(i64::MIN);
        self.map_dirs.get(&pid)?.iter().find(|dir| dir.opened_ns as i64 >= started_ns)
    }

    /// The file with this inode, and its path.
    fn open_by_key(&self, key: &FileKey) -> Option<(File, String)> {
        let name = self.by_key.get(key)?;
        let file = self.open(name)?;
        // Two files of one build have the same name here.
        let is_same = inode_of(&file).map(FileKey::of_inode) == Some(*key);
        is_same.then(|| (file, name.path.clone()))
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

    fn table_cache(&self) -> Option<&TableCache> {
        Some(&self.tables)
    }
}

impl Likely {
    fn pids(self) -> Vec<i32> {
        match self {
            Likely::Running => procfs::running_pids(),
            Likely::Pids(pids) => pids,
        }
    }
}

impl Scan {
    fn pids(self) -> Vec<i32> {
        match self {
            Scan::Everything => procfs::all_pids().unwrap_or_default(),
            Scan::Pids(pids) => pids,
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
    let (mapped, in_its_root) = paths_of_mapping(pid, range, without_deleted(raw_path));
    let path = Path::new(OsStr::from_bytes(without_deleted(raw_path)));
    [(mapped.as_path(), true), (&in_its_root, false), (path, false)]
        .into_iter()
        .filter_map(|(path, exact)| Some((open_regular(path)?, exact)))
        .find(|(file, exact)| is_wanted(file, wanted, *exact))
        .map(|(file, _)| file)
}

/// The file of a mapping of which only the place is known for certain.
fn open_mapped_exactly(pid: i32, range: (u64, u64), raw_path: &[u8]) -> Option<File> {
    let (mapped, in_its_root) = paths_of_mapping(pid, range, raw_path);
    open_regular(&mapped).or_else(|| open_regular(&in_its_root))
}

/// Through the mapping itself, which takes privileges, and by the path that its process knows.
fn paths_of_mapping(pid: i32, range: (u64, u64), path: &[u8]) -> (PathBuf, PathBuf) {
    let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", range.0, range.1));
    let path = Path::new(OsStr::from_bytes(path));
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    (mapped, root.join(path.strip_prefix("/").unwrap_or(path)))
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
