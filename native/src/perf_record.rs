//! Parses the perf side-band records that follow address spaces: mmap2, comm, fork, exit, ksymbol.
//!
//! The side-band events are opened with `sample_id_all` and
//! `PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU`, so each record ends with
//! `{u32 pid, u32 tid, u64 time, u32 cpu, u32 res}`.  Layouts: perf_event_open(2).

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::wire::{Inode, MappedFile, u16_at, u32_at, u64_at};

const HEADER_LEN: usize = 8;
const SAMPLE_ID_LEN: usize = 24;

const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const THROTTLE: u32 = 5;
const FORK: u32 = 7;
const MMAP2: u32 = 10;
const KSYMBOL: u32 = 17;

const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;
const KSYMBOL_UNREGISTER: u16 = 1;
const PROT_EXEC: u32 = 4;
/// Where the build-id lies in the payload of a mmap2 record: `{u8 n; u8 pad[3]; u8 build_id[20]}`.
const MMAP2_BUILD_ID: usize = 32;

/// One side-band record and when it was written (CLOCK_MONOTONIC).
#[derive(Debug, PartialEq)]
pub struct SideRecord<'a> {
    pub ts_ns: u64,
    pub body: SideBody<'a>,
}

/// Text is raw bytes, as the kernel wrote it.
#[derive(Debug, PartialEq)]
pub enum SideBody<'a> {
    /// A new executable mapping.
    Mmap {
        pid: u32,
        start: u64,
        end: u64,
        file_offset: u64,
        file: MappedFile,
        raw_path: &'a [u8],
    },
    Comm {
        pid: u32,
        tid: u32,
        comm: &'a [u8],
        exec: bool,
    },
    Fork {
        pid: u32,
        parent_pid: u32,
        tid: u32,
    },
    Exit {
        pid: u32,
        tid: u32,
    },
    Lost {
        records: u64,
    },
    Throttle,
    /// A BPF program or trampoline came (or, `gone`, went).
    KernelSymbol {
        start: u64,
        len: u32,
        name: &'a [u8],
        gone: bool,
    },
    Other,
}

/// Parses one whole record, None when it is malformed.
pub fn parse(record: &[u8]) -> Option<SideRecord<'_>> {
    if record.len() < HEADER_LEN + SAMPLE_ID_LEN {
        return None;
    }
    let (kind, misc) = (u32_at(record, 0), u16_at(record, 4));
    let id = &record[record.len() - SAMPLE_ID_LEN..];
    let payload = &record[HEADER_LEN..record.len() - SAMPLE_ID_LEN];
    let body = match kind {
        MMAP2 => mmap2(payload, misc)?,
        COMM if payload.len() > 8 => SideBody::Comm {
            pid: u32_at(payload, 0),
            tid: u32_at(payload, 4),
            comm: c_string(&payload[8..]),
            exec: misc & MISC_COMM_EXEC != 0,
        },
        FORK if payload.len() >= 16 => SideBody::Fork {
            pid: u32_at(payload, 0),
            parent_pid: u32_at(payload, 4),
            tid: u32_at(payload, 8),
        },
        EXIT if payload.len() >= 16 => SideBody::Exit { pid: u32_at(payload, 0), tid: u32_at(payload, 8) },
        LOST if payload.len() >= 16 => SideBody::Lost { records: u64_at(payload, 8) },
        KSYMBOL if payload.len() > 16 => SideBody::KernelSymbol {
            start: u64_at(payload, 0),
            len: u32_at(payload, 8),
            name: c_string(&payload[16..]),
            gone: u16_at(payload, 14) & KSYMBOL_UNREGISTER != 0,
        },
        THROTTLE => SideBody::Throttle,
        COMM | FORK | EXIT | LOST | KSYMBOL => return None,
        _ => SideBody::Other,
    };
    Some(SideRecord { ts_ns: u64_at(id, 8), body })
}

/// A hash of the build-id and the path in a record of a new executable mapping, None for all others: known
/// without the record being parsed.
pub fn file_identity(record: &[u8]) -> Option<u64> {
    let file = record.get(HEADER_LEN + MMAP2_BUILD_ID..record.len().checked_sub(SAMPLE_ID_LEN)?)?;
    let (build_id, rest) = file.split_at_checked(24)?;
    let is_code = rest.len() > 8 && u32_at(rest, 0) & PROT_EXEC != 0;
    let wanted = u32_at(record, 0) == MMAP2 && u16_at(record, 4) & MISC_MMAP_BUILD_ID != 0 && is_code;
    wanted.then(|| xxh3_64_with_seed(&rest[8..], xxh3_64(build_id)))
}

/// `{u32 pid, tid; u64 addr, len, pgoff; union {u32 maj, min; u64 ino, gen} | {u8 n; u8 pad[3];
/// u8 build_id[20]}; u32 prot, flags; char filename[]}`
fn mmap2(p: &[u8], misc: u16) -> Option<SideBody<'_>> {
    if p.len() <= 64 {
        return None;
    }
    if u32_at(p, 56) & PROT_EXEC == 0 {
        return Some(SideBody::Other);
    }
    let raw_path = c_string(&p[64..]);
    let mut file = MappedFile {
        path: crate::symbols::decode(without_deleted(raw_path)).into_owned(),
        build_id: None,
        inode: None,
    };
    if misc & MISC_MMAP_BUILD_ID != 0 {
        let len = usize::from(p[32]).min(20);
        file.build_id = Some(p[36..36 + len].to_vec());
    } else if u64_at(p, 40) != 0 {
        file.inode = Some(Inode { major: u32_at(p, 32), minor: u32_at(p, 36), inode: u64_at(p, 40) });
    }
    let start = u64_at(p, 8);
    Some(SideBody::Mmap {
        pid: u32_at(p, 0),
        start,
        end: start.checked_add(u64_at(p, 16))?,
        file_offset: u64_at(p, 24),
        file,
        raw_path,
    })
}

/// The path without the mark that the kernel appends for unlinked files.
pub fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn c_string(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len())]
}
