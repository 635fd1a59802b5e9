//! Makes the tables that the unwinder asks for, several at a time, off the capture's hot path.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::tables::{FileKey, TableStore};
use crate::symbols;
use crate::unwind::{Table, TableError};

/// Files whose refusal is told by name.
const MAX_NAMED: usize = 100;
/// Of each kind.
const MAX_THREADS: usize = 4;
const MAX_SMALL_BYTES: u64 = 8 << 20;
const NICENESS: i32 = -5;
/// 2 MiB: a libc, a shell, an interpreter.
const FIRST_WORDS: u32 = 512 << 10;

/// Shared by those who make tables.
#[derive(Clone)]
pub struct TableMaker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// For files that take less than about 10 ms, and for the others: those must not keep these waiting.
    small: ThreadPool,
    large: ThreadPool,
    ended: AtomicBool,
}

struct State {
    store: TableStore,
    refused: Vec<String>,
}

/// The code of a file or of the vDSO.
pub enum Code {
    File(File),
    Bytes(Vec<u8>),
}

impl TableMaker {
    /// # Errors
    /// When no thread can be started.
    pub fn new(store: TableStore) -> io::Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let maker = Self(Arc::new(Shared {
            state: Mutex::new(State { store, refused: Vec::new() }),
            small: new_pool(cpus.min(MAX_THREADS))?,
            large: new_pool(cpus.min(MAX_THREADS))?,
            ended: AtomicBool::new(false),
        }));
        let first = maker.clone();
        // Without it, the first table would wait for the memory.
        maker.0.small.spawn(move || _ = first.lock().store.reserve(FIRST_WORDS));
        Ok(maker)
    }

    /// Makes the table of a file soon; `name` is for messages.
    pub fn make(&self, key: FileKey, code: Code, name: String) {
        let shared = self.clone();
        let pool = if code.len() > MAX_SMALL_BYTES { &self.0.large } else { &self.0.small };
        pool.spawn(move || {
            if !shared.0.ended.load(Ordering::Relaxed) {
                let table = read(&code);
                shared.install(key, table, &name);
            }
        });
    }

    fn install(&self, key: FileKey, table: Result<Table, Option<TableError>>, name: &str) {
        let state = &mut *self.lock();
        let refused = match table {
            Ok(table) => state.store.install(key, &table).err().map(|refused| refused.to_string()),
            Err(Some(TableError::TooSparse)) => {
                state.store.refuse(key);
                Some(TableError::TooSparse.to_string())
            }
            Err(_) => {
                state.store.install_none(key);
                None
            }
        };
        if let Some(refused) = refused
            && state.refused.len() < MAX_NAMED
        {
            state.refused.push(format!("no unwind table for {name}: {refused}"));
        }
    }

    /// Nobody needs what is not made yet.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// The file could not be opened: is it asked for again?
    pub fn give_up(&self, key: FileKey, for_good: bool) {
        let store = &mut self.lock().store;
        if for_good { store.refuse(key) } else { store.forget(key) }
    }

    /// What was refused or evicted so far, in words.
    pub fn warnings(&self) -> Vec<String> {
        let state = self.lock();
        let mut warnings = state.refused.clone();
        if state.store.evicted > 0 {
            warnings.push(format!(
                "{} unwind tables were evicted: they need more than 48 MiB",
                state.store.evicted
            ));
        }
        warnings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Code {
    fn len(&self) -> u64 {
        match self {
            Code::File(file) => file.metadata().map_or(0, |metadata| metadata.len()),
            Code::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// Threads that run before other work, where we may: what they make now, samples need now.
fn new_pool(threads: usize) -> io::Result<ThreadPool> {
    let prefer = |_| {
        // SAFETY: no pointers; on Linux it is this thread's value, and a refusal changes nothing.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    };
    let pool = ThreadPoolBuilder::new().num_threads(threads).start_handler(prefer);
    pool.thread_name(|_| "sberf-tables".to_string()).build().map_err(io::Error::other)
}

/// None: it is no file of machine code, or a damaged one.
fn read(code: &Code) -> Result<Table, Option<TableError>> {
    let frames = match code {
        Code::File(file) => symbols::call_frames(file),
        Code::Bytes(bytes) => symbols::call_frames_of_bytes(bytes),
    };
    let (frames, segments) = frames.map_err(|_| None)?;
    Table::build(&frames, &segments).map_err(Some)
}

/// The vDSO that is mapped at `start..end` of a process.
pub fn vdso(pid: u32, start: u64, end: u64) -> Option<Code> {
    const MAX_LEN: u64 = 64 << 10;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; usize::try_from(end.checked_sub(start).filter(|len| *len <= MAX_LEN)?).ok()?];
    memory.read_exact_at(&mut bytes, start).ok()?;
    Some(Code::Bytes(bytes))
}

/// The path of the mapping at `start..end` of a process.
pub fn path_of_mapping(pid: u32, start: u64, end: u64) -> Option<Vec<u8>> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    let range = format!("{start:x}-{end:x} ");
    let line = maps.split(|&b| b == b'\n').find(|line| line.starts_with(range.as_bytes()))?;
    let at = line.iter().position(|&b| b == b'/')?;
    Some(line[at..].to_vec())
}
