//! perf_event_open(2): the events that sample, and the side-band that follows address spaces.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use perf_event_open_sys::bindings::{self, perf_event_attr};
use perf_event_open_sys::{ioctls, perf_event_open};

use super::options::{SourceOptions, Target, TargetKind};
use crate::error::{Error, Kind, Result, describe};

/// Where an event counts.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Cpu(u16),
    Task(i32),
}

/// An open perf event; closing it detaches its program.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: the descriptor is a perf event that this value owns; ENABLE takes a plain number.
        check(unsafe { ioctls::ENABLE(self.fd(), 0) }).map(drop)
    }

    pub fn disable(&self) -> io::Result<()> {
        // SAFETY: as in `enable`.
        check(unsafe { ioctls::DISABLE(self.fd(), 0) }).map(drop)
    }

    pub fn set_program(&self, program: RawFd) -> io::Result<()> {
        // SAFETY: both descriptors are open; the kernel checks the program's type.
        check(unsafe { ioctls::SET_BPF(self.fd(), program as u32) }).map(drop)
    }

    /// Writes this event's throttle records into the ring of `other`, an event on the same CPU.
    pub fn redirect_to(&self, other: &Event) -> io::Result<()> {
        // SAFETY: both descriptors are perf events that are owned by live values.
        check(unsafe { ioctls::SET_OUTPUT(self.fd(), other.fd()) }).map(drop)
    }
}

/// Opens `source` at `place`, disabled.
pub fn open_source(
    source: &SourceOptions,
    place: Place,
    target: &Target,
    delayed: bool,
) -> io::Result<Event> {
    let mut attr = new_attr(source.kind, source.config);
    match (source.frequency_hz, source.period) {
        (Some(hz), _) => {
            attr.set_freq(1);
            attr.sample_freq = hz;
        }
        (None, period) => attr.sample_period = period.unwrap_or(1),
    }
    attr.set_exclude_user(u64::from(!source.user));
    attr.set_exclude_kernel(u64::from(!source.kernel));
    attr.set_exclude_idle(u64::from(source.exclude_idle));
    attr.set_exclude_hv(u64::from(source.exclude_hypervisor));
    attr.set_exclude_host(u64::from(source.exclude_host));
    attr.set_exclude_guest(u64::from(source.exclude_guest));
    attr.set_precise_ip(u64::from(source.precise));
    let per_task = matches!(place, Place::Task(_));
    attr.set_inherit(u64::from(per_task && target.kind != TargetKind::Tids));
    // Without the children, new threads of the process still count.
    attr.set_inherit_thread(u64::from(per_task && target.kind != TargetKind::Tids && !target.inherit));
    attr.set_enable_on_exec(u64::from(target.kind == TargetKind::Command && !delayed));
    open(&mut attr, place)
}

/// Does this machine have the event?  Asked of the calling thread, which needs no privilege.
pub fn event_opens(kind: u32, config: u64) -> bool {
    let mut attr = new_attr(kind, config);
    attr.set_exclude_kernel(1);
    open(&mut attr, Place::Task(0)).is_ok()
}

/// Opens the side-band of `cpu`: exec mappings, names, forks and exits of every process there.  Its
/// reader is woken each time that another `wake_at_bytes` were written.
pub fn open_sideband(cpu: u16, wake_at_bytes: usize) -> io::Result<Event> {
    let dummy = u64::from(bindings::PERF_COUNT_SW_DUMMY);
    let mut attr = new_attr(bindings::PERF_TYPE_SOFTWARE, dummy);
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_build_id(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_ksymbol(1);
    attr.set_watermark(1);
    attr.wakeup_watermark = wake_at_bytes as u32;
    open(&mut attr, Place::Cpu(cpu))
}

/// Numbers from a list such as `0-3,8`, as /sys/devices/system/cpu/online has it.
pub fn parse_cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?);
    }
    Some(cpus)
}

pub fn online_cpus() -> Result<Vec<u16>> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    parse_cpu_list(&text).ok_or_else(|| Error::new(Kind::Capture, format!("{path}: cannot parse {text:?}")))
}

/// Says why perf_event_open failed, in terms of what can be done about it.
pub fn explain(event: &str, place: Place, error: &io::Error) -> Error {
    match (error.raw_os_error(), place) {
        (Some(libc::ESRCH), Place::Task(tid)) => {
            Error::new(Kind::Target, format!("no process or thread {tid}"))
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
            Error::new(
                Kind::Permission,
                format!("may not open event '{event}' (perf_event_paranoid is {})", paranoid.trim()),
            )
            .hint("run it as root, or give CAP_PERFMON and CAP_BPF; `sberf doctor` shows what is missing")
        }
        (Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL), _) => {
            Error::new(Kind::Unsupported, format!("this machine has no event '{event}': {}", describe(error)))
                .hint("cpu-clock and task-clock are there on every machine")
        }
        (Some(libc::EMFILE), _) => {
            Error::new(Kind::Capture, "too many open files: one is needed for each thread")
                .hint("raise `ulimit -n`, or record with -a")
        }
        _ => Error::io(format!("cannot open event '{event}'"), error),
    }
}

fn new_attr(kind: u32, config: u64) -> perf_event_attr {
    let mut attr = perf_event_attr {
        type_: kind,
        size: size_of::<perf_event_attr>() as u32,
        config,
        sample_type: u64::from(
            bindings::PERF_SAMPLE_TID | bindings::PERF_SAMPLE_TIME | bindings::PERF_SAMPLE_CPU,
        ),
        clockid: libc::CLOCK_MONOTONIC,
        ..Default::default()
    };
    attr.set_disabled(1);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr
}

fn open(attr: &mut perf_event_attr, place: Place) -> io::Result<Event> {
    let (pid, cpu) = match place {
        Place::Cpu(cpu) => (-1, i32::from(cpu)),
        Place::Task(tid) => (tid, -1),
    };
    let flags = u64::from(bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attr` is a whole, initialised structure whose size field is right.
    let fd = check(unsafe { perf_event_open(attr, pid, cpu, -1, flags as _) })?;
    // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
    Ok(Event(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpu_list("0,x"), None);
    }
}
