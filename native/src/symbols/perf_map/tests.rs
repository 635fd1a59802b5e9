//! Tests of perf maps: written ones, damaged ones, and who may own one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::symbols::tests::Random;

fn parse(text: &[u8]) -> PerfMap {
    PerfMap::parse(text, PerfMapLimits::default()).unwrap()
}

fn name(map: &PerfMap, address: u64) -> String {
    map.lookup(address).map_or("-".to_owned(), |name| name.into_owned())
}

#[test]
fn names_hold_whatever_stands_behind_the_numbers() {
    let map = parse(
        b"7f3a1c0e5a40 1c8 LazyCompile:~add /srv/my app.js:3:14\n\
          0x7f3a1c0e6000 0X10 not hexadecimal\n\
          0x7f3a1c0e6000 0x10 Ljava/lang/String;::hashCode\r\n\
          7f3a1c0e7000 10   padded\n\
          7F3A1C0E8000 A upper\n",
    );
    assert_eq!(name(&map, 0x7f3a_1c0e_5a40), "LazyCompile:~add /srv/my app.js:3:14");
    assert_eq!(name(&map, 0x7f3a_1c0e_5c07), "LazyCompile:~add /srv/my app.js:3:14");
    assert_eq!(name(&map, 0x7f3a_1c0e_5c08), "-");
    assert_eq!(name(&map, 0x7f3a_1c0e_5a3f), "-");
    assert_eq!(name(&map, 0x7f3a_1c0e_600f), "Ljava/lang/String;::hashCode");
    assert_eq!(name(&map, 0x7f3a_1c0e_7000), "padded");
    assert_eq!(name(&map, 0x7f3a_1c0e_8009), "upper");
    assert_eq!((map.skipped_lines(), map.is_cut()), (1, false));
}

#[test]
fn later_lines_win_where_they_overlap() {
    let map = parse(
        b"1000 100 first\n\
          1040 20 inside\n\
          10f0 20 across\n\
          2000 10 old\n\
          1ff0 30 covers_old\n",
    );
    let names = [0x1000, 0x103f, 0x1040, 0x105f, 0x1060, 0x10ef, 0x10f0, 0x110f];
    let expected = ["first", "first", "inside", "inside", "first", "first", "across", "across"];
    assert_eq!(names.map(|address| name(&map, address)), expected);
    assert_eq!(name(&map, 0x2008), "covers_old");
}

#[test]
fn lines_that_make_no_sense_are_counted() {
    let map = parse(
        b"\n\
          garbage\n\
          1000 10\n\
          1000 10 \n\
          1000  \n\
          1000 0 empty\n\
          -1 10 negative\n\
          ffffffffffffffff 2 wraps\n\
          11112222333344445 10 too long\n\
          1000\t10\ttabs\n\
          2000 10 good\n\
          3000 10 br\xffken\n\
          4000 10 still being writ",
    );
    assert_eq!(map.skipped_lines(), 11);
    assert_eq!(name(&map, 0x1000), "-");
    assert_eq!(name(&map, 0x2000), "good");
    assert_eq!(name(&map, 0x3000), "br\\xffken");
    assert_eq!(name(&map, 0x4000), "-");
    assert!(!map.is_cut());
    assert_eq!(parse(b"").skipped_lines(), 0);
}

#[test]
fn what_is_read_is_bounded() {
    let text = b"1000 10 one\n2000 10 two\n3000 10 three\n";
    let cut = |bytes, entries| {
        let map = PerfMap::parse(&text[..], PerfMapLimits { bytes, entries }).unwrap();
        let names = [0x1000, 0x2000, 0x3000].map(|address| name(&map, address));
        (names.join(" "), map.is_cut(), map.skipped_lines())
    };
    assert_eq!(cut(1000, 10), ("one two three".to_owned(), false, 0));
    assert!(!cut(text.len() as u64, 3).1);
    assert_eq!(cut(1000, 2), ("one two -".to_owned(), true, 0));
    assert_eq!(cut(30, 10), ("one two -".to_owned(), true, 0));
    assert_eq!(cut(0, 10), ("- - -".to_owned(), true, 0));
    // A file without end.
    let limits = PerfMapLimits { bytes: 1 << 20, entries: 10 };
    let map = PerfMap::parse(io::repeat(b'a'), limits).unwrap();
    assert!(map.is_cut() && map.content.is_empty());
}

#[test]
fn damaged_maps_never_panic() {
    let text = b"7f3a1c0e5a40 1c8 LazyCompile:~add /srv/app.js:3:14\n\
        1000 100 first\n1040 20 inside\n10f0 20 across\nffffffffffffff00 ff end\n";
    let mut random = Random::new(31);
    let deadline = Instant::now() + Duration::from_millis(300);
    while Instant::now() < deadline {
        let mut bytes = text.to_vec();
        random.mutate(&mut bytes, b"0123456789abcdef x\n\xff");
        let map = parse(&bytes);
        for _ in 0..16 {
            let address = match random.below(2) {
                0 => random.odd_number(),
                _ => 0x1000 + random.below(0x200),
            };
            assert!(map.lookup(address).is_none_or(|name| !name.is_empty()));
        }
    }
}

fn own_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

/// Opens the map of process 42 in `dir`.
fn open(dir: &Path, uid: u32) -> Result<File, PerfMapError> {
    open_perf_map(&File::open(dir).unwrap(), 42, uid)
}

#[test]
fn a_map_of_the_processs_user_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let missing = open(dir.path(), own_uid()).unwrap_err();
    let not_found = io::ErrorKind::NotFound;
    assert!(matches!(&missing, PerfMapError::Io(error) if error.kind() == not_found));
    fs::write(dir.path().join("perf-42.map"), "1000 10 f\n").unwrap();
    let file = open(dir.path(), own_uid()).unwrap();
    let map = PerfMap::parse(file, PerfMapLimits::default()).unwrap();
    assert_eq!(name(&map, 0x1000), "f");
}

#[test]
fn a_map_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("perf-42.map");
    fs::write(&path, "").unwrap();
    if own_uid() == 0 {
        // Files of root count for every process; another user's do not.
        assert!(open(dir.path(), 1234).is_ok());
        std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
        assert!(open(dir.path(), 4321).is_ok());
    }
    let error = open(dir.path(), 1234).unwrap_err();
    assert!(matches!(error, PerfMapError::ForeignOwner { uid: 1234, .. }));
}

#[test]
fn links_pipes_and_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("perf-42.map");
    let target = dir.path().join("target");
    fs::write(&target, "").unwrap();
    symlink(&target, &path).unwrap();
    let error = open(dir.path(), own_uid()).unwrap_err();
    let is_loop = |error: &io::Error| error.raw_os_error() == Some(libc::ELOOP);
    assert!(matches!(&error, PerfMapError::Io(error) if is_loop(error)));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = open(dir.path(), own_uid()).unwrap_err();
    assert!(matches!(error, PerfMapError::NotRegular));
    fs::remove_dir(&path).unwrap();
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Opening a pipe must not wait for a writer.
    let error = open(dir.path(), own_uid()).unwrap_err();
    assert!(matches!(error, PerfMapError::NotRegular));
}
