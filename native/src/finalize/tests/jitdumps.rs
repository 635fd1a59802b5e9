//! Names of code that comes, moves and is replaced while it is sampled.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::builder::{NO_USER, Random, Spool, at, snapshot};
use super::recording::Recording;
use crate::finalize::NoFiles;
use crate::symbols::DumpBuilder;
use crate::wire::{Inode, MappedFile, Mapping};

const CODE: u64 = 0x7f3a_1c0e_5000;
const STACK: u64 = 4096;

fn anonymous() -> Mapping {
    let file = MappedFile { path: "//anon".to_string(), build_id: None, inode: None };
    Mapping { start: CODE, end: CODE + 0x1_0000, file_offset: 0, file }
}

/// Writes the dump, and tells how its process has it mapped.
fn marker(dir: &Path, pid: u32, dump: &DumpBuilder) -> Mapping {
    let path = dir.join(format!("jit-{pid}.dump"));
    fs::write(&path, &dump.bytes).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let inode = Some(Inode { major, minor, inode: metadata.ino() });
    let file = MappedFile { path: path.to_str().unwrap().to_string(), build_id: None, inode };
    let start = 0x7f00_0000_0000 + (u64::from(pid) << 12);
    Mapping { start, end: start + 0x1000, file_offset: 0, file }
}

fn leaf(recording: &Recording, ms: u64) -> String {
    recording.names(recording.at(at(ms)))[0].clone()
}

/// A process with a dump, sampled at one address each 10 ms.
struct Scene {
    dir: tempfile::TempDir,
    spool: Spool,
}

impl Scene {
    fn new() -> Self {
        let mut spool = Spool::new();
        spool.user_stack(STACK, &[CODE + 8, CODE + 0x108]);
        Self { dir: tempfile::tempdir().unwrap(), spool }
    }

    fn map(&mut self, ms: u64, pid: u32, dump: &DumpBuilder) {
        let marker = marker(self.dir.path(), dump.pid, dump);
        self.spool.mmap(ms, pid, &marker);
    }

    fn sample(&mut self, pid: u32, times_ms: &[u64]) {
        times_ms.iter().for_each(|&ms| self.spool.sample(ms, pid, pid, STACK));
    }
}

#[test]
fn an_address_has_its_names_one_after_the_other() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    dump.load(at(20), CODE, 16, "first").load(at(20), CODE + 0x100, 16, "caller");
    dump.load(at(40), CODE, 16, "second").code_move(at(60), CODE, CODE + 0x1000, 16);
    dump.load(at(60), CODE, 16, "third").code_move(at(80), CODE + 0x1000, CODE, 16);
    scene.spool.snapshot(&snapshot(5, 10, "jit", vec![anonymous()]));
    scene.map(6, 10, &dump);
    scene.sample(10, &[10, 30, 39, 40, 50, 70, 90]);
    let recording = scene.spool.finalize();
    let leaves = [10, 30, 39, 40, 50, 70, 90].map(|ms| leaf(&recording, ms));
    assert_eq!(leaves, ["first", "first", "first", "second", "second", "third", "second"]);
    assert_eq!(recording.names(recording.at(at(90)))[1], "caller");
    let module = recording.module(scene.dir.path().join("jit-10.dump").to_str().unwrap());
    assert_eq!((module.kind.as_str(), module.symbols.as_str()), ("jit", "jitdump"));
    assert_eq!(recording.stacks.len(), 3);
    assert_eq!(recording.meta["warnings"], serde_json::json!([]));
}

#[test]
fn a_child_keeps_the_code_that_it_was_forked_with() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    dump.load(at(20), CODE, 16, "first").load(at(20), CODE + 0x100, 16, "caller");
    dump.load(at(40), CODE, 16, "second");
    let mut own = DumpBuilder::new(12);
    own.load(at(60), CODE, 16, "own");
    scene.spool.snapshot(&snapshot(5, 10, "jit", vec![anonymous()]));
    scene.map(6, 10, &dump);
    scene.sample(10, &[25, 55]);
    scene.spool.fork(30, 10, 11);
    scene.spool.fork(31, 11, 12);
    scene.spool.fork(32, 10, 13);
    scene.spool.exec(33, 13, "other");
    scene.spool.mmap(34, 13, &anonymous());
    scene.map(35, 12, &own);
    scene.sample(11, &[36, 56]);
    scene.sample(12, &[37, 57, 67]);
    scene.sample(13, &[58]);
    let recording = scene.spool.finalize();
    let leaves = [25, 55, 36, 56, 37, 57, 67].map(|ms| leaf(&recording, ms));
    assert_eq!(leaves, ["first", "second", "first", "first", "first", "first", "own"]);
    assert_eq!(recording.names(recording.at(at(67)))[1], "caller");
    assert!(leaf(&recording, 58).starts_with("//anon+"));
}

#[test]
fn a_child_that_was_there_before_the_capture_has_its_parents_code() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    dump.load(at(1), CODE, 16, "first").load(at(20), CODE, 16, "second");
    let marker = marker(scene.dir.path(), 10, &dump);
    let maps = vec![anonymous(), marker];
    scene.spool.snapshot(&snapshot(5, 10, "jit", maps.clone()));
    let child = snapshot(6, 11, "jit", maps);
    scene.spool.snapshot(&crate::wire::ProcessSnapshot { start_ns: Some(at(2) as i64), ..child });
    scene.sample(10, &[10, 30]);
    scene.sample(11, &[11, 31]);
    let recording = scene.spool.finalize();
    assert_eq!([10, 30, 11, 31].map(|ms| leaf(&recording, ms)), ["first", "second", "first", "first"]);
}

#[test]
fn workers_that_share_their_code_share_its_names() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    dump.load(at(1), CODE, 16, "first");
    dump.pid = 12; // one worker compiles for all
    dump.load(at(40), CODE, 16, "second");
    dump.pid = 10;
    scene.spool.snapshot(&snapshot(5, 10, "fpm", vec![anonymous()]));
    scene.map(6, 10, &dump);
    scene.spool.fork(20, 10, 11);
    scene.spool.fork(20, 10, 12);
    scene.sample(11, &[30, 50]);
    scene.sample(12, &[31, 51]);
    let recording = scene.spool.finalize();
    assert_eq!([30, 31, 50, 51].map(|ms| leaf(&recording, ms)), ["first", "first", "second", "second"]);
}

#[test]
fn a_dump_without_times_has_the_last_names_and_says_so() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::with(10, false, 0, 1);
    dump.load(1 << 62, CODE, 16, "first").load(2 << 62, CODE, 16, "second");
    scene.spool.snapshot(&snapshot(5, 10, "jit", vec![anonymous()]));
    scene.map(6, 10, &dump);
    scene.sample(10, &[10]);
    let recording = scene.spool.finalize();
    assert_eq!(leaf(&recording, 10), "second");
    let warnings = recording.meta["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].as_str().unwrap().contains("jit-10.dump' has times of another clock"),
        "{warnings:?}"
    );
}

#[test]
fn code_has_its_source_lines() {
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    let lines = |last| [(CODE, 3, &b"/srv/app.js"[..]), (CODE + 8, last, b"\xff")];
    dump.lines(at(1), CODE, &lines(4)).load(at(1), CODE, 16, "first");
    dump.load(at(1), CODE + 0x100, 16, "caller");
    // Compiled again: one place in its code is another line now.
    dump.lines(at(20), CODE, &lines(5)).load(at(20), CODE, 16, "first");
    scene.spool.user_stack(STACK + 1, &[CODE + 4]);
    scene.spool.snapshot(&snapshot(5, 10, "jit", vec![anonymous()]));
    scene.map(6, 10, &dump);
    let source_at = |recording: &Recording, ms: u64| {
        let frame = recording.stacks[&recording.at(at(ms)).stack_id].frames[0];
        let frame = &recording.frames[frame as usize];
        (frame.file.clone(), frame.line)
    };
    let app = |line| (Some("/srv/app.js".to_string()), Some(line));
    scene.sample(10, &[10]);
    scene.spool.sample(11, 10, 10, STACK + 1);
    let before = Recording::read(&scene.spool.output(), scene.spool.try_finalize(&NoFiles).unwrap());
    assert_eq!([10, 11].map(|ms| source_at(&before, ms)), [app(4), app(3)]);
    fs::remove_dir_all(scene.spool.output()).unwrap();
    scene.sample(10, &[30]);
    scene.spool.sample(31, 10, 10, STACK + 1);
    let recording = scene.spool.finalize();
    let sources = [10, 11, 30, 31].map(|ms| source_at(&recording, ms));
    assert_eq!(sources, [(None, None), app(3), (None, None), app(3)]);
}

#[test]
fn a_mapped_dump_is_no_code() {
    let mut scene = Scene::new();
    let marker = marker(scene.dir.path(), 10, &DumpBuilder::new(10));
    scene.spool.user_stack(STACK + 1, &[marker.start + 0x10]);
    scene.spool.snapshot(&snapshot(5, 10, "jit", vec![marker]));
    scene.spool.sample(10, 10, 10, STACK + 1);
    scene.spool.sample(11, 10, 10, NO_USER);
    let recording = scene.spool.finalize();
    assert!(leaf(&recording, 10).ends_with("/jit-10.dump+0x7f000000a010"));
    assert_eq!(recording.modules[0].kind, "anon");
}

/// The last load that covers the address, or else the first one to come.
fn expected(loads: &[(u64, u64, u64)], address: u64, ms: u64) -> Option<usize> {
    let covers = |load: &&(u64, u64, u64)| (load.1..load.1 + load.2).contains(&address);
    let past = loads.iter().rev().filter(|load| load.0 <= ms).find(covers);
    let found = past.or_else(|| loads.iter().find(covers));
    found.map(|found| loads.iter().position(|load| std::ptr::eq(load, found)).unwrap())
}

#[test]
fn every_sample_has_the_name_of_its_moment() {
    const TIMES_MS: u64 = 3000;
    let mut random = Random(11);
    let mut scene = Scene::new();
    let mut dump = DumpBuilder::new(10);
    let mut loads: Vec<(u64, u64, u64)> = (0..1000)
        .map(|_| (random.below(TIMES_MS), CODE + random.below(0x400), 1 + random.below(0x40)))
        .collect();
    loads.sort();
    for (number, &(ms, start, size)) in loads.iter().enumerate() {
        dump.load(at(ms), start, size as usize, &format!("load{number}"));
    }
    scene.spool.snapshot(&snapshot(0, 10, "jit", vec![anonymous()]));
    scene.map(0, 10, &dump);
    let addresses: Vec<u64> = (0..40).map(|_| CODE + random.below(0x480)).collect();
    for (stack, &address) in addresses.iter().enumerate() {
        scene.spool.user_stack(STACK + 1 + stack as u64, &[address, address + 1]);
    }
    let mut asked = Vec::new();
    for ms in 1..TIMES_MS {
        let stack = random.below(addresses.len() as u64);
        scene.spool.sample(ms, 10, 10, STACK + 1 + stack);
        asked.push((ms, addresses[stack as usize]));
        if ms % 250 == 0 {
            scene.spool.round(ms);
        }
    }
    let recording = scene.spool.finalize();
    for (ms, address) in asked {
        let names = recording.names(recording.at(at(ms)));
        let name = match expected(&loads, address, ms) {
            Some(number) => [(); 2].map(|()| format!("load{number}")),
            None => [address, address + 1].map(|address| format!("//anon+{address:#x}")),
        };
        assert_eq!(names, name, "{address:#x} at {ms}");
    }
}
