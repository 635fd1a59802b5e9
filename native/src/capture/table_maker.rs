//! Makes the tables that the unwinder asks for, several at a time, off the capture's hot path.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::tables::{FileKey, TableStore};
use crate::spool::TableCounts;
use crate::symbols;
use crate::unwind::{Found, TableCache, TableError};

/// Files whose refusal is told by name.
const MAX_NAMED: usize = 100;
/// Of each kind.
const MAX_THREADS: usize = 4;
const MAX_SMALL_BYTES: u64 = 8 << 20;
/// 2 MiB: a libc, a shell, an interpreter.
const FIRST_WORDS: u32 = 512 << 10;

/// Shared by those who make tables.
#[derive(Clone)]
pub struct TableMaker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    cache: Arc<TableCache>,
    /// For files that take less than about 10 ms, and for the others: those must not keep these waiting.
    small: ThreadPool,
    large: ThreadPool,
    ended: AtomicBool,
}

struct State {
    store: TableStore,
    making: HashSet<FileKey>,
    counts: TableCounts,
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
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let state =
            State { store, making: HashSet::new(), counts: TableCounts::default(), refused: Vec::new() };
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(state),
            cache: Arc::new(TableCache::open()),
            small: new_pool(threads)?,
            large: new_pool(threads)?,
            ended: AtomicBool::new(false),
        })))
    }

    /// Gets memory, for which the first table would have to wait.
    pub fn prepare(&self) {
        let maker = self.clone();
        self.0.small.spawn(move || _ = maker.lock().store.reserve(FIRST_WORDS));
    }

    pub fn cache(&self) -> Arc<TableCache> {
        Arc::clone(&self.0.cache)
    }

    /// Makes the table of a file soon, unless that is under way; `name` is for messages.
    pub fn make(&self, key: FileKey, code: Code, name: String) {
        if !self.lock().making.insert(key) {
            return;
        }
        let maker = self.clone();
        let pool = if code.len() > MAX_SMALL_BYTES { &self.0.large } else { &self.0.small };
        pool.spawn(move || {
            if maker.0.ended.load(Ordering::Relaxed) {
                return;
            }
            let found = maker.0.read(&code);
            maker.lock().install(key, &name, found.as_ref());
            if let Ok(found) = found {
                maker.0.cache.keep(&found);
            }
        });
    }

    /// Nobody needs what is not made yet.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// The next sample in the file asks for its table again.
    pub fn forget(&self, key: FileKey) {
        self.lock().store.forget(key);
    }

    /// The stacks that need the file's table say that there is none.
    pub fn refuse(&self, key: FileKey) {
        self.lock().store.refuse(key);
    }

    /// What was made, refused and evicted so far.
    pub fn counts(&self) -> TableCounts {
        let state = self.lock();
        TableCounts { evicted: state.store.evicted, ..state.counts }
    }

    /// What was refused or evicted so far, in words.
    pub fn warnings(&self) -> Vec<String> {
        let (evicted, mut warnings) = (self.counts().evicted, self.lock().refused.clone());
        if evicted > 0 {
            warnings.push(format!("{evicted} unwind tables were evicted: they need more than 48 MiB"));
        }
        warnings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn install(&mut self, key: FileKey, name: &str, found: Result<&Found, &Option<TableError>>) {
        self.making.remove(&key);
        let refused = match found {
            Ok(found) => {
                self.counts.made += u64::from(!found.cached);
                self.counts.cached += u64::from(found.cached);
                self.store.install(key, &found.table).err().map(|refused| refused.to_string())
            }
            Err(Some(TableError::TooSparse)) => {
                self.store.refuse(key);
                Some(TableError::TooSparse.to_string())
            }
            Err(_) => return self.store.install_none(key),
        };
        let Some(refused) = refused else { return };
        self.counts.refused += 1;
        if self.refused.len() < MAX_NAMED {
            self.refused.push(format!("no unwind table for {name}: {refused}"));
        }
    }
}

impl Shared {
    /// None: it is no file of machine code, or a damaged one.
    fn read(&self, code: &Code) -> Result<Found, Option<TableError>> {
        let frames = match code {
            Code::File(file) => symbols::call_frames(file),
            Code::Bytes(bytes) => symbols::call_frames_of_bytes(bytes),
        };
        let (frames, segments) = frames.map_err(|_| None)?;
        self.cache.table(&frames, &segments).map_err(Some)
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

fn new_pool(threads: usize) -> io::Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).start_handler(|_| super::prefer_this_thread());
    pool.thread_name(|_| "sberf-tables".to_string()).build().map_err(io::Error::other)
}
