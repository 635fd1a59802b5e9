//! The calls at addresses that were asked for before, kept on disk.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::source::SourceCall;
use crate::disk_cache::{DiskCache, Key};

const CACHE_NAME: &str = "symbols";
const MAX_CACHE_BYTES: u64 = 512 << 20;
const MAX_VALUE_BYTES: usize = 128 << 20;
/// Of one file; those that are asked for later are not kept.
const MAX_ADDRESSES: usize = 1 << 20;
/// Another version of the readers may find other calls.
const READERS: [&str; 2] = [include_str!("source.rs"), include_str!("../../../Cargo.lock")];

/// The cache of this user.
pub struct KnownCalls(DiskCache);

/// The calls at some addresses of one file, as they are stored: texts are kept once.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    /// Each with the number of its calls.
    addresses: Vec<(u64, u16)>,
    /// Of all addresses: function, file (each 1 + index in `texts`, or 0) and line (or 0).
    calls: Vec<(u32, u32, u32)>,
    texts: Vec<String>,
}

impl KnownCalls {
    pub fn open() -> Self {
        Self(DiskCache::open(CACHE_NAME, MAX_CACHE_BYTES))
    }

    #[cfg(test)]
    pub fn open_in(dir: &std::path::Path) -> Self {
        Self(DiskCache::open_in(dir, MAX_CACHE_BYTES))
    }

    /// The key of debug information in these files, as they are now: who changes a file can set its
    /// modification time, but not the time of that.
    pub fn key(&self, files: &[Option<&File>]) -> Option<Key> {
        let mut identities = Vec::new();
        for file in files {
            let identity = match file {
                Some(file) => {
                    let m = file.metadata().ok()?;
                    [m.dev(), m.ino(), m.size(), m.ctime() as u64, m.ctime_nsec() as u64, m.mtime() as u64]
                }
                None => [0; 6],
            };
            identities.extend(identity.into_iter().flat_map(u64::to_le_bytes));
        }
        self.0.key(READERS.iter().map(|reader| reader.as_bytes()).chain([identities.as_slice()]))
    }

    /// The calls at all addresses that were asked for before.
    pub fn load(&self, key: Key) -> HashMap<u64, Vec<SourceCall>, ahash::RandomState> {
        let value = self.0.load(key, MAX_VALUE_BYTES);
        let stored = value.and_then(|value| postcard::from_bytes::<Stored>(&value).ok()).unwrap_or_default();
        stored.into_calls()
    }

    pub fn store(&self, key: Key, calls: &HashMap<u64, Vec<SourceCall>, ahash::RandomState>) {
        if let Ok(value) = postcard::to_stdvec(&Stored::of(calls))
            && value.len() <= MAX_VALUE_BYTES
        {
            self.0.store(key, &value);
        }
    }
}

impl Stored {
    fn of(all: &HashMap<u64, Vec<SourceCall>, ahash::RandomState>) -> Self {
        let mut stored = Stored::default();
        let mut ids: HashMap<Arc<str>, u32, ahash::RandomState> = HashMap::default();
        let mut texts = Vec::new();
        let mut id = |text: &Option<Arc<str>>| match text {
            None => 0,
            Some(text) => *ids.entry(Arc::clone(text)).or_insert_with(|| {
                texts.push(text.to_string());
                texts.len() as u32
            }),
        };
        for (&address, calls) in all.iter().take(MAX_ADDRESSES) {
            stored.addresses.push((address, calls.len() as u16));
            let call = |call: &SourceCall| (id(&call.function), id(&call.file), call.line.unwrap_or(0));
            stored.calls.extend(calls.iter().map(call));
        }
        stored.texts = texts;
        stored
    }

    /// What makes no sense is left out: it is then asked for again.
    fn into_calls(self) -> HashMap<u64, Vec<SourceCall>, ahash::RandomState> {
        let texts: Vec<Arc<str>> = self.texts.into_iter().map(Arc::from).collect();
        let text = |id: u32| id.checked_sub(1).and_then(|id| texts.get(id as usize)).cloned();
        let mut calls = self.calls.into_iter().map(|(function, file, line)| SourceCall {
            function: text(function),
            file: text(file),
            line: Some(line).filter(|&line| line != 0),
        });
        let addresses = self.addresses.into_iter();
        addresses.map(|(address, len)| (address, calls.by_ref().take(usize::from(len)).collect())).collect()
    }
}
