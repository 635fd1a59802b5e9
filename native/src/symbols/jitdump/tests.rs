//! Tests of jitdumps: written ones, damaged ones, and one of Node.js.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::builder::{DumpBuilder, file_of};
use super::*;
use crate::symbols::tests::Random;

const CODE: u64 = 0x7f3a_1c0e_5000;

fn read(dump: &DumpBuilder) -> Jitdump {
    read_file(dump.file()).unwrap()
}

fn read_file(file: File) -> Result<Jitdump, JitdumpError> {
    Jitdump::read(file, JitdumpLimits::default())
}

fn find(dump: &Jitdump, address: u64, ts_ns: u64) -> Option<JitCode> {
    let spans = dump.spans_at(ts_ns);
    dump.find(address, spans).or_else(|| dump.find_later(address, spans))
}

fn name(dump: &Jitdump, address: u64, ts_ns: u64) -> String {
    find(dump, address, ts_ns).map_or("-".to_owned(), |found| dump.name(found).unwrap())
}

#[test]
fn an_address_has_the_name_of_its_time() {
    for is_swapped in [false, true] {
        let mut dump = DumpBuilder::with(7, is_swapped, 0, 0);
        dump.load(10, CODE, 0x100, "first").load(20, CODE + 0x1000, 0x100, "beside");
        dump.load(30, CODE + 0x80, 0x100, "second").other(3, 0);
        let dump = read(&dump);
        assert_eq!(name(&dump, CODE + 0x7f, 10), "first");
        assert_eq!(name(&dump, CODE + 0x80, 29), "first");
        assert_eq!(name(&dump, CODE + 0x80, 30), "second");
        assert_eq!(name(&dump, CODE + 0x7f, 30), "first");
        assert_eq!(name(&dump, CODE + 0x17f, 99), "second");
        assert_eq!(name(&dump, CODE + 0x180, 99), "-");
        // Compilers tell of code a little after they have made it.
        assert_eq!(name(&dump, CODE + 0x80, 9), "first");
        assert_eq!(name(&dump, CODE + 0x100, 29), "second");
        assert_eq!((dump.skipped_records(), dump.is_cut(), dump.is_shared()), (0, false, false));
        assert_eq!((dump.spans(), dump.span(2)), (3, Some(CODE + 0x80..CODE + 0x180)));
    }
}

#[test]
fn code_that_moves_keeps_its_name_and_lines() {
    let mut dump = DumpBuilder::new(7);
    let line = |skipped, line| (CODE + skipped, line, &b"/srv/app.js"[..]);
    dump.lines(9, CODE, &[line(0x10, 3), (CODE + 0x20, 4, b"\xff"), line(0x30, 0)]);
    dump.load(10, CODE, 0x40, "moved").load(10, CODE + 0x40, 0x40, "stays");
    dump.code_move(20, CODE, CODE + 0x1000, 0x40).load(30, CODE, 0x40, "next");
    dump.code_move(40, CODE + 0x1000, CODE + 0x2000, 0x40);
    dump.code_move(50, CODE + 0x9000, CODE + 0x3000, 0x40);
    let dump = read(&dump);
    assert_eq!(name(&dump, CODE, 15), "moved");
    assert_eq!(name(&dump, CODE + 0x1000, 20), "moved");
    assert_eq!(name(&dump, CODE, 30), "next");
    assert_eq!(name(&dump, CODE + 0x203f, 40), "moved");
    assert_eq!(name(&dump, CODE + 0x3000, 50), "-");
    assert_eq!(dump.skipped_records(), 1);
    let source = |address, ts_ns| dump.source(find(&dump, address, ts_ns).unwrap());
    let app = |line| Some(("/srv/app.js".to_owned(), line));
    for (base, ts_ns) in [(CODE, 15), (CODE + 0x1000, 25), (CODE + 0x2000, 45)] {
        let lines = [0, 0x10, 0x1f, 0x20, 0x30].map(|skipped| source(base + skipped, ts_ns));
        assert_eq!(lines, [None, app(3), app(3), app(4), None]);
    }
    assert_eq!(source(CODE, 30), None);
    assert_eq!(source(CODE + 0x40, 30), None);
}

#[test]
fn lines_that_cannot_be_true_are_not_used() {
    let source_of = |pad, name: &str, entries: &[(u64, u32, &[u8])]| {
        let mut dump = DumpBuilder::with(7, false, pad, 0);
        dump.lines(9, CODE, entries).load(10, CODE, 0x100, name);
        let dump = read(&dump);
        dump.source(find(&dump, CODE + 0x30, 10).unwrap())
    };
    let v8 = 0xdead_beef;
    let entries: [(u64, u32, &[u8]); 2] = [(CODE + 0x40, 3, b"a.js"), (CODE + 0x70, 4, b"a.js")];
    assert_eq!(source_of(0, "f", &entries), None);
    assert_eq!(source_of(v8, "JS:*f a.js:1:1", &entries), Some(("a.js".to_owned(), 4)));
    assert_eq!(source_of(v8, "JS:^f a.js:1:1", &entries), None);
    for broken in [&b""[..], b"\xff", b"p)\x02"] {
        assert_eq!(source_of(0, "f", &[(CODE, 3, broken), (CODE + 1, 4, b"a.js")]), None);
    }
    assert_eq!(source_of(0, "f", &[(CODE, 3, b"a.js"), (CODE + 0x101, 4, b"a.js")]), None);
    assert_eq!(source_of(0, "f", &[(CODE, 3, b"a.js"), (CODE - 1, 4, b"a.js")]), None);
    assert_eq!(source_of(0, "f", &[]), None);
}

#[test]
fn another_clock_leaves_only_the_order() {
    let mut dump = DumpBuilder::with(7, false, 0, 1);
    dump.load(1 << 60, CODE, 0x100, "first").load(2 << 60, CODE, 0x100, "second");
    let dump = read(&dump);
    assert!(!dump.has_usable_times());
    assert_eq!([0, u64::MAX].map(|ts_ns| name(&dump, CODE, ts_ns)), ["second", "second"]);
}

#[test]
fn records_that_make_no_sense_cost_only_themselves() {
    let mut dump = DumpBuilder::new(7);
    dump.load_bytes(10, CODE, 0x10, b"no end").load_bytes(10, CODE + 0x100, 0x10, b"br\xffken\0junk");
    dump.load_bytes(10, CODE + 0x200, 0x10, b"\0").load_bytes(10, CODE + 0x300, 0x10, b"");
    dump.load(10, CODE + 0x400, 0, "empty").load(10, u64::MAX - 0xf, 0x20, "wraps");
    dump.other(0, 20).other(1, 47).other(2, 15).other(4, 7).other(77, 1);
    dump.code_move(10, CODE, u64::MAX, 1).code_move(10, CODE, CODE, 0).load(10, CODE + 0x500, 1, "good");
    let dump = read(&dump);
    let names = [0x0, 0x100, 0x500].map(|skipped| name(&dump, CODE + skipped, 10));
    assert_eq!(names, ["no end", "br\\xffken", "good"]);
    assert_eq!(dump.name(find(&dump, CODE + 0x200, 10).unwrap()), None);
    assert_eq!([0x300, 0x400].map(|skipped| find(&dump, CODE + skipped, 10)), [None, None]);
    assert_eq!(dump.skipped_records(), 7);
}

#[test]
fn a_lying_size_of_the_code_is_found_out() {
    let mut dump = DumpBuilder::new(7);
    dump.load(10, CODE, 0x10, "lies").load(20, CODE + 0x10, 0x10, "good");
    dump.bytes[40 + 40..40 + 48].copy_from_slice(&u64::MAX.to_ne_bytes());
    assert_eq!(read(&dump).skipped_records(), 1);
    dump.bytes[40 + 40..40 + 48].copy_from_slice(&(0x10_u64 + 5).to_ne_bytes());
    let dump = read(&dump);
    assert_eq!((dump.skipped_records(), find(&dump, CODE, 99)), (1, None));
    assert_eq!(name(&dump, CODE + 0x10, 99), "good");
}

#[test]
fn what_a_fork_wrote_twice_hides_nothing() {
    let mut dump = DumpBuilder::new(7);
    dump.load(10, CODE, 0x10, "first").load(20, CODE + 0x100, 0x40, "second");
    let buffered = dump.bytes[40 + 30..].to_vec();
    dump.bytes.extend(buffered);
    dump.other(4, 100).load(30, CODE + 0x200, 0x40, "third");
    let dump = read(&dump);
    let names = [0x0, 0x100, 0x200].map(|skipped| name(&dump, CODE + skipped, 30));
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!((dump.skipped_records(), dump.spans()), (1, 4));
}

#[test]
fn a_dump_may_end_anywhere() {
    let mut dump = DumpBuilder::new(7);
    dump.load(10, CODE, 0x10, "first").lines(19, CODE + 0x100, &[(CODE + 0x100, 3, b"a.js")]);
    dump.load(20, CODE + 0x100, 0x40, "second");
    for len in 0..dump.bytes.len() {
        match read_file(file_of(&dump.bytes[..len])) {
            Ok(part) => {
                assert_eq!(find(&part, CODE, 10).is_some(), len >= 40 + 56 + 6 + 0x10);
                assert_eq!((part.skipped_records(), find(&part, CODE + 0x100, 20)), (0, None));
            }
            Err(error) => assert!(len < 40 && matches!(error, JitdumpError::NoMagic), "{len}: {error}"),
        }
    }
    let file = dump.file();
    let whole = read_file(file.try_clone().unwrap()).unwrap();
    let second = find(&whole, CODE + 0x100, 20).unwrap();
    assert_eq!(whole.source(second), Some(("a.js".to_owned(), 3)));
    // Its owner may also cut it off later.
    file.set_len(whole.codes[1].name_at).unwrap();
    assert_eq!((whole.name(second), whole.source(second).is_some()), (None, true));
}

#[test]
fn what_is_read_is_bounded() {
    let mut dump = DumpBuilder::new(7);
    for i in 0..100 {
        dump.load(i, CODE + 0x100 * i, 0x10, "f").other(4, 8);
    }
    let cut = |records, codes| {
        let dump = Jitdump::read(dump.file(), JitdumpLimits { records, codes }).unwrap();
        (dump.spans(), dump.is_cut())
    };
    assert_eq!(cut(1000, 1000), (100, false));
    assert_eq!(cut(200, 101), (100, false));
    assert_eq!(cut(100, 1000), (50, true));
    assert_eq!(cut(1000, 7), (7, true));
    assert_eq!(cut(0, 0), (0, true));
    // Functions that overlap without end.
    let mut nested = DumpBuilder::new(7);
    for i in 0..2000 {
        nested.load(i, CODE + i, 8000 - 2 * i as usize, "f");
    }
    let nested = Jitdump::read(nested.file(), JitdumpLimits { records: 9999, codes: 2001 }).unwrap();
    assert!(nested.is_cut() && nested.spans() > 500, "{}", nested.spans());
}

#[test]
fn a_large_hole_takes_no_time() {
    let dump = DumpBuilder::new(7);
    let file = dump.file();
    file.set_len(1 << 42).unwrap();
    let begin = Instant::now();
    assert_eq!(read_file(file).unwrap().spans(), 0);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn other_files_are_refused() {
    let refused = |bytes: &[u8]| read_file(file_of(bytes)).err().unwrap().to_string();
    assert_eq!(refused(b""), "not a jitdump");
    assert_eq!(refused(&[b'x'; 100]), "not a jitdump");
    let mut newer = DumpBuilder::new(7).bytes;
    newer[4] = 2;
    assert_eq!(refused(&newer), "has version 2");
    let error = read_file(File::open("/dev/zero").unwrap()).err();
    assert!(matches!(error, Some(JitdumpError::NotRegular)));
}

#[test]
fn names_of_dumps() {
    let pids =
        ["/srv/jit-812.dump", "jit-1.dump", "/jit-.dump", "/jit-1.dump/x", "/jit-+1.dump", "/a/jit-1.dmp"]
            .map(pid_in_jitdump_name);
    assert_eq!(pids, [Some(812), Some(1), None, None, None, None]);
    assert_eq!(pid_in_jitdump_name("/jit-99999999999.dump"), None);
}

/// The dump of a run of Node.js.
fn dump_of_node() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let script = "function hot(n) { let x = 0; for (let i = 0; i < n; i++) x = (x * 31 + i) % 1003; return x }\n\
        for (let i = 0; i < 2000; i++) hot(1000)";
    let run = Command::new("node").args(["--perf-prof", "-e", script]).current_dir(dir.path()).status();
    assert!(run.expect("node is installed").success());
    let path = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| pid_in_jitdump_name(path.to_str().unwrap()).is_some());
    fs::read(path.unwrap()).unwrap()
}

/// Where the records of a sound dump begin, and its end.
fn record_bounds(bytes: &[u8]) -> Vec<usize> {
    let mut bounds = vec![40];
    while *bounds.last().unwrap() < bytes.len() {
        let at = *bounds.last().unwrap();
        bounds.push(at + u32::from_ne_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize);
    }
    bounds
}

#[test]
fn damaged_dumps_never_panic() {
    let bytes = dump_of_node();
    let whole = read_file(file_of(&bytes)).unwrap();
    let names: Vec<String> =
        (0..whole.spans()).map(|span| whole.name(JitCode { span, code: span, offset: 0 }).unwrap()).collect();
    assert!(names.iter().any(|name| name.contains("hot")), "{} names", names.len());
    assert_eq!((whole.skipped_records(), whole.is_cut()), (0, false));
    let bounds = record_bounds(&bytes);
    let mut random = Random::new(31);
    let mut file = tempfile::tempfile().unwrap();
    let deadline = Instant::now() + Duration::from_millis(700);
    let mut found = 0;
    while Instant::now() < deadline {
        let first = random.below(bounds.len() as u64 - 80) as usize;
        let mut part = bytes[..40].to_vec();
        part.extend_from_slice(&bytes[bounds[first]..bounds[first + 1 + random.below(60) as usize]]);
        random.mutate(&mut part, b"\0\x01\x02\x04\x10\x40\x7f\xff");
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(&part).unwrap();
        let limits = JitdumpLimits { records: 1000, codes: 100 };
        let Ok(dump) = Jitdump::read(file.try_clone().unwrap(), limits) else { continue };
        assert!(dump.spans() <= 100 && dump.codes.len() <= 100);
        // The file may change while it is used.
        if random.below(4) == 0 {
            let at = random.below(part.len() as u64 + 1);
            file.write_all_at(&random.next().to_ne_bytes(), at).unwrap();
            file.set_len(random.below(part.len() as u64 + 1)).unwrap();
        }
        for span in 0..dump.spans() {
            let range = dump.span(span).unwrap();
            let address = range.start + random.below(range.end - range.start);
            let code = find(&dump, address, random.odd_number()).unwrap();
            let name = dump.name(code);
            let source = dump.source(code);
            found += usize::from(name.is_some_and(|name| !name.is_empty()) || source.is_some());
            find(&dump, random.odd_number(), random.odd_number());
        }
    }
    assert!(found > 1000, "{found}");
}

#[test]
#[ignore = "a benchmark"]
fn benchmark() {
    let mut dump = DumpBuilder::new(7);
    let mut random = Random::new(3);
    let count = 2_000_000;
    for i in 0..count {
        dump.load(i, CODE + 64 * random.below(400_000), 300, "Ljava/util/concurrent/ForkJoinPool;scan(I)V");
    }
    let file = dump.file();
    drop(dump);
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak begins anew
    let begin = Instant::now();
    let dump = read_file(file).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("{} functions: {:?}, {peak}", dump.spans(), begin.elapsed());
    let begin = Instant::now();
    let lookups = 1_000_000;
    let found = (0..lookups)
        .filter(|_| find(&dump, CODE + random.below(64 * 400_000), random.below(count)).is_some())
        .count();
    println!("{:?} a lookup, {found} of {lookups} found", begin.elapsed() / lookups);
}
