//! How fast, in how much memory and how compact.  Run with
//! `SBERF_BENCH_SAMPLES=50000000 cargo test --release -- --ignored --nocapture benchmark`.

use std::fs;
use std::time::Instant;

use super::builder::{MS, NO_USER, Random, Spool, at, libc_path, loader_path, mapped_function, snapshot};
use crate::finalize::{NoFiles, finalize};
use crate::wire::{Mapping, RawSample};

const CPUS: u64 = 2;
const PROCESSES: u64 = 200;
/// Distinct user and kernel stacks.
const USER_STACKS: u64 = 20_000;
const KERNEL_STACKS: u64 = 500;
/// Distinct call sites in each of user space and the kernel.
const CALL_SITES: u64 = 6_000;
/// Of one CPU's samples.
const INTERVAL_NS: u64 = 100_000;

/// Few are hot, many are rare.
fn skewed(random: &mut Random, limit: u64) -> u64 {
    let uniform = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
    ((limit as f64).powf(uniform) as u64).min(limit - 1)
}

/// The call sites of a stack, leaf first: the nodes of a tree from a leaf to the root.
fn calls(stack: u64) -> impl Iterator<Item = u64> {
    let parent = |node: &u64| (*node > 0).then_some(node * 2 / 3);
    std::iter::successors(Some(stack + 1), parent).map(|node| node % CALL_SITES)
}

fn cpu_seconds() -> f64 {
    // SAFETY: zero is a valid value of every field, and the structure outlives the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// As a busy system would write it at 10 kHz.
fn fill(spool: &mut Spool, samples: u64) {
    let base = |process: u64| 0x7f00_0000_0000 + (process << 28);
    let maps = |process: u64| {
        let whole = |map: Mapping, at: u64| Mapping { start: at, end: at + (1 << 20), file_offset: 0, ..map };
        vec![
            whole(mapped_function(&libc_path(), "getpid", 0x1000_0000), base(process)),
            whole(mapped_function(&loader_path(), "_dl_", 0x1000_0000), base(process) + (1 << 24)),
        ]
    };
    let (one, mut random) = (maps(0), Random(1));
    for process in 0..PROCESSES {
        let shifted = one.iter().map(|map| {
            let moved = base(process) - base(0);
            Mapping { start: map.start + moved, end: map.end + moved, ..map.clone() }
        });
        spool.snapshot(&snapshot(0, 1000 + process as i32, "worker", shifted.collect()));
    }
    for stack in 0..KERNEL_STACKS {
        let site = |site: u64| 0xffff_ffff_8100_0000 + (site * 0x9e37_79b9) % (10 << 20);
        spool.kernel_stack(1000 + stack, &calls(stack).map(site).collect::<Vec<_>>());
    }
    let mut sent = vec![false; USER_STACKS as usize];
    for n in 0..samples {
        let cpu = (n % CPUS) as u16;
        let stack = skewed(&mut random, USER_STACKS);
        let process = stack % PROCESSES;
        if !std::mem::replace(&mut sent[stack as usize], true) {
            let site = |site: u64| base(process) + ((site % 2) << 24) + (site * 0x9e37_79b9) % 800_000;
            spool.user_stack(10_000 + stack, &calls(stack).map(site).collect::<Vec<_>>());
        }
        let in_kernel = random.below(4) == 0;
        let (user_ip, user_callers) =
            if random.below(50) == 0 { (0, NO_USER) } else { spool.parts_of(10_000 + stack) };
        let pid = 1000 + process;
        let ts_ns = at(10) + n / CPUS * INTERVAL_NS + random.below(5_000);
        let seq = spool.sequence(cpu);
        spool.push(&RawSample {
            source: 0,
            cpu,
            seq,
            ts_ns,
            thread: pid | pid << 32,
            kernel_stack: if in_kernel { 1000 + (7 * stack + random.below(4)) % KERNEL_STACKS } else { 0 },
            user_ip,
            user_callers,
            weight: None,
        });
        if n % 5_000 == 0 {
            spool.round((ts_ns - at(0)) / MS);
        }
    }
}

fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A build of many short processes: each is forked, runs a program, maps its libraries, is sampled
/// a few times and exits.
fn fill_with_processes(spool: &mut Spool, processes: u64) {
    let maps: Vec<Mapping> =
        (0..12).map(|n| mapped_function(&libc_path(), "getpid", 0x7f00_0000_0000 + (n << 24))).collect();
    spool.snapshot(&snapshot(0, 1, "make", Vec::new()));
    spool.user_stack(10_000, &[maps[0].start + 0x10, maps[5].start + 0x10]);
    for n in 0..processes {
        let pid = 100 + (n % 30_000) as u32;
        spool.fork(n, 1, pid);
        spool.exec(n, pid, "cc1");
        maps.iter().for_each(|map| spool.mmap(n, pid, map));
        (0..5).for_each(|_| spool.sample(n, pid, pid, 10_000));
        spool.exit(n, pid, pid);
        spool.round(n);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Finalises and says what it cost.
fn measure(spool: &mut Spool) -> serde_json::Value {
    spool.write();
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak counts from here
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    let meta = finalize(&spool.path(), &spool.output(), &NoFiles).unwrap();
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    eprintln!("{}", meta["rows"]);
    eprintln!("{seconds:.2} s, {cpu:.2} s of CPU time, {} MiB at most", peak_memory_bytes() >> 20);
    assert_eq!(meta["losses"]["unresolved_stacks"], 0);
    meta
}

#[test]
#[ignore = "measures"]
fn benchmark_processes() {
    let processes = setting("SBERF_BENCH_PROCESSES", 100_000);
    let mut spool = Spool::of_this_boot();
    fill_with_processes(&mut spool, processes);
    let meta = measure(&mut spool);
    assert_eq!(meta["rows"]["samples"], 5 * processes);
    assert_eq!(meta["rows"]["processes"], 2 * processes + 1);
}

#[test]
#[ignore = "measures"]
fn benchmark_samples() {
    let samples = setting("SBERF_BENCH_SAMPLES", 1_000_000);
    let mut spool = Spool::of_this_boot();
    fill(&mut spool, samples);
    let meta = measure(&mut spool);
    assert_eq!(meta["rows"]["samples"], samples);
    let size = |path: std::path::PathBuf| fs::metadata(path).unwrap().len();
    let table = |name: &str| size(spool.output().join(format!("tables/{name}.parquet")));
    let all: u64 = ["samples", "stacks", "frames"].into_iter().map(table).sum();
    let per_sample = |bytes: u64| bytes as f64 / samples as f64;
    eprintln!(
        "bytes a sample: spool {:.2}, samples {:.2}, with stacks and frames {:.2}",
        per_sample(size(spool.path().join("events"))),
        per_sample(table("samples")),
        per_sample(all)
    );
    if let Some(keep) = std::env::var_os("SBERF_BENCH_KEEP") {
        fs::rename(spool.output(), keep).unwrap();
    }
}
