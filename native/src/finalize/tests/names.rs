//! Modules, frames and their names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::builder::{NO_USER, Spool, at, libc_path, loader_path, mapped_function, offset_of, snapshot};
use crate::finalize::FileStore;
use crate::symbols::Kallsyms;
use crate::wire::{MappedFile, Mapping};

const ADDRESS: u64 = 0x5555_0000_1000;
const STACK: u64 = 4096;

/// Hands out files and a directory of perf maps.
#[derive(Default)]
struct Store {
    files: Vec<(MappedFile, PathBuf)>,
    maps: Option<PathBuf>,
    kept_map: Option<PathBuf>,
}

impl FileStore for Store {
    fn open(&self, file: &MappedFile) -> Option<File> {
        let (_, path) = self.files.iter().find(|(known, _)| known == file)?;
        File::open(path).ok()
    }

    fn perf_map_dir(&self, _: i32, _: Option<i64>) -> Option<File> {
        File::open(self.maps.as_ref()?).ok()
    }

    fn perf_map(&self, _: i32, _: Option<i64>) -> Option<File> {
        File::open(self.kept_map.as_ref()?).ok()
    }
}

fn anonymous(start: u64) -> Mapping {
    let file = MappedFile { path: "//anon".to_string(), build_id: None, inode: None };
    Mapping { start, end: start + 0x1_0000, file_offset: 0, file }
}

#[test]
fn a_return_address_belongs_to_the_call_before_it() {
    // The first byte of a function: as a leaf that function, as a return address the one before.
    let libc = libc_path();
    let mut spool = Spool::new();
    let map = mapped_function(&libc, "getpid", ADDRESS);
    spool.user_stack(STACK, &[ADDRESS, ADDRESS, ADDRESS + 1]);
    spool.snapshot(&snapshot(5, 10, "ten", vec![map]));
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize();
    let names = recording.names(recording.at(at(10)));
    assert!(names[0].contains("getpid") && names[2].contains("getpid"), "{names:?}");
    assert!(!names[1].contains("getpid"), "{names:?}");
    let frames = &recording.stacks[&recording.at(at(10)).stack_id].frames;
    let [leaf, back] = [frames[0], frames[1]].map(|frame| &recording.frames[frame as usize]);
    assert_eq!(leaf.address, back.address);
    assert_eq!(leaf.address, offset_of(&libc, "getpid"));
}

#[test]
fn a_stack_has_the_same_id_wherever_it_was_mapped() {
    let ids = [ADDRESS, 0x7fff_1234_5000 + (ADDRESS & 0xfff)].map(|base| {
        let mut spool = Spool::new();
        let map = mapped_function(&libc_path(), "getpid", base);
        spool.user_stack(base, &[base, base + 0x20]);
        spool.snapshot(&snapshot(5, 10, "ten", vec![map]));
        spool.sample(10, 10, 10, base);
        spool.sample(11, 10, 10, NO_USER);
        let recording = spool.finalize();
        (recording.at(at(10)).stack_id, recording.at(at(11)).stack_id)
    });
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0].0, ids[0].1);
}

#[test]
fn a_file_is_one_module_however_it_was_identified() {
    let by_build_id = mapped_function(&libc_path(), "getpid", ADDRESS);
    let mut by_inode = by_build_id.clone();
    by_inode.file.build_id = None;
    by_inode.file.inode = Some(crate::wire::Inode { major: 1, minor: 2, inode: 3 });
    let store = Store { files: vec![(by_inode.file.clone(), libc_path())], ..Store::default() };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    spool.snapshot(&snapshot(5, 10, "ten", vec![by_build_id]));
    spool.snapshot(&snapshot(5, 11, "eleven", vec![by_inode]));
    spool.sample(10, 10, 10, STACK);
    spool.sample(11, 11, 11, STACK);
    let recording = spool.finalize_with(&store);
    assert_eq!(recording.modules.len(), 1);
    assert_eq!(recording.at(at(10)).stack_id, recording.at(at(11)).stack_id);
    assert!(recording.modules[0].build_id.is_some());
    assert!(["symtab", "dynsym"].contains(&recording.modules[0].symbols.as_str()));
}

#[test]
fn a_file_that_is_gone_or_another_has_no_names() {
    let mut changed = mapped_function(&libc_path(), "getpid", ADDRESS);
    changed.file.build_id = Some(vec![7; 20]);
    let mut gone = mapped_function(&loader_path(), "_dl_", ADDRESS + 0x10_0000);
    gone.file.path = "/nowhere/lib.so".to_string();
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS, ADDRESS + 0x10_0010]);
    spool.snapshot(&snapshot(5, 10, "ten", vec![changed.clone(), gone]));
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize();
    let names = recording.names(recording.at(at(10)));
    assert_eq!(names[0], format!("{}+{:#x}", changed.file.path, offset_of(&libc_path(), "getpid")));
    assert!(names[1].starts_with("/nowhere/lib.so+0x"));
    assert_eq!(recording.module(&changed.file.path).symbols, "none: file changed");
    assert_eq!(recording.module("/nowhere/lib.so").symbols, "none: file is gone");
}

#[test]
fn files_of_one_name_without_build_ids_share_no_stacks() {
    let map = |inode: u64| {
        let inode = Some(crate::wire::Inode { major: 1, minor: 2, inode });
        let file = MappedFile { path: "/nowhere/prog".to_string(), build_id: None, inode };
        Mapping { start: ADDRESS, end: ADDRESS + 0x1000, file_offset: 0, file }
    };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    spool.snapshot(&snapshot(5, 10, "prog", vec![map(1)]));
    spool.snapshot(&snapshot(5, 11, "prog", vec![map(2)]));
    spool.sample(10, 10, 10, STACK);
    spool.sample(11, 11, 11, STACK);
    let recording = spool.finalize();
    assert_eq!(recording.modules.len(), 2);
    assert_ne!(recording.at(at(10)).stack_id, recording.at(at(11)).stack_id);
}

#[test]
fn the_kernel_and_the_vdso_have_names() {
    let kallsyms = Kallsyms::read().unwrap();
    let mut spool = Spool::of_this_boot();
    let function = kallsyms.text_start() + 0x1000;
    spool.kernel_stack(STACK, &[function]);
    let vdso = Mapping {
        start: 0x7fff_0000_0000,
        end: 0x7fff_0000_4000,
        file_offset: 0,
        file: MappedFile { path: "[vdso]".to_string(), build_id: None, inode: None },
    };
    let offsets: Vec<u64> = (0..0x2000).step_by(16).map(|offset| vdso.start + offset).collect();
    spool.user_stack(STACK + 1, &offsets);
    spool.snapshot(&snapshot(5, 10, "ten", vec![vdso]));
    spool.sample_on(0, 10, 10, 10, STACK, NO_USER);
    spool.sample(11, 10, 10, STACK + 1);
    let recording = spool.finalize();
    let kernel = recording.module("[kernel]");
    assert_eq!((kernel.kind.as_str(), kernel.build_id.is_some()), ("kernel", true));
    let name = &recording.names(recording.at(at(10)))[0];
    match kallsyms.restricted() {
        true => assert_eq!(kernel.symbols, "none: kptr_restrict hides kernel addresses"),
        false => {
            assert_eq!(kernel.symbols, "kallsyms");
            assert_eq!(*name, kallsyms.lookup(function, 0).unwrap().name);
            assert_eq!(recording.frames[0].address, 0x1000);
        }
    }
    assert!(recording.names(recording.at(at(11))).iter().any(|name| name.contains("clock_gettime")));
    assert_eq!(recording.module("[vdso]").kind, "vdso");
}

#[test]
fn another_boot_has_no_kernel_names() {
    let mut spool = Spool::new();
    spool.kernel_stack(STACK, &[0xffff_ffff_8100_1000]);
    spool.sample_on(0, 10, 10, 10, STACK, NO_USER);
    let recording = spool.finalize();
    assert_eq!(recording.names(recording.at(at(10))), ["[kernel]+0xffffffff81001000"]);
    assert_eq!(recording.module("[kernel]").symbols, "none: rebooted since the recording");
    assert_eq!(recording.module("[kernel]").build_id, None);
}

#[test]
fn bpf_programs_are_named_by_the_time_of_the_sample() {
    let address = 0xffff_ffff_dead_0000;
    let mut spool = Spool::new();
    spool.kernel_stack(STACK, &[address + 8]);
    for ms in [10, 30, 50, 70] {
        spool.sample_on(0, ms, 10, 10, STACK, NO_USER);
    }
    // The first was there before the capture, the second comes and goes.
    spool.kernel_symbol(20, address, 64, "bpf_prog_1_first", true);
    spool.kernel_symbol(40, address, 64, "bpf_prog_2_second", false);
    spool.kernel_symbol(60, address, 64, "bpf_prog_2_second", true);
    let recording = spool.finalize();
    let names: Vec<_> = [10, 30, 50, 70].map(|ms| recording.names(recording.at(at(ms)))[0].clone()).into();
    assert_eq!((names[0].as_str(), names[2].as_str()), ("bpf_prog_1_first", "bpf_prog_2_second"));
    assert!(names[1].starts_with("[kernel]+") && names[3] == names[1], "{names:?}");
    assert_eq!(recording.module("[bpf]").kind, "bpf");
}

/// A directory with the perf map of process `pid`.
fn perf_maps(dir: &Path, maps: &[(i32, &str)]) {
    for (pid, text) in maps {
        let path = dir.join(format!("perf-{pid}.map"));
        fs::write(&path, text).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // The clocks of the test spools are equal, so this is within the capture.
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(at(100))).unwrap();
    }
}

fn jit_snapshot(pid: i32, maps: Vec<Mapping>) -> crate::wire::ProcessSnapshot {
    // SAFETY: getuid cannot fail.
    let uid = Some(unsafe { libc::getuid() });
    crate::wire::ProcessSnapshot { uid, ..snapshot(5, pid, "jit", maps) }
}

#[test]
fn generated_code_is_named_by_its_own_process() {
    let dir = tempfile::tempdir().unwrap();
    let line = |name: &str| format!("{ADDRESS:x} 100 {name}\n");
    perf_maps(dir.path(), &[(10, &line("ten")), (11, &line("eleven")), (21, &line("child"))]);
    let store = Store { maps: Some(dir.path().to_path_buf()), ..Store::default() };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS + 0x10, ADDRESS + 0x100, ADDRESS + 0x101]);
    spool.snapshot(&jit_snapshot(10, vec![anonymous(ADDRESS)]));
    spool.snapshot(&jit_snapshot(11, vec![anonymous(ADDRESS)]));
    spool.snapshot(&jit_snapshot(12, vec![anonymous(ADDRESS)]));
    spool.fork(6, 10, 20); // runs its parent's code
    spool.fork(6, 10, 21); // has a map of its own
    for (ms, pid) in [(10, 10), (11, 11), (12, 12), (20, 20), (21, 21)] {
        spool.sample(ms, pid, pid, STACK);
    }
    let recording = spool.finalize_with(&store);
    let leaf = |ms: u64| recording.names(recording.at(at(ms)))[0].clone();
    assert_eq!([10, 11, 20, 21].map(leaf), ["ten", "eleven", "ten", "child"]);
    let unnamed = format!("//anon+{:#x}", ADDRESS + 0x10);
    assert_eq!(leaf(12), unnamed);
    let names = recording.names(recording.at(at(10)));
    assert_eq!(names[1], "ten"); // returns behind its last byte
    assert_eq!(names[2], format!("//anon+{:#x}", ADDRESS + 0x101));
    let module = recording.module("/tmp/perf-10.map");
    assert_eq!((module.kind.as_str(), module.symbols.as_str()), ("jit", "perf-map"));
    assert_eq!(recording.module("//anon").kind, "anon");
}

#[test]
fn a_perf_map_that_was_deleted_still_names() {
    let (gone, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    perf_maps(kept.path(), &[(10, &format!("{ADDRESS:x} 100 kept\n"))]);
    let kept_map = Some(kept.path().join("perf-10.map"));
    let store = Store { maps: Some(gone.path().to_path_buf()), kept_map, ..Store::default() };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    spool.snapshot(&jit_snapshot(10, vec![anonymous(ADDRESS)]));
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize_with(&store);
    assert_eq!(recording.names(recording.at(at(10))), ["kept"]);
}

#[test]
fn a_perf_map_that_is_too_large_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{ADDRESS:x} 100 first\n") + &"1 1 f\n".repeat(2_000_000);
    perf_maps(dir.path(), &[(10, &text)]);
    let store = Store { maps: Some(dir.path().to_path_buf()), ..Store::default() };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    spool.snapshot(&jit_snapshot(10, vec![anonymous(ADDRESS)]));
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize_with(&store);
    assert_eq!(recording.names(recording.at(at(10))), ["first"]);
    let warning = "'/tmp/perf-10.map' is larger than can be read: its newest names are missing";
    assert_eq!(recording.meta["warnings"], serde_json::json!([warning]));
}

#[test]
fn a_perf_map_of_another_time_or_user_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("{ADDRESS:x} 100 stale\n");
    perf_maps(dir.path(), &[(10, &line), (11, &line)]);
    let store = Store { maps: Some(dir.path().to_path_buf()), ..Store::default() };
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    let mut young = jit_snapshot(10, vec![anonymous(ADDRESS)]);
    young.start_ns = Some(at(60_000) as i64);
    young.ts_ns = at(60_001);
    spool.snapshot(&young);
    let mut foreign = jit_snapshot(11, vec![anonymous(ADDRESS)]);
    foreign.uid = Some(12345);
    spool.snapshot(&foreign);
    spool.sample(60_002, 10, 10, STACK);
    spool.sample(60_003, 11, 11, STACK);
    let recording = spool.finalize_with(&store);
    assert!(recording.names(recording.at(at(60_002)))[0].starts_with("//anon+"));
    // Root's files are trusted, and in the tests' containers we may be root.
    // SAFETY: getuid cannot fail.
    if unsafe { libc::getuid() } != 0 {
        assert!(recording.names(recording.at(at(60_003)))[0].starts_with("//anon+"));
    }
}

#[test]
fn text_of_traced_systems_passes_unchanged() {
    let mut spool = Spool::new();
    let mut map = mapped_function(&libc_path(), "getpid", ADDRESS);
    map.file.path = "/tmp/\x1b[31mred\n\"<b>.so".to_string();
    spool.user_stack(STACK, &[ADDRESS]);
    spool.snapshot(&snapshot(5, 10, "a\x1b[2J\n'<", vec![]));
    spool.mmap(6, 10, &map);
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize();
    assert_eq!(recording.processes[0].comm, "a\x1b[2J\n'<");
    assert_eq!(recording.modules[0].path, map.file.path);
}
