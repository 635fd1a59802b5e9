//! What was lost is counted and said.

use super::builder::{NO_USER, Spool, at, libc_path, mapped_function, snapshot};
use crate::finalize::NoFiles;
use crate::wire::RawSample;

const STACK: u64 = 4096;
const OTHER: u64 = 5000;

#[test]
fn a_stack_whose_body_never_arrived_is_lost() {
    let mut spool = Spool::new();
    spool.sample(10, 10, 10, STACK);
    spool.sample_on(0, 11, 10, 10, OTHER, NO_USER);
    spool.user_stack(STACK + 1, &[0x1000]);
    spool.sample_on(0, 12, 10, 10, OTHER, STACK + 1);
    spool.sample(13, 10, 10, STACK + 1);
    spool.sample(14, 10, 10, 0); // says nothing
    let recording = spool.finalize();
    let ends: Vec<_> = (10..15).map(|ms| recording.end(recording.at(at(ms)))).collect();
    assert_eq!(ends, ["lost", "lost", "lost", "entry", "lost"]);
    assert_eq!(recording.names(recording.at(at(12))), ["[unknown]+0x1000"]);
    assert_eq!(recording.loss("unresolved_stacks"), 4);
}

#[test]
fn a_body_may_come_after_its_sample() {
    let mut spool = Spool::new();
    spool.sample(10, 10, 10, STACK);
    for ms in 1..50 {
        spool.round(100 * ms);
        spool.end_block();
    }
    spool.user_stack(STACK, &[0x1000]);
    let recording = spool.finalize();
    assert_eq!(recording.end(recording.at(at(10))), "entry");
    assert_eq!(recording.loss("unresolved_stacks"), 0);
}

#[test]
fn how_a_stack_ended_is_kept() {
    let mut spool = Spool::new();
    for (end, name) in crate::wire::STACK_ENDS.iter().enumerate() {
        let hash = STACK + end as u64;
        spool.stack(hash, 1, end as u8, &[0x1000]);
        spool.sample(10 + end as u64, 10, 10, hash);
        spool.sample(30 + end as u64, 10, 10, 1 + end as u64);
        let _ = name;
    }
    let recording = spool.finalize();
    for (end, name) in crate::wire::STACK_ENDS.iter().enumerate() {
        assert_eq!(recording.end(recording.at(at(10 + end as u64))), *name);
        let without = recording.at(at(30 + end as u64));
        assert_eq!((recording.end(without), recording.names(without).len()), (*name, 0));
    }
    assert_eq!(recording.loss("unresolved_stacks"), 0);
}

#[test]
fn what_no_code_can_be_is_no_caller() {
    let code = 0x5555_0000_1000;
    let nowhere = 0x6f2e_3366_416f;
    let map = mapped_function(&libc_path(), "getpid", code);
    let mut spool = Spool::new();
    spool.snapshot(&snapshot(5, 10, "ten", vec![map]));
    spool.user_stack(STACK, &[code, nowhere, code + 4, nowhere, 17]);
    spool.user_stack(STACK + 1, &[nowhere]);
    spool.user_stack(STACK + 2, &[nowhere, nowhere, code + 4]);
    (0..3).for_each(|n| spool.sample(10 + n, 10, 10, STACK + n));
    spool.sample(20, 99, 99, STACK); // nothing is known of this process's code
    let recording = spool.finalize();
    let depth = |ms: u64| {
        let sample = recording.at(at(ms));
        (recording.names(sample).len(), recording.end(sample))
    };
    assert_eq!(depth(10), (3, "bad_frame_pointer"));
    assert_eq!(depth(11), (1, "entry"));
    assert_eq!(depth(12), (3, "entry"));
    assert_eq!(depth(20), (5, "entry"));
}

#[test]
fn two_bodies_with_one_hash_are_counted() {
    let mut spool = Spool::new();
    spool.user_stack(STACK, &[0x500, 0x1000]);
    spool.user_stack(STACK, &[0x500, 0x1000]); // sent twice, which costs nothing
    spool.kernel_stack(STACK, &[0x3000]); // not the same kind
    spool.user_stack(STACK, &[0x500, 0x2000]);
    spool.sample(10, 10, 10, STACK);
    let recording = spool.finalize();
    assert_eq!(recording.loss("stack_collisions"), 1);
    assert_eq!(recording.names(recording.at(at(10))), ["[unknown]+0x500", "[unknown]+0x1000"]);
}

#[test]
fn gaps_of_sequence_numbers_check_the_kernels_count() {
    let mut spool = Spool::new();
    for ms in 10..20 {
        spool.sample_on(0, ms, 10, 10, 0, NO_USER);
        spool.sample_on(1, 100 + ms, 10, 10, 0, NO_USER);
        spool.lose(1, 2);
    }
    let footer = spool.footer.as_mut().unwrap();
    footer.dropped_by_cpu = vec![5, 1];
    footer.missed_samples = 3;
    footer.max_sample_rate = Some(50_000);
    footer.warnings = vec!["so it goes".to_string()];
    spool.lost_sideband(50, 7);
    spool.throttle(51);
    spool.throttle(52);
    let recording = spool.finalize();
    assert_eq!(recording.meta["losses"]["dropped_by_cpu"], serde_json::json!([5, 18]));
    assert_eq!(recording.loss("dropped_records"), 23);
    assert_eq!(recording.loss("missed_samples"), 3);
    assert_eq!(recording.loss("lost_sideband"), 7);
    assert_eq!(recording.loss("throttled"), 2);
    assert_eq!(recording.loss("max_sample_rate_before"), 100_000);
    assert_eq!(recording.loss("max_sample_rate_after"), 50_000);
    assert!(recording.warns("so it goes"));
    assert_eq!(recording.meta["recovered"], false);
}

#[test]
fn a_capture_that_was_killed_while_it_was_finished_is_whole() {
    let mut spool = Spool::new();
    spool.snapshot(&snapshot(5, 10, "ten", vec![]));
    spool.sample(10, 10, 10, NO_USER);
    spool.write();
    let meta = crate::finalize::recover(&spool.path(), &spool.output()).unwrap();
    assert_eq!(meta["recovered"], true);
    assert_eq!(meta["rows"]["samples"], 1);
    assert_eq!(meta["warnings"], serde_json::json!([]));
}

#[test]
fn a_killed_capture_is_recovered() {
    let mut spool = Spool::new();
    spool.footer = None;
    spool.snapshot(&snapshot(5, 10, "ten", vec![]));
    for ms in 10..20 {
        spool.sample(ms, 10, 10, NO_USER);
    }
    spool.lose(0, 4);
    spool.sample(30, 10, 10, NO_USER);
    spool.end_block();
    spool.sample(40, 10, 10, NO_USER);
    spool.end_block();
    spool.write();
    let events = std::fs::OpenOptions::new().write(true).open(spool.path().join("events")).unwrap();
    events.set_len(events.metadata().unwrap().len() - 3).unwrap();
    let recording = spool.finalize();
    assert_eq!(recording.samples.len(), 11);
    assert_eq!(recording.meta["recovered"], true);
    assert_eq!(recording.meta["window"]["start_ns"], at(10));
    assert_eq!(recording.meta["window"]["end_ns"], at(30));
    assert_eq!(recording.loss("dropped_records"), 4);
    assert!(recording.warns("did not end by itself") && recording.warns("cut off or damaged"));
}

#[test]
fn a_weight_is_the_samples_own_or_its_events() {
    let mut spool = Spool::new();
    let mut faults = spool.header.sources[0].clone();
    (faults.event, faults.period) = ("page-faults".to_string(), None);
    spool.header.sources.push(faults);
    for (n, (source, weight)) in
        [(0, None), (0, Some(7)), (1, None), (1, Some(9)), (2, None)].into_iter().enumerate()
    {
        let (ts_ns, seq) = (at(10 + n as u64), n as u32);
        let thread = u64::from_ne_bytes([10, 0, 0, 0, 10, 0, 0, 0]);
        let kernel_stack = 0;
        spool.push(&RawSample {
            source,
            cpu: 0,
            seq,
            ts_ns,
            thread,
            kernel_stack,
            user_ip: 0,
            user_callers: NO_USER,
            weight,
        });
    }
    let recording = spool.finalize();
    let samples: Vec<_> = recording.samples.iter().map(|s| (s.event.as_str(), s.weight)).collect();
    // The last one's event is in no list, so it means nothing.
    let expected = [("cpu-clock", 1_000_000), ("cpu-clock", 7), ("page-faults", 1), ("page-faults", 9)];
    assert_eq!(samples, expected);
}

#[test]
fn an_existing_output_is_never_touched() {
    let mut spool = Spool::new();
    spool.sample(10, 10, 10, NO_USER);
    std::fs::create_dir(spool.output()).unwrap();
    let error = spool.try_finalize(&NoFiles).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Usage);
    assert_eq!(std::fs::read_dir(spool.output()).unwrap().count(), 0);
}

#[test]
fn a_spool_of_another_version_is_refused() {
    let mut spool = Spool::new();
    spool.header.version = 99;
    let error = spool.try_finalize(&NoFiles).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Recording);
    let versions = format!("version 99; this sberf reads version {}", crate::spool::VERSION);
    assert!(error.message.contains(&versions), "{}", error.message);
    std::fs::remove_file(spool.path().join("header.json")).unwrap();
    let missing = crate::finalize::finalize(&spool.path(), &spool.output(), &NoFiles).unwrap_err();
    assert!(missing.message.contains("no header.json"), "{}", missing.message);
    assert!(!spool.output().exists());
}
