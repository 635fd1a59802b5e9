//! The records of the spool, as bpf/event.h lays them out, and those that the drain thread adds.
//!
//! Layout of every record: `{u8 type, u8 source, u16 cpu, u32 seq}` and a body, padded to 8 bytes.
//! The drain thread's records hold the body's unpadded length in the place of `seq`.

use serde::{Deserialize, Serialize};

const SAMPLE: u8 = 1;
const SAMPLE_WEIGHTED: u8 = 2;
const STACK: u8 = 3;
const EXEC: u8 = 4;
const WANTED: u8 = 5;
const STACK_COPY: u8 = 6;
const CGROUP: u8 = 7;
const PERF: u8 = 64;
const PROCESS: u8 = 65;
const ROUND: u8 = 66;
const CONTAINER: u8 = 67;

const RECORD_LEN: usize = 8;
pub const SAMPLE_LEN: usize = 48;
pub const SAMPLE_WEIGHTED_LEN: usize = 56;
const STACK_LEN: usize = 24;
const EXEC_LEN: usize = 40;
const WANTED_LEN: usize = 48;
const STACK_COPY_LEN: usize = 64;
const CGROUP_LEN: usize = 48;

/// Names of `enum sberf_stack_end`, in its order.
pub const STACK_ENDS: [&str; 13] = [
    "entry",
    "depth_limit",
    "unreadable",
    "bad_frame_pointer",
    "no_registers",
    "kernel_thread",
    "not_asked",
    "scratch_busy",
    "no_table",
    "unsupported_rule",
    "table_pending",
    "table_refused",
    "not_code",
];

/// One record; byte slices point into the block that it was read from.
#[derive(Debug, PartialEq)]
pub enum Record<'a> {
    Sample(Sample),
    Stack(StackBody<'a>),
    StackCopy(StackCopy<'a>),
    /// A raw perf side-band record (mmap2, comm, fork, exit, lost ...), see `perf_record`.
    Perf {
        cpu: u16,
        bytes: &'a [u8],
    },
    /// JSON of a [`ProcessSnapshot`].
    Process(&'a [u8]),
    /// JSON of a [`ContainerNote`].
    Container(&'a [u8]),
    Exec(Exec<'a>),
    /// What the capture itself acted on: its sequence number is all that is of interest later.
    Asked {
        cpu: u16,
        seq: u32,
    },
    /// Every event with a time before `ts_ns` that was not lost lies before this record.
    Round {
        ts_ns: u64,
    },
}

/// A process began to run a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exec<'a> {
    pub cpu: u16,
    pub seq: u32,
    pub ts_ns: u64,
    pub pid: u32,
    /// In its own PID namespace.
    pub ns_pid: u32,
    /// Stands for its cgroups and namespaces: see bpf/container.bpf.h.
    pub container_key: u64,
    /// Each with its NUL (the last may be cut).
    pub arguments: &'a [u8],
}

impl Exec<'_> {
    /// The key and the process of a record as it came from a ring; None when it is another one.
    pub fn read_key(record: &[u8]) -> Option<(u64, i32)> {
        let is_exec = record.first() == Some(&EXEC) && record.len() >= EXEC_LEN;
        is_exec.then(|| (u64_at(record, 24), u32_at(record, 16) as i32))
    }
}

/// One sample of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub source: u8,
    pub cpu: u16,
    pub seq: u32,
    pub ts_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    /// Where the thread was; `user_callers` are those above it.
    pub user_ip: u64,
    pub kernel_stack: u64,
    pub user_callers: u64,
    /// None: the event's configured period.
    pub weight: Option<u64>,
}

/// The addresses of one distinct kernel stack, or of the callers in a user stack; sent once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackBody<'a> {
    pub cpu: u16,
    pub seq: u32,
    pub hash: u64,
    pub user: bool,
    /// Index into [`STACK_ENDS`].
    pub end: u8,
    pub tgid: u32,
    addresses: &'a [u8],
}

/// A part of a stack, from which user space finds the callers that the BPF programs could not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackCopy<'a> {
    pub cpu: u16,
    pub seq: u32,
    /// Stands for the callers in a sample.
    pub id: u64,
    /// Hash of the callers that were found.
    pub prefix: u64,
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
    pub is_return: bool,
    pub is_32bit: bool,
    /// arm64: above them a return address is signed.  0: it is not.
    pub address_bits: u8,
    /// arm64: the link register.
    pub lr: u64,
    /// The stack from `sp` on.
    pub bytes: &'a [u8],
}

impl<'a> StackBody<'a> {
    /// Leaf first.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.addresses.chunks_exact(8).map(|b| u64_at(b, 0))
    }
}

/// The index of a name in [`STACK_ENDS`].
pub fn end_number(name: &str) -> u8 {
    STACK_ENDS.iter().position(|end| *end == name).expect("one of the names") as u8
}

/// The stack end that a value of `user_callers` without a body stands for.
pub fn end_without_body(user_callers: u64) -> Option<u8> {
    let end = user_callers.checked_sub(1)?;
    (end < STACK_ENDS.len() as u64).then_some(end as u8)
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WireError {
    #[error("record type {0} is unknown")]
    UnknownType(u8),
    #[error("a record is cut off")]
    Truncated,
}

/// Splits the first record off `buf`; returns it with its padded length.
pub fn next_record(buf: &[u8]) -> Result<(Record<'_>, usize), WireError> {
    let len = record_len(buf)?;
    let bytes = &buf[..len];
    let record = match bytes[0] {
        SAMPLE => Record::Sample(sample(bytes, None)),
        SAMPLE_WEIGHTED => Record::Sample(sample(bytes, Some(u64_at(bytes, SAMPLE_LEN)))),
        STACK => Record::Stack(stack(bytes)),
        STACK_COPY => Record::StackCopy(stack_copy(bytes)?),
        WANTED | CGROUP => Record::Asked { cpu: u16_at(bytes, 2), seq: u32_at(bytes, 4) },
        ROUND => Record::Round { ts_ns: u64_at(bytes, 8) },
        PERF => Record::Perf { cpu: u16_at(bytes, 2), bytes: wrapped(bytes) },
        PROCESS => Record::Process(wrapped(bytes)),
        CONTAINER => Record::Container(wrapped(bytes)),
        _ => Record::Exec(exec(bytes)?),
    };
    Ok((record, len))
}

/// The padded length of the first record of `buf`, which is all there.
fn record_len(buf: &[u8]) -> Result<usize, WireError> {
    if buf.len() < RECORD_LEN {
        return Err(WireError::Truncated);
    }
    let len = match buf[0] {
        SAMPLE => SAMPLE_LEN,
        SAMPLE_WEIGHTED => SAMPLE_WEIGHTED_LEN,
        STACK if buf.len() < STACK_LEN => return Err(WireError::Truncated),
        EXEC if buf.len() < EXEC_LEN => return Err(WireError::Truncated),
        STACK => STACK_LEN + 8 * usize::from(u16_at(buf, 16)),
        EXEC => EXEC_LEN + (u32_at(buf, 20) as usize).next_multiple_of(8),
        WANTED => WANTED_LEN,
        CGROUP if buf.len() < CGROUP_LEN => return Err(WireError::Truncated),
        CGROUP => CGROUP_LEN + (u32_at(buf, 24) as usize).next_multiple_of(8),
        STACK_COPY if buf.len() < STACK_COPY_LEN => return Err(WireError::Truncated),
        STACK_COPY => STACK_COPY_LEN + (u32_at(buf, 48) as usize).next_multiple_of(8),
        ROUND => RECORD_LEN + 8,
        PERF | PROCESS | CONTAINER => RECORD_LEN + (u32_at(buf, 4) as usize).next_multiple_of(8),
        other => return Err(WireError::UnknownType(other)),
    };
    if buf.len() < len { Err(WireError::Truncated) } else { Ok(len) }
}

/// Is a record from a ring the copy of a stack?
pub fn is_stack_copy(record: &[u8]) -> bool {
    record.first() == Some(&STACK_COPY)
}

/// The body of a whole record that the drain thread wrapped.
fn wrapped(record: &[u8]) -> &[u8] {
    &record[RECORD_LEN..RECORD_LEN + u32_at(record, 4) as usize]
}

/// The unwind table of a file is wanted; the file is mapped at `start..end` of process `tgid`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    pub inode: u64,
    pub device: u32,
    pub kind: u32,
    pub start: u64,
    pub end: u64,
    pub tgid: u32,
}

impl Wanted {
    /// Reads a record as it came from a ring; None when it is another one.
    pub fn read(record: &[u8]) -> Option<Self> {
        (record.first() == Some(&WANTED) && record.len() == WANTED_LEN).then(|| Self {
            inode: u64_at(record, 8),
            device: u32_at(record, 16),
            kind: u32_at(record, 20),
            start: u64_at(record, 24),
            end: u64_at(record, 32),
            tgid: u32_at(record, 40),
        })
    }
}

/// A cgroup of the processes whose execs have a key; there is one for each hierarchy that matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Cgroup {
    pub container_key: u64,
    /// Inode numbers of the processes' namespaces.
    pub mount_ns: u32,
    pub pid_ns: u32,
    /// One of the hierarchy's; empty: v2.
    pub controller: Vec<u8>,
    /// From the hierarchy's root on; what is very long lacks its beginning.
    pub path: Vec<u8>,
}

impl Cgroup {
    /// Reads a record as it came from a ring; None when it is another one.
    pub fn read(record: &[u8]) -> Option<Self> {
        if record.first() != Some(&CGROUP) || record.len() < CGROUP_LEN {
            return None;
        }
        let names = record.get(CGROUP_LEN..CGROUP_LEN + u32_at(record, 24) as usize)?;
        let names = names.strip_suffix(b"\0").unwrap_or(names);
        let path: Vec<&[u8]> = names.rsplit(|&b| b == 0).collect();
        Some(Self {
            container_key: u64_at(record, 8),
            mount_ns: u32_at(record, 16),
            pid_ns: u32_at(record, 20),
            controller: record[32..CGROUP_LEN].split(|&b| b == 0).next().unwrap_or_default().to_vec(),
            path: [b"/", &path.join(&b'/')[..]].concat(),
        })
    }
}

/// A sample's fields, thread and process together, as they lie in the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawSample {
    pub source: u8,
    pub cpu: u16,
    pub seq: u32,
    pub ts_ns: u64,
    /// tgid and tid, as eight bytes of the record.
    pub thread: u64,
    pub user_ip: u64,
    pub kernel_stack: u64,
    pub user_callers: u64,
    pub weight: Option<u64>,
}

impl RawSample {
    /// Reads a record as it came from a ring; None when it is no sample.
    pub fn read(record: &[u8]) -> Option<Self> {
        let weight = match (record.first(), record.len()) {
            (Some(&SAMPLE), SAMPLE_LEN) => None,
            (Some(&SAMPLE_WEIGHTED), SAMPLE_WEIGHTED_LEN) => Some(u64_at(record, SAMPLE_LEN)),
            _ => return None,
        };
        Some(Self {
            source: record[1],
            cpu: u16_at(record, 2),
            seq: u32_at(record, 4),
            ts_ns: u64_at(record, 8),
            thread: u64_at(record, 16),
            user_ip: u64_at(record, 24),
            kernel_stack: u64_at(record, 32),
            user_callers: u64_at(record, 40),
            weight,
        })
    }

    /// Writes the record again.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let kind = if self.weight.is_some() { SAMPLE_WEIGHTED } else { SAMPLE };
        out.extend_from_slice(&[kind, self.source]);
        out.extend_from_slice(&self.cpu.to_ne_bytes());
        out.extend_from_slice(&self.seq.to_ne_bytes());
        for word in [self.ts_ns, self.thread, self.user_ip, self.kernel_stack, self.user_callers] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        if let Some(weight) = self.weight {
            out.extend_from_slice(&weight.to_ne_bytes());
        }
    }

    pub fn tgid(&self) -> u32 {
        u32_at(&self.thread.to_ne_bytes(), 0)
    }
}

/// Appends a perf side-band record.
pub fn push_perf(out: &mut Vec<u8>, cpu: u16, bytes: &[u8]) {
    push_wrapped(out, PERF, cpu, bytes);
}

/// Appends a process snapshot.
pub fn push_process(out: &mut Vec<u8>, snapshot: &ProcessSnapshot) {
    let json = serde_json::to_vec(snapshot).expect("a snapshot has no maps with non-string keys");
    push_wrapped(out, PROCESS, 0, &json);
}

/// Appends what was found out of a container.
pub fn push_container(out: &mut Vec<u8>, note: &ContainerNote) {
    let json = serde_json::to_vec(note).expect("a note has no maps");
    push_wrapped(out, CONTAINER, 0, &json);
}

/// Appends a round marker.
pub fn push_round(out: &mut Vec<u8>, ts_ns: u64) {
    out.extend_from_slice(&[ROUND, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&ts_ns.to_ne_bytes());
}

fn push_wrapped(out: &mut Vec<u8>, kind: u8, cpu: u16, bytes: &[u8]) {
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&cpu.to_ne_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// A process as /proc showed it.  Text is UTF-8 with `\xNN` for bytes that are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSnapshot {
    pub ts_ns: u64,
    pub pid: i32,
    pub ns_pid: Option<i32>,
    pub parent_pid: i32,
    pub uid: Option<u32>,
    pub comm: String,
    pub exe: Option<String>,
    pub cmdline: Option<String>,
    /// The ID; a [`ContainerNote`] tells its name.
    pub container: Option<String>,
    /// CLOCK_MONOTONIC; negative where the process is older than the boot-time clock's origin.
    pub start_ns: Option<i64>,
    pub kernel_thread: bool,
    pub threads: Vec<ThreadSnapshot>,
    /// Executable mappings.  None: only the names were read, after an exec.
    pub maps: Option<Vec<Mapping>>,
}

/// The name of a container, or which one an exec's key stands for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerNote {
    /// [`Exec::container_key`]
    pub key: Option<u64>,
    /// None: what the key stands for is in no container.
    pub id: Option<String>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThreadSnapshot {
    pub tid: i32,
    pub comm: String,
    pub start_ns: Option<i64>,
}

/// One executable mapping of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    pub file: MappedFile,
}

/// What identifies a mapped file: the path as the kernel printed it (empty, `[vdso]`, `//anon` for
/// memory without a file), with the build-id where the kernel could read it, else the inode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MappedFile {
    pub path: String,
    pub build_id: Option<Vec<u8>>,
    pub inode: Option<Inode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Inode {
    pub major: u32,
    pub minor: u32,
    pub inode: u64,
}

fn sample(b: &[u8], weight: Option<u64>) -> Sample {
    Sample {
        source: b[1],
        cpu: u16_at(b, 2),
        seq: u32_at(b, 4),
        ts_ns: u64_at(b, 8),
        tgid: u32_at(b, 16),
        tid: u32_at(b, 20),
        user_ip: u64_at(b, 24),
        kernel_stack: u64_at(b, 32),
        user_callers: u64_at(b, 40),
        weight,
    }
}

fn stack(b: &[u8]) -> StackBody<'_> {
    StackBody {
        cpu: u16_at(b, 2),
        seq: u32_at(b, 4),
        hash: u64_at(b, 8),
        user: b[18] == 1,
        end: b[19],
        tgid: u32_at(b, 20),
        addresses: &b[STACK_LEN..],
    }
}

fn stack_copy(b: &[u8]) -> Result<StackCopy<'_>, WireError> {
    Ok(StackCopy {
        cpu: u16_at(b, 2),
        seq: u32_at(b, 4),
        id: u64_at(b, 8),
        prefix: u64_at(b, 16),
        ip: u64_at(b, 24),
        sp: u64_at(b, 32),
        fp: u64_at(b, 40),
        is_return: b[52] != 0,
        is_32bit: b[53] != 0,
        address_bits: b[54],
        lr: u64_at(b, 56),
        bytes: b.get(STACK_COPY_LEN..STACK_COPY_LEN + u32_at(b, 48) as usize).ok_or(WireError::Truncated)?,
    })
}

fn exec(b: &[u8]) -> Result<Exec<'_>, WireError> {
    Ok(Exec {
        cpu: u16_at(b, 2),
        seq: u32_at(b, 4),
        ts_ns: u64_at(b, 8),
        pid: u32_at(b, 16),
        ns_pid: u32_at(b, 32),
        container_key: u64_at(b, 24),
        arguments: b.get(EXEC_LEN..EXEC_LEN + u32_at(b, 20) as usize).ok_or(WireError::Truncated)?,
    })
}

/// Reads a native-endian integer; the caller has checked the length.
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(b[at..at + 2].try_into().expect("two bytes"))
}

/// Reads a native-endian integer; the caller has checked the length.
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a native-endian integer; the caller has checked the length.
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_records_are_padded_and_read_back() {
        let mut buf = Vec::new();
        push_perf(&mut buf, 3, &[1, 2, 3]);
        push_round(&mut buf, 77);
        let (record, len) = next_record(&buf).unwrap();
        assert_eq!(record, Record::Perf { cpu: 3, bytes: &[1, 2, 3] });
        assert_eq!(next_record(&buf[len..]).unwrap(), (Record::Round { ts_ns: 77 }, 16));
    }

    #[test]
    fn cgroups_are_told_from_the_innermost_on() {
        let mut record = vec![CGROUP, 0, 3, 0, 9, 0, 0, 0];
        record.extend(77u64.to_ne_bytes());
        record.extend([5u32, 6, 11, 0].iter().flat_map(|word| word.to_ne_bytes()));
        record.extend(b"memory\0\0\0\0\0\0\0\0\0\0");
        record.extend(b"web\0docker\0\0\0\0\0\0");
        assert_eq!(next_record(&record).unwrap(), (Record::Asked { cpu: 3, seq: 9 }, 64));
        let cgroup = Cgroup::read(&record).unwrap();
        assert_eq!((cgroup.container_key, cgroup.mount_ns, cgroup.pid_ns), (77, 5, 6));
        assert_eq!((&cgroup.controller[..], &cgroup.path[..]), (&b"memory"[..], &b"/docker/web"[..]));
        assert!((0..record.len() - 5).all(|len| Cgroup::read(&record[..len]).is_none()));
    }

    #[test]
    fn cut_records_are_errors() {
        let mut buf = Vec::new();
        push_perf(&mut buf, 3, &[0; 64]);
        for len in 0..buf.len() {
            assert_eq!(next_record(&buf[..len]), Err(WireError::Truncated));
        }
        assert_eq!(next_record(&[200; 8]), Err(WireError::UnknownType(200)));
    }
}
