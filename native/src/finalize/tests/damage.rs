//! Spools that no honest capture wrote.

use std::fs;

use super::builder::{NO_USER, Random, Spool, at, snapshot};
use crate::error::Kind;
use crate::finalize::{NoFiles, finalize};
use crate::wire::RawSample;

/// Records that contradict each other in every way, with plain and absurd numbers.
fn push_nonsense(spool: &mut Spool, random: &mut Random) {
    let pid = random.odd() as u32;
    let other = random.odd() as u32;
    let ms = match random.below(20) {
        0 => u64::MAX / 2_000_000,
        _ => random.below(3000),
    };
    match random.below(12) {
        0 => spool.fork(ms, pid, other),
        1 => spool.thread(ms, pid, other),
        2 => spool.exit(ms, pid, other),
        3 => spool.exec(ms, pid, "exec"),
        4 => spool.comm(ms, pid, other, "comm"),
        5 => {
            let mut process = snapshot(ms, pid as i32, "snap", Vec::new());
            process.parent_pid = other as i32;
            process.start_ns = Some(random.odd() as i64);
            process.ts_ns = if random.below(9) == 0 { random.odd() } else { process.ts_ns };
            let start = random.odd();
            process.maps = Some(vec![crate::wire::Mapping {
                start,
                end: random.odd(),
                file_offset: random.odd(),
                file: crate::wire::MappedFile { path: "//anon".to_string(), build_id: None, inode: None },
            }]);
            process.threads[0].tid = other as i32;
            process.threads[0].start_ns = Some(random.odd() as i64);
            spool.snapshot(&process);
        }
        6 => spool.kernel_symbol(ms, random.odd(), random.odd() as u32, "bpf_x", random.below(2) == 0),
        7 => {
            let addresses = [random.odd(), random.odd(), random.odd()];
            let len = random.below(4) as usize;
            spool.stack(random.odd(), random.below(3) as u8, random.odd() as u8, &addresses[..len]);
        }
        8 => spool.round(random.below(3000)),
        9 => spool.program(ms, (pid, random.odd() as u32), random.below(4), "cmdline\0"),
        10 => {
            let names = [None, Some("a"), Some("b")];
            let mut name = || names[random.below(3) as usize];
            let (id, called) = (name(), name());
            spool.container((random.below(2) == 0).then(|| random.below(4)), id, called);
        }
        _ => {
            let sample = RawSample {
                source: random.below(3) as u8,
                cpu: random.below(3) as u16,
                seq: random.odd() as u32,
                ts_ns: if random.below(30) == 0 { random.odd() } else { at(ms) },
                thread: random.odd() | random.odd() << 32,
                kernel_stack: random.odd(),
                user_ip: random.odd(),
                user_callers: random.odd(),
                weight: (random.below(3) == 0).then(|| random.odd()),
            };
            spool.push(&sample);
        }
    }
    if random.below(10) == 0 {
        spool.end_block();
    }
}

#[test]
fn contradictory_records_make_a_consistent_recording() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut spool = Spool::new();
        spool.header.targets = (seed % 2 == 0).then(|| vec![1, 2]);
        for _ in 0..2000 {
            push_nonsense(&mut spool, &mut random);
        }
        // Reading it back checks that rows refer to rows that exist.
        spool.finalize();
    }
}

#[test]
fn an_empty_spool_is_a_recording_without_samples() {
    let mut spool = Spool::new();
    assert_eq!(spool.finalize().samples.len(), 0);
    let mut spool = Spool::new();
    spool.header.sources.clear();
    spool.footer = None;
    spool.sample(10, 10, 10, NO_USER); // of no known event
    let recording = spool.finalize();
    assert_eq!(recording.samples.len(), 0);
    assert!(recording.processes.is_empty());
}

#[test]
fn random_bytes_are_counted_and_left_out() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut spool = Spool::new();
        spool.sample(10, 10, 10, NO_USER);
        let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        // Most begin like a record.
        if let Some(first) = bytes.first_mut() {
            *first = [1, 2, 3, 64, 65, 66, 67, 99][random.below(8) as usize];
        }
        spool.raw(&bytes);
        let recording = spool.finalize();
        assert!(recording.samples.iter().any(|sample| sample.ts_ns == at(10) as i64));
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let Some(small) = small_file_system() else {
        eprintln!("skipped: only root can mount a small file system");
        return;
    };
    let mut spool = Spool::new();
    let mut random = Random(1);
    for n in 0..200_000 {
        let hash = 1000 + random.below(100_000);
        spool.sample(n, 10, 10, hash);
        if n % 4 == 0 {
            spool.user_stack(hash, &[random.next() >> 17, random.next() >> 17]);
        }
    }
    spool.write();
    let output = small.join("out");
    let error = finalize(&spool.path(), &output, &NoFiles).unwrap_err();
    assert_eq!(error.kind, Kind::Capture);
    assert!(error.message.contains("No space left on device"), "{}", error.message);
    assert!(error.hint.unwrap().contains("sberf recover"));
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    let mounted = std::ffi::CString::new(small.to_str().unwrap()).unwrap();
    // A process that another test is starting may hold a file in it for a moment: hence detached.
    // SAFETY: unmounts what this thread has mounted.
    unsafe { libc::umount2(mounted.as_ptr(), libc::MNT_DETACH) };
    fs::remove_dir(&small).unwrap();
    // The samples are still where they were.
    assert_eq!(spool.finalize().samples.len(), 200_000);
}

/// A file system of 256 KiB that only this thread and those that it starts see.
fn small_file_system() -> Option<std::path::PathBuf> {
    let dir = tempfile::tempdir().unwrap().keep();
    let target = std::ffi::CString::new(dir.to_str().unwrap()).unwrap();
    // SAFETY: this thread leaves the mount namespace of the others, and changes mounts only there.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=256k".as_ptr().cast(),
            ) == 0
    };
    mounted.then_some(dir)
}
