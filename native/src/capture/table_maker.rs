//! Makes the tables that the unwinder asks for, several at a time, off the capture's hot path.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tables::{FileKey, TableStore};
use crate::symbols;
use crate::unwind::{Table, TableError};

/// Files whose refusal is told by name.
const MAX_NAMED: usize = 100;

/// Shared by those who make tables.
#[derive(Clone)]
pub struct TableMaker(Arc<Mutex<State>>);

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
    pub fn new(store: TableStore) -> Self {
        Self(Arc::new(Mutex::new(State { store, refused: Vec::new() })))
    }

    /// Makes the table of a file soon; `name` is for messages.
    pub fn make(&self, key: FileKey, code: Code, name: String) {
        let shared = self.clone();
        rayon::spawn(move || {
            let table = read(&code);
            let state = &mut *shared.lock();
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
        });
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
