//! The cache under everything that may happen to its directory.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Barrier;
use std::thread;

use super::*;

const MAX_BYTES: u64 = 1 << 20;
const MAX_LEN: usize = 1 << 16;

fn open(dir: &Path) -> DiskCache {
    let cache = DiskCache::open_in(dir, MAX_BYTES);
    assert!(cache.0.is_some());
    cache
}

fn key(cache: &DiskCache, part: &str) -> Key {
    cache.key([part.as_bytes()]).unwrap()
}

/// The values in a directory.
fn values_in(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| is_name_of_value(path.file_name().unwrap().as_bytes())).collect()
}

#[test]
fn a_value_comes_back_to_whoever_has_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let one = key(&cache, "one");
    assert_eq!(cache.load(one, MAX_LEN), None);
    cache.store(one, b"value");
    assert_eq!(cache.load(one, MAX_LEN).unwrap(), b"value");
    assert_eq!(open(dir.path()).load(one, 5).unwrap(), b"value");
    assert_eq!(cache.load(one, 4), None);
    assert_eq!(cache.load(key(&cache, "two"), MAX_LEN), None);
    cache.store(one, b"");
    assert_eq!(cache.load(one, MAX_LEN).unwrap(), b"");
    // A value under a name that is not its own.
    let [path] = values_in(dir.path()).try_into().unwrap();
    fs::rename(path, dir.path().join(name_of(key(&cache, "two")))).unwrap();
    assert_eq!(cache.load(key(&cache, "two"), MAX_LEN), None);
}

#[test]
fn a_key_depends_on_each_part_and_on_the_secret() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [cache, other] = dirs.each_ref().map(|dir| open(dir.path()));
    let of = |parts: &[&str]| cache.key(parts.iter().map(|part| part.as_bytes())).unwrap();
    let keys = [of(&[]), of(&[""]), of(&["", ""]), of(&["ab", "c"]), of(&["a", "bc"]), of(&["abc"])];
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(one));
    }
    assert_eq!(keys[5], key(&open(dirs[0].path()), "abc"));
    assert_ne!(keys[5], key(&other, "abc"));
    let secret = dirs[0].path().join(SECRET_NAME);
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    // A damaged secret heals.
    fs::write(&secret, "short").unwrap();
    let healed = key(&open(dirs[0].path()), "abc");
    assert_ne!(healed, keys[5]);
    assert_eq!(healed, key(&open(dirs[0].path()), "abc"));
}

#[test]
fn a_damaged_value_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let one = key(&cache, "one");
    let value: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
    cache.store(one, &value);
    let [path] = values_in(dir.path()).try_into().unwrap();
    let whole = fs::read(&path).unwrap();
    let cut = [0, 1, 23, 24, whole.len() / 2, whole.len() - 1].map(|len| whole[..len].to_vec());
    let flipped = [0, 15, 16, 23, 24, whole.len() / 2, whole.len() - 1].map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        damaged
    });
    let longer = [&whole[..], b"x"].concat();
    for damaged in cut.into_iter().chain(flipped).chain([longer]) {
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.load(one, MAX_LEN), None);
        cache.store(one, &value);
        assert!(cache.load(one, MAX_LEN).unwrap() == value);
    }
}

#[test]
fn a_directory_of_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    assert!(Place::open(&path, MAX_BYTES).is_ok());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    for mode in [0o770, 0o702, 0o1777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Place::open(&path, MAX_BYTES).is_err());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Place::open(&path, MAX_BYTES).is_ok());
    symlink(&path, dir.path().join("link")).unwrap();
    assert!(Place::open(&dir.path().join("link"), MAX_BYTES).is_err());
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(Place::open(&dir.path().join("file"), MAX_BYTES).is_err());
    // Root can give a directory away; for others, root's is foreign.
    let foreign = if chown(&path, Some(1), None).is_ok() { &path } else { Path::new("/usr") };
    assert!(Place::open(foreign, MAX_BYTES).is_err());
}

#[test]
fn without_a_place_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let one = key(&cache, "one");
    fs::remove_dir_all(dir.path()).unwrap();
    cache.store(one, b"value");
    assert_eq!(cache.load(one, MAX_LEN), None);
    let none = DiskCache::open_in(Path::new("/proc/no-place"), MAX_BYTES);
    assert_eq!(none.key([&b"one"[..]]), None);
    none.store(one, b"value");
    assert_eq!(none.load(one, MAX_LEN), None);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let value = vec![7; 1000];
    let len = (value.len() + HEADER_LEN) as u64;
    let cache = DiskCache::open_in(dir.path(), 3 * len + len / 2);
    let keys = ["a", "b", "c", "d", "e"].map(|part| key(&cache, part));
    let now = SystemTime::now();
    let aged = |name: &str, hours: u64| {
        let file = OpenOptions::new().append(true).create(true).open(dir.path().join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(3600 * hours)).unwrap();
    };
    for (at, key) in keys.into_iter().enumerate() {
        cache.store(key, &value);
        aged(&name_of(key), 20 - 2 * at as u64);
    }
    aged("left.tmp", 1);
    aged("writing.tmp", 0);
    aged("no value", 1000);
    assert!(cache.load(keys[0], MAX_LEN).is_some()); // and so was used
    cache.0.as_ref().unwrap().trim(len);
    let left = keys.map(|key| cache.load(key, MAX_LEN).is_some());
    assert_eq!(left, [true, false, false, false, true]);
    assert!(!dir.path().join("left.tmp").exists());
    assert!(dir.path().join("writing.tmp").exists() && dir.path().join("no value").exists());
}

#[test]
fn processes_that_run_at_once_share_a_cache() {
    const PROCESSES: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let (value, barrier) = (vec![7; 300_000], Barrier::new(PROCESSES));
    let run = || {
        barrier.wait();
        let cache = open(dir.path());
        let one = key(&cache, "one");
        for _ in 0..50 {
            cache.store(one, &value);
            assert!(cache.load(one, value.len()).unwrap() == value);
        }
        one
    };
    let keys: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(run)).collect();
        started.into_iter().map(|process| process.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
    // The value and the secret.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
