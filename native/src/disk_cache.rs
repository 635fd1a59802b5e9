//! What took long to compute, kept on disk for the next time.
//!
//! A value is known by a hash of what it was computed from, made with a secret that only the owner of
//! the cache can read: no file can claim to be another one.  Each is a file of its own, written under
//! another name and then renamed: processes that run at once, or are killed, never leave a part of
//! one.  Whatever goes wrong costs the cache, never a value.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Whoever has written so much looks whether the whole has become too large.
const TRIM_BYTES: u64 = 16 << 20;
/// When a value was used is noted in its modification time, no more precisely than this.
const USE_INTERVAL: Duration = Duration::from_secs(3600);
/// A temporary file that is older was left by a process that was killed.
const MAX_WRITING: Duration = Duration::from_secs(600);
const SECRET_LEN: usize = 192;
const SECRET_NAME: &str = "secret";
const TEMPORARY_SUFFIX: &str = ".tmp";
/// `{u128 key, u64 checksum of the value}`, then the value.
const HEADER_LEN: usize = 24;

/// Values by key; one that cannot be opened keeps nothing.
pub struct DiskCache(Option<Place>);

/// What a value was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u128);

/// A directory that only we may write to.
struct Place {
    dir: File,
    secret: [u8; SECRET_LEN],
    max_bytes: u64,
    /// Since the last look at the whole.
    written: AtomicU64,
}

impl DiskCache {
    /// The cache `name` of this user; `max_bytes`: all values together, the least recently used go.
    pub fn open(name: &str, max_bytes: u64) -> Self {
        Self(base_dir().and_then(|base| Place::open(&base.join(name), max_bytes).ok()))
    }

    /// One in a directory of its own.
    #[cfg(test)]
    pub fn open_in(dir: &Path, max_bytes: u64) -> Self {
        Self(Place::open(dir, max_bytes).ok())
    }

    /// The key of what is computed from `parts`; None when nothing is kept.
    pub fn key<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Option<Key> {
        let mut hash = Xxh3::with_secret(self.0.as_ref()?.secret);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(Key(hash.digest128()))
    }

    /// The value of a key, when it is there, whole, and no longer than `max_len`.
    pub fn load(&self, key: Key, max_len: usize) -> Option<Vec<u8>> {
        self.0.as_ref()?.load(key, max_len)
    }

    /// A full disk or one that may not be written to costs no more than the attempt.
    pub fn store(&self, key: Key, value: &[u8]) {
        if let Some(place) = &self.0 {
            place.store(key, value);
        }
    }
}

impl Place {
    /// # Errors
    /// When it cannot be made or read, or others may write to it.
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let dir = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !is_ours(&dir, 0o022)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut place = Self { dir, secret: [0; SECRET_LEN], max_bytes, written: AtomicU64::new(TRIM_BYTES) };
        place.secret = place.read_secret().or_else(|_| place.make_secret())?;
        Ok(place)
    }

    fn read_secret(&self) -> io::Result<[u8; SECRET_LEN]> {
        let mut file = self.open_file(SECRET_NAME)?;
        let mut secret = [0; SECRET_LEN];
        file.read_exact(&mut secret)?;
        if is_ours(&file, 0o077)? { Ok(secret) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Of two that make it at once, both use the one that came first.
    fn make_secret(&self) -> io::Result<[u8; SECRET_LEN]> {
        let mut secret = [0; SECRET_LEN];
        fill_random(&mut secret)?;
        let temporary = self.write_temporary(&[&secret])?;
        let path = self.path(SECRET_NAME);
        let _ = fs::hard_link(&temporary, &path);
        let first = self.read_secret();
        if first.is_ok() {
            let _ = fs::remove_file(&temporary);
            return first;
        }
        // What is there is damaged, or the file system knows no links.
        fs::rename(&temporary, &path)?;
        Ok(secret)
    }

    fn load(&self, key: Key, max_len: usize) -> Option<Vec<u8>> {
        let mut file = self.open_file(&name_of(key)).ok()?;
        let mut header = [0; HEADER_LEN];
        file.read_exact(&mut header).ok()?;
        let mut value = Vec::new();
        Read::take(&file, max_len as u64 + 1).read_to_end(&mut value).ok()?;
        if value.len() > max_len || header != header_of(key, &value) {
            return None;
        }
        let now = SystemTime::now();
        let used = file.metadata().and_then(|metadata| metadata.modified()).unwrap_or(now);
        if now.duration_since(used).is_ok_and(|age| age > USE_INTERVAL) {
            let _ = file.set_modified(now);
        }
        Some(value)
    }

    fn store(&self, key: Key, value: &[u8]) {
        let written = self.written.fetch_add(value.len() as u64, Ordering::Relaxed);
        if written >= TRIM_BYTES {
            self.written.store(0, Ordering::Relaxed);
            self.trim(value.len() as u64);
        }
        if let Ok(temporary) = self.write_temporary(&[&header_of(key, value), value])
            && fs::rename(&temporary, self.path(&name_of(key))).is_err()
        {
            let _ = fs::remove_file(&temporary);
        }
    }

    /// Removes what killed processes left, and what was not used for longest until `room` is free.
    fn trim(&self, room: u64) {
        let now = SystemTime::now();
        let mut values = Vec::new();
        for entry in fs::read_dir(self.path("")).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let name = entry.file_name();
            if is_name_of_value(name.as_bytes()) {
                values.push((used, metadata.len(), entry.path()));
            } else if name.as_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes())
                && now.duration_since(used).is_ok_and(|age| age > MAX_WRITING)
            {
                let _ = fs::remove_file(entry.path());
            }
        }
        let mut total = room + values.iter().map(|(_, len, _)| len).sum::<u64>();
        values.sort_unstable();
        for (_, len, path) in values {
            if total <= self.max_bytes {
                break;
            }
            let _ = fs::remove_file(path);
            total -= len;
        }
    }

    fn write_temporary(&self, parts: &[&[u8]]) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        fill_random(&mut random)?;
        let path = self.path(&format!("{:016x}{TEMPORARY_SUFFIX}", u64::from_ne_bytes(random)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        if let Err(error) = parts.iter().try_for_each(|part| file.write_all(part)) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(name))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// In the directory that was checked, whatever its name means by now.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }
}

/// Does it belong to us, and has nobody else the permissions in `mask`?
fn is_ours(file: &File, mask: u32) -> io::Result<bool> {
    let metadata = file.metadata()?;
    // SAFETY: takes no arguments and cannot fail.
    Ok(metadata.uid() == unsafe { libc::geteuid() } && metadata.mode() & mask == 0)
}

fn header_of(key: Key, value: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..16].copy_from_slice(&key.0.to_le_bytes());
    header[16..].copy_from_slice(&xxh3_64(value).to_le_bytes());
    header
}

fn name_of(key: Key) -> String {
    format!("{:032x}", key.0)
}

fn is_name_of_value(name: &[u8]) -> bool {
    name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit)
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: writes at most so many bytes to a live buffer.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(filled) == Ok(bytes.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// None: there is to be no cache.
fn base_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if std::env::var_os("SBERF_CACHE_DIR").is_some() {
        return absolute("SBERF_CACHE_DIR");
    }
    // SAFETY: takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Some(PathBuf::from("/var/cache/sberf"));
    }
    Some(absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?.join("sberf"))
}

#[cfg(test)]
mod tests;
