//! Builds spools, record by record, as a capture would write them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::recording::Recording;
use crate::error::Result;
use crate::finalize::{FileStore, NoFiles, finalize};
use crate::spool::{self, Clock, Footer, Header, Source, SpoolWriter};
use crate::symbols;
use crate::wire::{self, ContainerNote, MappedFile, Mapping, ProcessSnapshot, RawSample, ThreadSnapshot};

/// Times in the tests are milliseconds after this.
pub const BEGIN_NS: u64 = 1_000_000_000_000;
pub const MS: u64 = 1_000_000;
/// A user stack that says why there is none: not asked for.
pub const NO_USER: u64 = 7;
/// The hash that a user's kernel stack has when there is none.
pub const NO_KERNEL: u64 = 0;

/// A spool in a temporary directory.
pub struct Spool {
    pub dir: tempfile::TempDir,
    pub header: Header,
    pub footer: Option<Footer>,
    writer: SpoolWriter<File>,
    sequences: Vec<u32>,
    /// The first addresses of the user stacks, by their hash.
    leaves: HashMap<u64, u64>,
}

impl Spool {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("spool")).unwrap();
        let writer = SpoolWriter::new(File::create(dir.path().join("spool/events")).unwrap());
        let footer = Footer { start_ns: BEGIN_NS, end_ns: BEGIN_NS + 1000 * MS, ..Footer::default() };
        Self {
            dir,
            header: header(),
            footer: Some(footer),
            writer,
            sequences: vec![0; 1024],
            leaves: HashMap::new(),
        }
    }

    /// Recorded on the running kernel, whose symbols then take most of the test's time.
    pub fn of_this_boot() -> Self {
        let mut spool = Self::new();
        spool.header.boot_id = crate::finalize::kernel::boot_id();
        spool
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub fn sequence(&mut self, cpu: u16) -> u32 {
        let seq = &mut self.sequences[usize::from(cpu)];
        *seq += 1;
        *seq
    }

    /// Leaves out sequence numbers, as the kernel does when a ring is full.
    pub fn lose(&mut self, cpu: u16, records: u32) {
        self.sequences[usize::from(cpu)] += records;
    }

    pub fn sample(&mut self, ms: u64, pid: u32, tid: u32, user_stack: u64) {
        self.sample_on(0, ms, pid, tid, NO_KERNEL, user_stack);
    }

    pub fn sample_on(&mut self, cpu: u16, ms: u64, pid: u32, tid: u32, kernel_stack: u64, user_stack: u64) {
        let seq = self.sequence(cpu);
        let (user_ip, user_callers) = self.parts_of(user_stack);
        let mut thread = [0; 8];
        thread[..4].copy_from_slice(&pid.to_ne_bytes());
        thread[4..].copy_from_slice(&tid.to_ne_bytes());
        self.push(&RawSample {
            source: 0,
            cpu,
            seq,
            ts_ns: at(ms),
            thread: u64::from_ne_bytes(thread),
            user_ip,
            kernel_stack,
            user_callers,
            weight: None,
        });
    }

    pub fn push(&mut self, sample: &RawSample) {
        self.writer.push_sample(sample);
        self.writer.flush_if_full().unwrap();
    }

    pub fn user_stack(&mut self, hash: u64, addresses: &[u64]) {
        self.stack(hash, 1, 0, addresses);
    }

    /// A sample's ip and callers for a stack that was given as a whole.
    pub fn parts_of(&self, user_stack: u64) -> (u64, u64) {
        (self.leaves.get(&user_stack).copied().unwrap_or(0), user_stack)
    }

    pub fn kernel_stack(&mut self, hash: u64, addresses: &[u64]) {
        self.stack(hash, 0, 0, addresses);
    }

    pub fn stack(&mut self, hash: u64, kind: u8, end: u8, addresses: &[u64]) {
        let seq = self.sequence(0);
        let addresses = match addresses {
            [leaf, callers @ ..] if kind == 1 => {
                self.leaves.insert(hash, *leaf);
                callers
            }
            _ => addresses,
        };
        let out = self.writer.buffer();
        out.extend_from_slice(&[3, 0, 0, 0]);
        out.extend_from_slice(&seq.to_ne_bytes());
        out.extend_from_slice(&hash.to_ne_bytes());
        out.extend_from_slice(&(addresses.len() as u16).to_ne_bytes());
        out.extend_from_slice(&[kind, end, 0, 0, 0, 0]);
        addresses.iter().for_each(|address| out.extend_from_slice(&address.to_ne_bytes()));
        self.writer.flush_if_full().unwrap();
    }

    pub fn fork(&mut self, ms: u64, parent: u32, pid: u32) {
        self.task(ms, 7, (pid, parent), (pid, parent));
    }

    pub fn thread(&mut self, ms: u64, pid: u32, tid: u32) {
        self.task(ms, 7, (pid, pid), (tid, pid));
    }

    pub fn exit(&mut self, ms: u64, pid: u32, tid: u32) {
        self.task(ms, 4, (pid, 1), (tid, 1));
    }

    pub fn comm(&mut self, ms: u64, pid: u32, tid: u32, comm: &str) {
        self.comm_record(ms, pid, tid, comm, 0);
    }

    pub fn exec(&mut self, ms: u64, pid: u32, comm: &str) {
        self.comm_record(ms, pid, pid, comm, 1 << 13);
    }

    pub fn mmap(&mut self, ms: u64, pid: u32, map: &Mapping) {
        let mut body = Vec::new();
        body.extend([pid, pid].into_iter().flat_map(u32::to_ne_bytes));
        body.extend([map.start, map.end - map.start, map.file_offset].into_iter().flat_map(u64::to_ne_bytes));
        let misc = match (&map.file.build_id, map.file.inode) {
            (Some(build_id), _) => {
                body.extend([build_id.len() as u8, 0, 0, 0]);
                body.extend(build_id);
                body.resize(56, 0);
                1 << 14
            }
            (None, inode) => {
                let inode = inode.unwrap_or(wire::Inode { major: 0, minor: 0, inode: 0 });
                body.extend([inode.major, inode.minor].into_iter().flat_map(u32::to_ne_bytes));
                body.extend([inode.inode, 0].into_iter().flat_map(u64::to_ne_bytes));
                0
            }
        };
        body.extend([5u32, 2].into_iter().flat_map(u32::to_ne_bytes));
        body.extend(map.file.path.as_bytes());
        body.push(0);
        self.perf(ms, 10, misc, &body);
    }

    pub fn kernel_symbol(&mut self, ms: u64, start: u64, len: u32, name: &str, gone: bool) {
        let mut body = start.to_ne_bytes().to_vec();
        body.extend(len.to_ne_bytes());
        body.extend([1u16, u16::from(gone)].into_iter().flat_map(u16::to_ne_bytes));
        body.extend(name.as_bytes());
        body.push(0);
        self.perf(ms, 17, 0, &body);
    }

    pub fn lost_sideband(&mut self, ms: u64, records: u64) {
        let body: Vec<u8> = [0, records].into_iter().flat_map(u64::to_ne_bytes).collect();
        self.perf(ms, 2, 0, &body);
    }

    pub fn throttle(&mut self, ms: u64) {
        self.perf(ms, 5, 0, &[0; 24]);
    }

    pub fn snapshot(&mut self, snapshot: &ProcessSnapshot) {
        wire::push_process(self.writer.buffer(), snapshot);
        self.writer.flush_if_full().unwrap();
    }

    /// The arguments each end with a NUL.
    pub fn arguments(&mut self, ms: u64, pid: u32, arguments: &str) {
        self.program(ms, (pid, pid), 0, arguments);
    }

    /// The arguments of a process with an ID outside and inside, whose container has a key.
    pub fn program(&mut self, ms: u64, (pid, ns_pid): (u32, u32), container_key: u64, arguments: &str) {
        let out = self.writer.buffer();
        out.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&at(ms).to_ne_bytes());
        out.extend_from_slice(&pid.to_ne_bytes());
        out.extend_from_slice(&(arguments.len() as u32).to_ne_bytes());
        out.extend_from_slice(&container_key.to_ne_bytes());
        out.extend_from_slice(&u64::from(ns_pid).to_ne_bytes());
        out.extend_from_slice(arguments.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }

    pub fn container(&mut self, key: Option<u64>, id: Option<&str>, name: Option<&str>) {
        let (id, name) = (id.map(str::to_string), name.map(str::to_string));
        wire::push_container(self.writer.buffer(), &ContainerNote { key, id, name });
    }

    pub fn round(&mut self, ms: u64) {
        wire::push_round(self.writer.buffer(), at(ms));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.writer.buffer().extend_from_slice(bytes);
    }

    /// Ends the block, so that the order in the file is that of the calls.
    pub fn end_block(&mut self) {
        self.writer.flush().unwrap();
    }

    pub fn finalize(&mut self) -> Recording {
        self.finalize_with(&NoFiles)
    }

    pub fn finalize_with(&mut self, files: &dyn FileStore) -> Recording {
        let meta = self.try_finalize(files).unwrap();
        Recording::read(&self.output(), meta)
    }

    pub fn try_finalize(&mut self, files: &dyn FileStore) -> Result<Value> {
        self.write();
        finalize(&self.path(), &self.output(), files)
    }

    pub fn write(&mut self) {
        self.end_block();
        let json = |name: &str, text: String| fs::write(self.path().join(name), text).unwrap();
        json("header.json", serde_json::to_string(&self.header).unwrap());
        if let Some(footer) = &self.footer {
            json("footer.json", serde_json::to_string(footer).unwrap());
        }
    }

    pub fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn task(&mut self, ms: u64, kind: u32, pids: (u32, u32), tids: (u32, u32)) {
        let words = [pids.0, pids.1, tids.0, tids.1];
        let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        body.extend(at(ms).to_ne_bytes());
        self.perf(ms, kind, 0, &body);
    }

    fn comm_record(&mut self, ms: u64, pid: u32, tid: u32, comm: &str, misc: u16) {
        let mut body: Vec<u8> = [pid, tid].into_iter().flat_map(u32::to_ne_bytes).collect();
        body.extend(comm.as_bytes());
        body.push(0);
        self.perf(ms, 3, misc, &body);
    }

    fn perf(&mut self, ms: u64, kind: u32, misc: u16, body: &[u8]) {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(8), 0);
        let mut record = kind.to_ne_bytes().to_vec();
        record.extend(misc.to_ne_bytes());
        record.extend((8 + body.len() as u16 + 24).to_ne_bytes());
        record.extend(body);
        record.extend([0; 8]);
        record.extend(at(ms).to_ne_bytes());
        record.extend([0; 8]);
        wire::push_perf(self.writer.buffer(), 0, &record);
        self.writer.flush_if_full().unwrap();
    }
}

/// splitmix64, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Mostly small numbers, so that they meet, and those at which arithmetic breaks.
    pub fn odd(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - self.below(3),
            1 => (1 << 63) - 1 + self.below(3),
            2 => self.next(),
            _ => self.below(6),
        }
    }
}

pub fn at(ms: u64) -> u64 {
    BEGIN_NS + ms * MS
}

fn header() -> Header {
    let source = Source {
        event: "cpu-clock".to_string(),
        unit: "ns".to_string(),
        frequency_hz: Some(1000),
        period: Some(1_000_000),
        user: true,
        kernel: true,
        max_depth: 127,
    };
    let clock = Clock { monotonic_ns: BEGIN_NS, realtime_ns: BEGIN_NS, boottime_ns: BEGIN_NS };
    Header {
        format: spool::FORMAT.to_string(),
        version: spool::VERSION,
        sberf_version: "0".to_string(),
        boot_id: "another".to_string(),
        host: serde_json::json!({ "hostname": "test" }),
        command_line: vec!["record".to_string()],
        clock,
        target: serde_json::json!({ "kind": "all" }),
        sources: vec![source],
        max_sample_rate: Some(100_000),
        targets: None,
    }
}

/// A process that was there before the capture.
pub fn snapshot(ms: u64, pid: i32, comm: &str, maps: Vec<Mapping>) -> ProcessSnapshot {
    let thread = ThreadSnapshot { tid: pid, comm: comm.to_string(), start_ns: Some(5_000) };
    ProcessSnapshot {
        ts_ns: at(ms),
        pid,
        ns_pid: Some(pid),
        parent_pid: 1,
        uid: Some(0),
        comm: comm.to_string(),
        exe: Some(format!("/bin/{comm}")),
        cmdline: Some(format!("{comm} --flag")),
        container: None,
        start_ns: Some(5_000),
        kernel_thread: false,
        threads: vec![thread],
        maps: Some(maps),
    }
}

/// A real file with a function whose name is known, mapped so that the function is at `address`.
pub fn mapped_function(path: &Path, function: &str, address: u64) -> Mapping {
    let offset = offset_of(path, function);
    let into = offset & 0xfff;
    let file = MappedFile {
        path: path.to_str().unwrap().to_string(),
        build_id: symbols::build_id(&File::open(path).unwrap()),
        inode: None,
    };
    assert!(file.build_id.is_some(), "{} has a build-id", path.display());
    let start = address - into;
    Mapping { start, end: start + 0x2000, file_offset: offset - into, file }
}

/// The file offset of the first byte of a function whose name contains `function`.
pub fn offset_of(path: &Path, function: &str) -> u64 {
    let elf = symbols::ElfSymbols::load(&File::open(path).unwrap()).unwrap();
    let len = fs::metadata(path).unwrap().len();
    let mut offset = 0;
    while offset < len {
        let Some(address) = elf.address_of(offset) else {
            offset += 1;
            continue;
        };
        match elf.lookup(address) {
            Some(symbol) if symbol.name.contains(function) => return offset - (address - symbol.start),
            Some(symbol) => offset += (symbol.start + symbol.size - address).max(1),
            None => offset += 1,
        }
    }
    panic!("{} has no {function}", path.display());
}

/// The C library that this test runs with.
pub fn libc_path() -> PathBuf {
    mapped_path("libc.so.6")
}

/// The dynamic loader.
pub fn loader_path() -> PathBuf {
    mapped_path("/ld-")
}

fn mapped_path(part: &str) -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    PathBuf::from(paths.into_iter().find(|path| path.contains(part)).unwrap())
}
