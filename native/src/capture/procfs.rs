//! What /proc says of a process: names, owner, threads and executable mappings.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use crate::arguments;
use crate::perf_record::without_deleted;
use crate::symbols::decode;
use crate::wire::{Inode, MappedFile, Mapping, ProcessSnapshot, ThreadSnapshot};

const PF_KTHREAD: u64 = 0x0020_0000;

/// Converts the start times in /proc, which count from boot, to CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub struct BootClock {
    /// CLOCK_BOOTTIME - CLOCK_MONOTONIC: the time spent suspended.
    pub suspended_ns: i64,
    pub tick_ns: i64,
}

impl BootClock {
    pub fn new(suspended_ns: i64) -> Self {
        // SAFETY: sysconf only reads.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self { suspended_ns, tick_ns: 1_000_000_000 / ticks.max(1) }
    }

    fn start_ns(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(self.tick_ns) - self.suspended_ns
    }
}

/// One executable line of /proc/PID/maps, with its path as raw bytes.
pub struct RawMapping<'a> {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    pub inode: Option<Inode>,
    pub raw_path: &'a [u8],
}

/// Every process ID on this system.
pub fn all_pids() -> io::Result<Vec<i32>> {
    numeric_entries("/proc")
}

/// The thread IDs of a process.
pub fn tids(pid: i32) -> io::Result<Vec<i32>> {
    numeric_entries(&format!("/proc/{pid}/task"))
}

/// Names, owner and threads, without mappings and container.  Fails when the process has gone.
pub fn identity(pid: i32, ts_ns: u64, clock: BootClock) -> io::Result<ProcessSnapshot> {
    let fields = Stat::read(&format!("/proc/{pid}/stat"))?;
    let status = fs::read(format!("/proc/{pid}/status"))?;
    let comm = comm(&format!("/proc/{pid}/comm"))?;
    let threads = if status_field(&status, b"Threads:").as_deref() == Some("1") {
        vec![ThreadSnapshot {
            tid: pid,
            comm: comm.clone(),
            start_ns: Some(clock.start_ns(fields.start_ticks)),
        }]
    } else {
        threads(pid)
    };
    Ok(ProcessSnapshot {
        ts_ns,
        pid,
        ns_pid: status_field(&status, b"NSpid:")
            .and_then(|pids| pids.split_whitespace().last()?.parse().ok()),
        parent_pid: fields.parent_pid,
        uid: status_field(&status, b"Uid:").and_then(|uids| uids.split_whitespace().next()?.parse().ok()),
        comm,
        exe: fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| decode(without_deleted(path.as_os_str().as_bytes())).into_owned()),
        cmdline: fs::read(format!("/proc/{pid}/cmdline")).ok().and_then(|bytes| arguments::quote(&bytes)),
        container: None,
        start_ns: Some(clock.start_ns(fields.start_ticks)),
        kernel_thread: fields.flags & PF_KTHREAD != 0,
        threads,
        maps: None,
    })
}

/// The executable mappings; `name_file` decides how each file is identified.
pub fn mappings(
    pid: i32,
    mut name_file: impl FnMut(&RawMapping<'_>) -> MappedFile,
) -> io::Result<Vec<Mapping>> {
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    let lines = maps.split(|&b| b == b'\n').filter_map(parse_maps_line);
    Ok(lines
        .map(|raw| Mapping {
            start: raw.start,
            end: raw.end,
            file_offset: raw.file_offset,
            file: name_file(&raw),
        })
        .collect())
}

/// The path of the mapping at `start..end`.
pub fn path_of_mapping(pid: i32, start: u64, end: u64) -> Option<Vec<u8>> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut lines = maps.split(|&b| b == b'\n').filter_map(parse_maps_line);
    let raw = lines.find(|raw| (raw.start, raw.end) == (start, end))?;
    Some(raw.raw_path.to_vec())
}

/// Processes other than this one of which a thread runs now, or waits for a CPU.
pub fn running_pids() -> Vec<i32> {
    let own = std::process::id() as i32;
    let is_running = |path: String| Stat::read(&path).is_ok_and(|stat| stat.is_running);
    let runs = |pid: &i32| {
        let stat = Stat::read(&format!("/proc/{pid}/stat")).ok().filter(|stat| stat.flags & PF_KTHREAD == 0);
        stat.is_some_and(|leader| {
            leader.is_running
                || leader.threads > 1
                    && tids(*pid).is_ok_and(|tids| {
                        tids.into_iter().any(|tid| is_running(format!("/proc/{pid}/task/{tid}/stat")))
                    })
        })
    };
    all_pids().unwrap_or_default().into_iter().filter(|pid| *pid != own).filter(runs).collect()
}

/// `7f9c1c000000-7f9c1c1b5000 r-xp 00026000 fe:00 1835   /usr/lib/x86_64-linux-gnu/libc.so.6`
fn parse_maps_line(line: &[u8]) -> Option<RawMapping<'_>> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = next()?.split_once('-')?;
    if next()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let file_offset = u64::from_str_radix(next()?, 16).ok()?;
    let (major, minor) = next()?.split_once(':')?;
    let inode: u64 = next()?.parse().ok()?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let raw_path = fields.next().unwrap_or_default();
    let padding = raw_path.iter().take_while(|&&b| b == b' ').count();
    Some(RawMapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        file_offset,
        inode: (inode != 0).then_some(Inode { major: device.0, minor: device.1, inode }),
        raw_path: &raw_path[padding..],
    })
}

struct Stat {
    is_running: bool,
    parent_pid: i32,
    flags: u64,
    threads: u32,
    start_ticks: i64,
}

impl Stat {
    fn read(path: &str) -> io::Result<Self> {
        Self::parse(&fs::read(path)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `812 (my (odd) name) S 1 812 812 0 -1 4194560 ...`: the name may hold anything, so the fields
    /// are counted from the last parenthesis.
    fn parse(stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|&b| b == b')')? + 2;
        let fields: Vec<&str> = std::str::from_utf8(stat.get(after_name..)?).ok()?.split(' ').collect();
        Some(Self {
            is_running: *fields.first()? == "R",
            parent_pid: fields.get(1)?.parse().ok()?,
            flags: fields.get(6)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

fn threads(pid: i32) -> Vec<ThreadSnapshot> {
    let name = |tid| comm(&format!("/proc/{pid}/task/{tid}/comm")).ok();
    let tids = tids(pid).unwrap_or_default();
    tids.into_iter()
        .filter_map(|tid| Some(ThreadSnapshot { tid, comm: name(tid)?, start_ns: None }))
        .collect()
}

fn comm(path: &str) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(decode(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned())
}

fn status_field(status: &[u8], name: &[u8]) -> Option<String> {
    let line = status.split(|&b| b == b'\n').find(|line| line.starts_with(name))?;
    Some(String::from_utf8_lossy(&line[name.len()..]).trim().to_string())
}

fn numeric_entries(directory: &str) -> io::Result<Vec<i32>> {
    let names = fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lines() {
        let line = b"7f9c1c000000-7f9c1c1b5000 r-xp 00026000 fe:00 1835                  /a b (deleted)";
        let raw = parse_maps_line(line).unwrap();
        assert_eq!((raw.start, raw.end, raw.file_offset), (0x7f9c_1c00_0000, 0x7f9c_1c1b_5000, 0x26000));
        assert_eq!(raw.inode, Some(Inode { major: 0xfe, minor: 0, inode: 1835 }));
        assert_eq!(without_deleted(raw.raw_path), b"/a b");
        assert!(parse_maps_line(b"7f9c1c000000-7f9c1c1b5000 rw-p 00026000 fe:00 1835 /a").is_none());
        assert_eq!(parse_maps_line(b"1000-2000 r-xp 00000000 00:00 0 ").unwrap().raw_path, b"");
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = b"812 (a) b) c) S 7 812 812 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let fields = Stat::parse(stat).unwrap();
        assert_eq!((fields.is_running, fields.parent_pid, fields.start_ticks), (false, 7, 4242));
        assert_eq!(fields.threads, 1);
        assert_ne!(fields.flags & PF_KTHREAD, 0);
    }

    #[test]
    fn this_process_has_code() {
        let pid = std::process::id() as i32;
        let snapshot = identity(pid, 1, BootClock::new(0)).unwrap();
        assert!(snapshot.threads.iter().any(|thread| thread.tid == pid));
        let name = |raw: &RawMapping<'_>| MappedFile {
            path: decode(raw.raw_path).into_owned(),
            build_id: None,
            inode: raw.inode,
        };
        let maps = mappings(pid, name).unwrap();
        let here = this_process_has_code as *const () as u64;
        assert!(maps.iter().any(|map| (map.start..map.end).contains(&here)));
    }
}
