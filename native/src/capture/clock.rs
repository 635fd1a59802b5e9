//! The clocks of a recording.

use crate::spool::Clock;

pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The three clocks at one moment: the reading with the least time between two looks at the first.
pub fn read_clocks() -> Clock {
    let attempts = (0..5).map(|_| {
        let before = monotonic_ns();
        let (realtime_ns, boottime_ns) = (clock_ns(libc::CLOCK_REALTIME), clock_ns(libc::CLOCK_BOOTTIME));
        let after = monotonic_ns();
        (after - before, Clock { monotonic_ns: before + (after - before) / 2, realtime_ns, boottime_ns })
    });
    attempts.min_by_key(|(uncertainty, _)| *uncertainty).expect("there are five").1
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid, and these clocks exist on every kernel that has BPF.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
