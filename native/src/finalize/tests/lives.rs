//! Processes that come, go, fork and exec; address spaces that overlap.

use super::builder::{NO_USER, Spool, at, libc_path, loader_path, mapped_function, snapshot};

const ADDRESS: u64 = 0x5555_0000_1000;
const STACK: u64 = 4096;

/// A spool with one user stack whose only address is [`ADDRESS`], in whatever is mapped there.
fn spool() -> Spool {
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[ADDRESS]);
    spool
}

fn in_libc() -> crate::wire::Mapping {
    mapped_function(&libc_path(), "getpid", ADDRESS)
}

fn in_loader() -> crate::wire::Mapping {
    mapped_function(&loader_path(), "_dl_", ADDRESS)
}

/// The leaf's name is a function of the C library's, or of the loader's.
fn is_libc(name: &str) -> bool {
    name.contains("getpid")
}

fn is_loader(name: &str) -> bool {
    name.contains("_dl_")
}

#[test]
fn processes_at_the_same_addresses_keep_their_own_names() {
    let mut spool = spool();
    spool.snapshot(&snapshot(5, 10, "ten", vec![in_libc()]));
    spool.snapshot(&snapshot(5, 11, "eleven", vec![in_loader()]));
    for ms in 10..30 {
        spool.sample(ms, 10 + (ms % 2) as u32, 10 + (ms % 2) as u32, STACK);
    }
    let recording = spool.finalize();
    assert_eq!(recording.samples.len(), 20);
    for ms in 10..30 {
        let sample = recording.at(at(ms));
        let name = &recording.names(sample)[0];
        let process = recording.process_of(sample);
        match ms % 2 {
            0 => assert!(is_libc(name) && process.comm == "ten", "{name}"),
            _ => assert!(is_loader(name) && process.comm == "eleven", "{name}"),
        }
    }
}

#[test]
fn an_exec_begins_a_new_row_and_a_new_address_space() {
    let mut spool = spool();
    spool.snapshot(&snapshot(5, 10, "sh", vec![in_libc()]));
    spool.sample(10, 10, 10, STACK);
    spool.exec(20, 10, "prog");
    spool.sample(21, 10, 10, STACK);
    spool.mmap(22, 10, &in_loader());
    spool.sample(23, 10, 10, STACK);
    spool.arguments(24, 10, "prog\0-x\0");
    spool.exit(30, 10, 10);
    let recording = spool.finalize();
    let [sh, prog] = &recording.processes[..] else { panic!("two rows: {recording:?}") };
    assert_eq!((sh.comm.as_str(), sh.end_ns), ("sh", Some(at(20) as i64)));
    assert_eq!(sh.cmdline.as_deref(), Some("sh --flag"));
    assert_eq!((prog.comm.as_str(), prog.start_ns), ("prog", Some(at(20) as i64)));
    assert_eq!((prog.exec_from, prog.end_ns), (Some(0), Some(at(30) as i64)));
    assert_eq!(prog.exe.as_deref(), loader_path().to_str());
    assert_eq!(prog.cmdline.as_deref(), Some("prog -x"));
    assert!(is_libc(&recording.names(recording.at(at(10)))[0]));
    assert!(recording.names(recording.at(at(21)))[0].starts_with("[unknown]+"));
    assert!(is_loader(&recording.names(recording.at(at(23)))[0]));
    assert_eq!(recording.process_of(recording.at(at(23))).comm, "prog");
    // The main thread of each row ends with it.
    let ends: Vec<_> = recording.threads.iter().map(|thread| (thread.process, thread.end_ns)).collect();
    assert_eq!(ends, [(0, Some(at(20) as i64)), (1, Some(at(30) as i64))]);
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut spool = spool();
    spool.snapshot(&snapshot(5, 10, "old", vec![in_libc()]));
    spool.snapshot(&snapshot(5, 1, "init", vec![]));
    spool.sample(10, 10, 10, STACK);
    spool.exit(20, 10, 10);
    spool.fork(30, 1, 10);
    spool.sample(31, 10, 10, STACK);
    spool.exec(40, 10, "new");
    spool.mmap(41, 10, &in_loader());
    spool.sample(42, 10, 10, STACK);
    let recording = spool.finalize();
    assert!(is_libc(&recording.names(recording.at(at(10)))[0]));
    assert!(recording.names(recording.at(at(31)))[0].starts_with("[unknown]+"));
    assert!(is_loader(&recording.names(recording.at(at(42)))[0]));
    let comms: Vec<_> = [10, 31, 42].map(|ms| recording.process_of(recording.at(at(ms))).comm.clone()).into();
    assert_eq!(comms, ["old", "init", "new"]);
    assert_eq!(recording.process_of(recording.at(at(42))).exec_from.map(|row| row as usize), Some(2));
}

#[test]
fn a_reused_pid_whose_exit_was_lost_is_another_process() {
    let mut spool = spool();
    spool.snapshot(&snapshot(5, 10, "old", vec![in_libc()]));
    spool.snapshot(&snapshot(5, 11, "parent", vec![in_loader()]));
    spool.sample(10, 10, 10, STACK);
    spool.fork(30, 11, 10);
    spool.sample(31, 10, 10, STACK);
    let recording = spool.finalize();
    assert!(is_loader(&recording.names(recording.at(at(31)))[0]));
    let old = recording.process_of(recording.at(at(10)));
    assert_eq!((old.comm.as_str(), old.end_ns), ("old", Some(at(30) as i64)));
}

#[test]
fn a_fork_inherits_what_was_mapped_then() {
    let mut spool = spool();
    spool.fork(2, 10, 20); // before the parent's snapshot
    spool.sample(3, 20, 20, STACK);
    spool.snapshot(&snapshot(5, 10, "parent", vec![in_libc()]));
    spool.fork(10, 10, 21); // after it
    spool.mmap(11, 10, &in_loader()); // the parent's own affair
    spool.sample(12, 21, 21, STACK);
    spool.sample(13, 10, 10, STACK);
    let recording = spool.finalize();
    assert!(is_libc(&recording.names(recording.at(at(3)))[0]));
    assert!(is_libc(&recording.names(recording.at(at(12)))[0]));
    assert!(is_loader(&recording.names(recording.at(at(13)))[0]));
    let child = recording.process_of(recording.at(at(3)));
    assert_eq!(recording.processes[child.parent.unwrap() as usize].comm, "parent");
    assert_eq!(child.start_ns, Some(at(2) as i64));
}

#[test]
fn a_snapshot_is_valid_from_the_begin_on_but_for_what_was_mapped_since() {
    let mut spool = spool();
    let other = 0x7777_0000_1000;
    spool.user_stack(STACK + 1, &[other]);
    let later = mapped_function(&loader_path(), "_dl_", other);
    spool.sample(1, 10, 10, STACK);
    spool.sample_on(1, 1, 10, 10, 0, STACK + 1);
    spool.mmap(2, 10, &later);
    spool.sample(3, 10, 10, STACK + 1);
    spool.snapshot(&snapshot(5, 10, "ten", vec![in_libc(), later.clone()]));
    let recording = spool.finalize();
    let early: Vec<_> = recording.samples.iter().filter(|sample| sample.ts_ns == at(1) as i64).collect();
    assert!(is_libc(&recording.names(early[0])[0]));
    assert!(recording.names(early[1])[0].starts_with("[unknown]+"));
    assert!(is_loader(&recording.names(recording.at(at(3)))[0]));
    assert_eq!(recording.processes.len(), 1);
    assert_eq!(recording.processes[0].start_ns, Some(5_000));
}

#[test]
fn the_side_band_counts_more_than_a_snapshot() {
    let mut spool = spool();
    spool.snapshot(&snapshot(1, 1, "init", vec![]));
    // Forked, then run another program before /proc was read: the snapshot tells of the new one.
    spool.fork(10, 1, 10);
    let mut late = snapshot(12, 10, "prog", vec![in_loader()]);
    late.start_ns = Some(at(10) as i64);
    spool.snapshot(&late);
    spool.comm(11, 10, 10, "child");
    spool.sample(14, 10, 10, STACK);
    spool.exec(20, 10, "prog");
    spool.mmap(21, 10, &in_libc());
    spool.sample(25, 10, 10, STACK);
    // One that arrives when its process has gone.
    spool.exit(30, 10, 10);
    spool.snapshot(&snapshot(31, 10, "prog", vec![in_loader()]));
    spool.sample(32, 10, 10, STACK);
    let recording = spool.finalize();
    assert!(recording.names(recording.at(at(14)))[0].starts_with("[unknown]+"));
    assert_eq!(recording.process_of(recording.at(at(14))).comm, "child");
    assert!(is_libc(&recording.names(recording.at(at(25)))[0]));
    // Sampled on its way out: still the same process, which therefore ended later.
    let gone = recording.process_of(recording.at(at(32)));
    assert_eq!((gone.comm.as_str(), gone.end_ns), ("prog", Some(at(32) as i64)));
    assert_eq!(recording.processes.len(), 3);
}

#[test]
fn threads_come_and_go_and_have_names_of_their_own() {
    let mut spool = spool();
    spool.snapshot(&snapshot(5, 10, "main", vec![in_libc()]));
    spool.thread(10, 10, 12);
    spool.comm(11, 10, 12, "worker");
    spool.sample(12, 10, 12, STACK);
    spool.exit(13, 10, 10); // the first thread may go first
    spool.sample(14, 10, 12, STACK);
    spool.exit(20, 10, 12);
    let recording = spool.finalize();
    assert_eq!(recording.processes.len(), 1);
    let process = &recording.processes[0];
    assert_eq!((process.comm.as_str(), process.end_ns), ("main", Some(at(20) as i64)));
    let mut threads: Vec<_> = recording
        .threads
        .iter()
        .map(|thread| (thread.tid, thread.comm.as_str(), thread.start_ns, thread.end_ns))
        .collect();
    threads.sort_unstable();
    let expected = [
        (10, "main", Some(5_000), Some(at(13) as i64)),
        (12, "worker", Some(at(10) as i64), Some(at(20) as i64)),
    ];
    assert_eq!(threads, expected);
    assert!(is_libc(&recording.names(recording.at(at(14)))[0]));
}

#[test]
fn a_process_of_which_nothing_is_known_is_unknown() {
    let mut spool = spool();
    spool.sample(10, 99, 99, STACK);
    spool.sample(11, 0, 0, NO_USER);
    spool.sample(12, 98, 98, STACK);
    spool.comm(13, 98, 98, "late");
    let recording = spool.finalize();
    assert_eq!(recording.process_of(recording.at(at(10))).comm, "[unknown]");
    assert_eq!(recording.process_of(recording.at(at(11))).comm, "swapper");
    assert_eq!(recording.process_of(recording.at(at(12))).comm, "late");
    assert_eq!(recording.end(recording.at(at(11))), "not_asked");
}

#[test]
fn samples_of_several_cpus_are_put_in_order() {
    let mut spool = spool();
    spool.snapshot(&snapshot(1, 10, "ten", vec![in_libc()]));
    // One CPU's ring is read before the other's, and the exec between the samples comes last.
    for round in 0..20 {
        let begin = 10 + round * 100;
        for cpu in [1, 0] {
            for n in 0..50 {
                spool.sample_on(cpu, begin + 2 * n + u64::from(cpu), 10, 10, 0, STACK);
            }
            spool.end_block();
        }
        if round == 10 {
            spool.exec(begin + 50, 10, "prog");
        }
        spool.round(begin + 100);
        spool.end_block();
    }
    let recording = spool.finalize();
    assert_eq!(recording.samples.len(), 2000);
    assert_eq!(recording.loss("late_samples"), 0);
    for sample in &recording.samples {
        let expected = if sample.ts_ns < at(10 + 10 * 100 + 50) as i64 { "ten" } else { "prog" };
        assert_eq!(recording.process_of(sample).comm, expected);
    }
}

#[test]
fn only_what_matters_of_a_targeted_capture_is_written() {
    let mut spool = spool();
    spool.header.targets = Some(vec![10]);
    spool.header.target = serde_json::json!({ "kind": "command" });
    spool.footer.as_mut().unwrap().command =
        Some(crate::spool::Command { argv: vec!["make".to_string()], exit_code: Some(2) });
    spool.snapshot(&snapshot(5, 1, "init", vec![]));
    spool.snapshot(&snapshot(5, 2, "bystander", vec![in_libc()]));
    spool.snapshot(&snapshot(5, 10, "make", vec![in_libc()]));
    spool.thread(6, 10, 13);
    spool.fork(7, 10, 11); // no samples, but the ancestor of one
    spool.fork(8, 11, 12);
    spool.fork(8, 11, 14); // no samples
    spool.sample(9, 12, 12, STACK);
    let recording = spool.finalize();
    let mut pids: Vec<_> = recording.processes.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, [1, 10, 11, 12]);
    let mut tids: Vec<_> = recording.threads.iter().map(|thread| thread.tid).collect();
    tids.sort_unstable();
    assert_eq!(tids, [10, 12, 13]);
    let make = recording.processes.iter().find(|process| process.pid == 10).unwrap();
    assert_eq!(make.exit_code, Some(2));
    let sampled = recording.process_of(recording.at(at(9)));
    assert_eq!(sampled.pid, 12);
    assert_eq!(recording.processes[sampled.parent.unwrap() as usize].pid, 11);
}

#[test]
fn a_target_that_ends_before_anything_is_read_of_it_is_written() {
    let mut spool = spool();
    spool.header.targets = Some(vec![10]);
    spool.exec(6, 10, "quick");
    spool.exit(7, 10, 10);
    spool.fork(8, 1, 10); // the PID again, and no samples
    let recording = spool.finalize();
    let quick: Vec<_> = recording.processes.iter().map(|process| (process.pid, &*process.comm)).collect();
    assert_eq!(quick, [(10, "quick")]);
}
