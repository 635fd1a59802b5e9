//! The lives of processes and threads, followed in the order of time.
//!
//! Fork, exit, exec and mmap come from perf's side-band, which is exact but only knows what happens
//! while it is on; snapshots of /proc say what was there before, but their time is only about right.
//! Where the two disagree the side-band counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::address_space::{AddressSpace, Files, Map, Versions};
use super::jitdumps::{DumpNames, MappedDumps};
use super::survey::InitialProcess;
use crate::wire::{ProcessSnapshot, ThreadSnapshot};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// The dead are still found for so long: an exiting thread is sampled after its exit record.
const LINGER_NS: i64 = 1_000_000_000;
/// Start times in /proc are in ticks of 10 ms, and follow the boot-time clock.
const START_TOLERANCE_NS: i64 = 100_000_000;
const IDLE_COMM: &str = "swapper";

/// One process running one program.
#[derive(Clone)]
pub struct Process {
    pub pid: i32,
    pub ns_pid: Option<i32>,
    pub parent: Option<u32>,
    pub exec_from: Option<u32>,
    pub uid: Option<u32>,
    pub comm: Arc<str>,
    pub exe: Option<Arc<str>>,
    pub cmdline: Option<Arc<str>>,
    pub container: Option<Arc<str>>,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
    pub exit_code: Option<i32>,
    pub target: bool,
    pub first_sample_ns: Option<i64>,
    pub space: AddressSpace,
    pub perf_map: PerfMapOf,
    pub dumps: MappedDumps,
    /// Made by a fork that was recorded, and still running the program of its parent.
    forked: bool,
    /// The fork; unlike `start_ns` an exec leaves it.
    born_ns: Option<i64>,
    /// The side-band has told the name, so a snapshot with another one is of another program.
    comm_is_certain: bool,
    /// After an exec: what is mapped first is the program itself.
    exe_is_mapped_next: bool,
    leader_exited: bool,
    live_threads: Vec<u32>,
}

impl Process {
    pub fn is_forked(&self) -> bool {
        self.forked
    }
}

/// What the kernel told of a program as it was started.
pub struct Program<'a> {
    /// The process's ID in its own PID namespace.
    pub ns_pid: Option<i32>,
    /// The ID of its container, or that it is in none; None: that was not found out.
    pub container: Option<Option<&'a Arc<str>>>,
    pub cmdline: Option<&'a str>,
}

/// Which process row's perf map names the generated code of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerfMapOf {
    /// Nobody has looked yet.
    Unchecked,
    Nobody,
    Process(u32),
}

/// One thread of one process row.
pub struct Thread {
    pub process: u32,
    pub tid: i32,
    pub comm: Arc<str>,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
    /// The key in the tables, given when the first sample needs it.
    pub key: Option<u32>,
}

/// All process and thread rows, and which of them live now.
pub struct Processes {
    pub rows: Vec<Process>,
    pub threads: Vec<Thread>,
    pub versions: Versions,
    by_pid: FastMap<i32, u32>,
    by_tid: FastMap<i32, u32>,
    /// In the order of their ends: rows to forget once they have lingered.
    dead_rows: VecDeque<(i64, u32)>,
    dead_threads: VecDeque<(i64, u32)>,
    thread_keys: u32,
    /// The latest time of anything so far.  A record that comes late happens now: its time must not
    /// end a life before samples that have been told.
    now_ns: i64,
    no_name: Arc<str>,
    /// Those that have no row yet.
    targets: HashSet<i32>,
    dump_names: DumpNames,
}

impl Processes {
    /// `targets`: the processes that were asked for.
    pub fn new(targets: &[i32], files: &Files) -> Self {
        Self {
            targets: targets.iter().copied().collect(),
            dump_names: DumpNames::new(files),
            rows: Vec::new(),
            threads: Vec::new(),
            versions: Versions::default(),
            by_pid: FastMap::default(),
            by_tid: FastMap::default(),
            dead_rows: VecDeque::new(),
            dead_threads: VecDeque::new(),
            thread_keys: 0,
            now_ns: i64::MIN,
            no_name: Arc::from(""),
        }
    }

    /// Makes the rows of what was there when the capture began.
    pub fn begin(&mut self, initial: &[InitialProcess]) {
        for process in initial {
            let row = self.new_row(process.snapshot.pid, process.snapshot.start_ns);
            self.learn(row, &process.snapshot);
            for map in &process.maps {
                self.rows[row as usize].space.map(*map, &mut self.versions);
            }
            self.note_dumps(row, &process.maps);
        }
        for process in initial {
            let parent = self.by_pid.get(&process.snapshot.parent_pid).copied();
            if let Some(&row) = self.by_pid.get(&process.snapshot.pid) {
                self.rows[row as usize].parent = parent.filter(|&parent| parent != row);
            }
        }
    }

    /// A new process, or a new thread when `parent_pid` is `pid`.
    pub fn fork(&mut self, ts_ns: i64, pid: i32, parent_pid: i32, tid: i32) {
        let ts_ns = self.advance(ts_ns);
        if pid == parent_pid {
            let row = self.row_at(ts_ns, pid);
            let comm = Arc::clone(&self.rows[row as usize].comm);
            self.start_thread(row, tid, comm, Some(ts_ns));
            return;
        }
        let parent = self.row_at(ts_ns, parent_pid);
        if let Some(&known) = self.by_pid.get(&pid) {
            if self.is_same_start(known, ts_ns) {
                // A snapshot was quicker than this record.
                let row = &mut self.rows[known as usize];
                (row.parent, row.born_ns) = (Some(parent), Some(ts_ns));
                row.start_ns = Some(ts_ns.min(row.first_sample_ns.unwrap_or(ts_ns)));
                return;
            }
            self.end_row(known, ts_ns);
        }
        let like = self.rows[parent as usize].clone();
        let row = self.new_row(pid, Some(ts_ns));
        self.rows[row as usize] = Process {
            pid,
            parent: Some(parent),
            exec_from: None,
            ns_pid: None,
            start_ns: Some(ts_ns),
            end_ns: None,
            born_ns: Some(ts_ns),
            perf_map: PerfMapOf::Unchecked,
            dumps: like.dumps.inherited(ts_ns),
            forked: true,
            // The name is that of the thread that forked, which the record does not tell.
            comm_is_certain: false,
            target: false,
            first_sample_ns: None,
            exe_is_mapped_next: false,
            leader_exited: false,
            live_threads: Vec::new(),
            ..like
        };
        let comm = Arc::clone(&self.rows[row as usize].comm);
        self.start_thread(row, tid, comm, Some(ts_ns));
    }

    pub fn exit(&mut self, ts_ns: i64, pid: i32, tid: i32) {
        let ts_ns = self.advance(ts_ns);
        let Some(&row) = self.by_pid.get(&pid) else { return };
        if let Some(thread) = self.thread_of(row, tid) {
            let start_ns = self.threads[thread as usize].start_ns;
            if start_ns.is_some_and(|start| is_clearly_later(start, ts_ns)) {
                return; // the exit of an earlier thread with this ID
            }
            self.end_thread(thread, ts_ns);
        }
        let process = &mut self.rows[row as usize];
        process.leader_exited |= pid == tid;
        if process.leader_exited && process.live_threads.is_empty() {
            self.end_row(row, ts_ns);
        }
    }

    /// A new name of a thread; `exec`: because the process runs another program now.
    pub fn comm(&mut self, ts_ns: i64, pid: i32, tid: i32, comm: Arc<str>, exec: bool) {
        let ts_ns = self.advance(ts_ns);
        if exec {
            return self.exec(ts_ns, pid, comm);
        }
        let row = self.row_at(ts_ns, pid);
        let thread = self.thread_at(ts_ns, row, tid);
        self.threads[thread as usize].comm = Arc::clone(&comm);
        if pid == tid {
            let process = &mut self.rows[row as usize];
            (process.comm, process.comm_is_certain) = (comm, true);
        }
    }

    pub fn mmap(&mut self, ts_ns: i64, pid: i32, map: Map, files: &Files) {
        let ts_ns = self.advance(ts_ns);
        let row = self.row_at(ts_ns, pid);
        let process = &mut self.rows[row as usize];
        process.space.map(map, &mut self.versions);
        if self.dump_names.pid(map.file).is_some() {
            process.dumps.mapped(map.file);
        }
        if std::mem::take(&mut process.exe_is_mapped_next) && process.exe.is_none() {
            let path = &files.get(map.file).path;
            process.exe = path.starts_with('/').then(|| Arc::from(path.as_str()));
        }
    }

    /// What /proc said of a process.
    pub fn snapshot(&mut self, snapshot: &ProcessSnapshot, maps: &[Map]) {
        let ts_ns = snapshot.ts_ns as i64;
        let Some(row) = self.row_of_snapshot(snapshot, ts_ns) else { return };
        let process = &mut self.rows[row as usize];
        let certain = process.comm_is_certain && !snapshot.kernel_thread;
        if certain && *process.comm != *snapshot.comm {
            return; // the process has run another program between the snapshot's time and its reading
        }
        self.learn(row, snapshot);
        for map in maps {
            self.rows[row as usize].space.fill(*map, &mut self.versions);
        }
        self.note_dumps(row, maps);
        if self.rows[row as usize].parent.is_none() {
            let parent = self.by_pid.get(&snapshot.parent_pid).copied();
            self.rows[row as usize].parent = parent.filter(|&parent| parent < row);
        }
    }

    /// Of the dumps that /proc shows mapped, those with another process's ID came with a fork.
    fn note_dumps(&mut self, row: u32, maps: &[Map]) {
        let process = &mut self.rows[row as usize];
        let own_pid = process.ns_pid.unwrap_or(process.pid);
        for map in maps {
            if let Some(pid) = self.dump_names.pid(map.file) {
                let forked_ns = process.born_ns.or(process.start_ns).filter(|_| pid != own_pid);
                process.dumps.found(map.file, forked_ns);
            }
        }
    }

    /// What a process ran at a time.
    pub fn runs(&mut self, ts_ns: i64, pid: i32, program: &Program<'_>) {
        let row = self.by_pid.get(&pid).and_then(|&row| self.predecessor_at(row, ts_ns));
        let Some(row) = row else { return };
        let process = &mut self.rows[row as usize];
        process.ns_pid = program.ns_pid.or(process.ns_pid);
        process.cmdline = program.cmdline.map(Arc::from).or(process.cmdline.take());
        if let Some(container) = program.container {
            process.container = container.cloned();
        }
    }

    /// The thread that was sampled.
    pub fn sampled_thread(&mut self, ts_ns: i64, pid: i32, tid: i32) -> u32 {
        let known = self.by_tid.get(&tid).copied().filter(|&thread| {
            // The threads of a row end with it.
            let thread = &self.threads[thread as usize];
            thread.end_ns.is_none() && self.rows[thread.process as usize].pid == pid
        });
        let thread = known.unwrap_or_else(|| {
            let row = self.row_at(ts_ns, pid);
            self.thread_at(ts_ns, row, tid)
        });
        let (row, keys) = (&mut self.threads[thread as usize], &mut self.thread_keys);
        if row.key.is_none() {
            row.key = Some(*keys);
            *keys += 1;
        }
        self.now_ns = self.now_ns.max(ts_ns);
        // Lives that are only roughly known are stretched: a sample is certain.
        row.start_ns = row.start_ns.map(|start| start.min(ts_ns));
        row.end_ns = row.end_ns.map(|end| end.max(ts_ns));
        let process = &mut self.rows[row.process as usize];
        let first_ns = process.first_sample_ns.unwrap_or(ts_ns);
        process.first_sample_ns = Some(first_ns.min(ts_ns));
        process.start_ns = process.start_ns.map(|start| start.min(ts_ns));
        process.end_ns = process.end_ns.map(|end| end.max(ts_ns));
        thread
    }

    /// Forgets the mappings of processes that ended long enough ago.
    pub fn forget_dead(&mut self) {
        let now_ns = self.now_ns;
        let is_over = |end_ns: i64| end_ns.saturating_add(LINGER_NS) < now_ns;
        while let Some(&(_, row)) = self.dead_rows.front().filter(|(end_ns, _)| is_over(*end_ns)) {
            self.dead_rows.pop_front();
            let process = &mut self.rows[row as usize];
            if let Some(end_ns) = process.end_ns.filter(|end_ns| !is_over(*end_ns)) {
                self.dead_rows.push_back((end_ns, row)); // sampled meanwhile
                continue;
            }
            process.space.clear();
            process.live_threads = Vec::new();
            if self.by_pid.get(&process.pid) == Some(&row) {
                self.by_pid.remove(&process.pid);
            }
        }
        while let Some(&(_, thread)) = self.dead_threads.front().filter(|(end_ns, _)| is_over(*end_ns)) {
            self.dead_threads.pop_front();
            let tid = self.threads[thread as usize].tid;
            if self.by_tid.get(&tid) == Some(&thread) {
                self.by_tid.remove(&tid);
            }
        }
    }

    fn advance(&mut self, ts_ns: i64) -> i64 {
        self.now_ns = self.now_ns.max(ts_ns);
        self.now_ns
    }

    fn exec(&mut self, ts_ns: i64, pid: i32, comm: Arc<str>) {
        let known = self.by_pid.get(&pid).copied();
        let like = known.map(|row| self.rows[row as usize].clone());
        if let Some(row) = known {
            self.end_row(row, ts_ns);
            // When a thread that we do not know of runs the program, the leader's exit was no end.
            self.rows[row as usize].end_ns = Some(ts_ns);
        }
        let row = self.new_row(pid, Some(ts_ns));
        if let Some(like) = like {
            self.rows[row as usize] = Process {
                exec_from: known,
                exe: None,
                cmdline: None,
                start_ns: Some(ts_ns),
                end_ns: None,
                first_sample_ns: None,
                space: AddressSpace::default(),
                perf_map: PerfMapOf::Unchecked,
                dumps: MappedDumps::default(),
                forked: false,
                leader_exited: false,
                live_threads: Vec::new(),
                ..like
            };
        }
        let process = &mut self.rows[row as usize];
        (process.comm, process.comm_is_certain) = (Arc::clone(&comm), true);
        process.exe_is_mapped_next = true;
        self.start_thread(row, pid, comm, Some(ts_ns));
    }

    /// The row of a process that something was just seen of.
    fn row_at(&mut self, ts_ns: i64, pid: i32) -> u32 {
        let known = self.by_pid.get(&pid).copied().filter(|&row| {
            let end_ns = self.rows[row as usize].end_ns;
            end_ns.is_none_or(|end_ns| end_ns.saturating_add(LINGER_NS) >= ts_ns)
        });
        if let Some(row) = known {
            return row;
        }
        let row = self.new_row(pid, None);
        if pid == 0 {
            self.rows[row as usize].comm = Arc::from(IDLE_COMM);
        }
        row
    }

    fn thread_at(&mut self, ts_ns: i64, row: u32, tid: i32) -> u32 {
        self.thread_of(row, tid).unwrap_or_else(|| {
            let comm = Arc::clone(&self.rows[row as usize].comm);
            let thread = self.start_thread(row, tid, comm, None);
            if self.rows[row as usize].end_ns.is_some() {
                self.end_thread(thread, ts_ns);
            }
            thread
        })
    }

    fn thread_of(&self, row: u32, tid: i32) -> Option<u32> {
        self.by_tid.get(&tid).copied().filter(|&thread| self.threads[thread as usize].process == row)
    }

    fn new_row(&mut self, pid: i32, start_ns: Option<i64>) -> u32 {
        let row = self.rows.len() as u32;
        self.rows.push(Process {
            pid,
            ns_pid: None,
            parent: None,
            exec_from: None,
            uid: None,
            comm: Arc::clone(&self.no_name),
            exe: None,
            cmdline: None,
            container: None,
            start_ns,
            end_ns: None,
            exit_code: None,
            // The first one with this PID: it was there when the capture began.
            target: self.targets.remove(&pid),
            first_sample_ns: None,
            space: AddressSpace::default(),
            perf_map: PerfMapOf::Unchecked,
            dumps: MappedDumps::default(),
            forked: false,
            born_ns: start_ns,
            comm_is_certain: false,
            exe_is_mapped_next: false,
            leader_exited: false,
            live_threads: Vec::new(),
        });
        self.by_pid.insert(pid, row);
        row
    }

    fn end_row(&mut self, row: u32, ts_ns: i64) {
        let process = &mut self.rows[row as usize];
        if process.end_ns.is_some() {
            return;
        }
        process.end_ns = Some(ts_ns.max(process.start_ns.unwrap_or(ts_ns)));
        for thread in std::mem::take(&mut process.live_threads) {
            self.end_thread(thread, ts_ns);
        }
        self.dead_rows.push_back((ts_ns, row));
    }

    /// Makes a thread row, unless it is there already since about the same time.
    fn start_thread(&mut self, row: u32, tid: i32, comm: Arc<str>, start_ns: Option<i64>) -> u32 {
        if let Some(&known) = self.by_tid.get(&tid) {
            let thread = &mut self.threads[known as usize];
            let is_same = match (thread.start_ns, start_ns) {
                (Some(known), Some(new)) => is_about(known, new),
                _ => true,
            };
            if thread.process == row && thread.end_ns.is_none() && is_same {
                if thread.key.is_none() {
                    thread.start_ns = start_ns.or(thread.start_ns);
                }
                return known;
            }
            if let Some(start_ns) = start_ns {
                self.end_thread(known, start_ns.max(self.now_ns));
            }
        }
        let thread = self.threads.len() as u32;
        self.threads.push(Thread { process: row, tid, comm, start_ns, end_ns: None, key: None });
        self.by_tid.insert(tid, thread);
        self.rows[row as usize].live_threads.push(thread);
        thread
    }

    fn end_thread(&mut self, thread: u32, ts_ns: i64) {
        let row = &mut self.threads[thread as usize];
        if row.end_ns.is_none() {
            row.end_ns = Some(ts_ns.max(row.start_ns.unwrap_or(ts_ns)));
            self.dead_threads.push_back((ts_ns, thread));
        }
        let live = &mut self.rows[row.process as usize].live_threads;
        if let Some(at) = live.iter().position(|&other| other == thread) {
            live.swap_remove(at);
        }
    }

    fn is_same_start(&self, row: u32, ts_ns: i64) -> bool {
        let process = &self.rows[row as usize];
        let born = process.born_ns.filter(|_| process.end_ns.is_none() && process.exec_from.is_none());
        born.is_some_and(|born| is_about(born, ts_ns))
    }

    /// The row that a snapshot tells of; makes one when the process was not known.
    fn row_of_snapshot(&mut self, snapshot: &ProcessSnapshot, ts_ns: i64) -> Option<u32> {
        let Some(&live) = self.by_pid.get(&snapshot.pid) else {
            return Some(self.new_row(snapshot.pid, snapshot.start_ns));
        };
        let row = self.predecessor_at(live, ts_ns)?;
        if row != live {
            return None; // it came too late to be worth more than the side-band
        }
        let process = &self.rows[row as usize];
        let (Some(born), Some(start)) = (process.born_ns, snapshot.start_ns) else { return Some(row) };
        if is_clearly_later(start, born) {
            // The PID was given to another process, and the record of its fork was lost.
            self.end_row(row, start.max(self.now_ns));
            return Some(self.new_row(snapshot.pid, snapshot.start_ns));
        }
        (!is_clearly_later(born, start)).then_some(row)
    }

    /// Follows execs backwards from `row` to the one that ran at `ts_ns`.
    fn predecessor_at(&self, row: u32, ts_ns: i64) -> Option<u32> {
        let mut row = row;
        while self.rows[row as usize].start_ns.is_some_and(|start| start > ts_ns) {
            row = self.rows[row as usize].exec_from?;
        }
        Some(row)
    }

    fn learn(&mut self, row: u32, snapshot: &ProcessSnapshot) {
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let process = &mut self.rows[row as usize];
        process.comm = Arc::from(snapshot.comm.as_str());
        process.ns_pid = snapshot.ns_pid.or(process.ns_pid);
        process.uid = snapshot.uid.or(process.uid);
        process.exe = text(&snapshot.exe).or(process.exe.take());
        process.cmdline = text(&snapshot.cmdline).or(process.cmdline.take());
        process.container = text(&snapshot.container).or(process.container.take());
        let start_ns = snapshot.start_ns.map(|start| start.min(process.first_sample_ns.unwrap_or(start)));
        process.start_ns = process.start_ns.or(start_ns);
        process.born_ns = process.born_ns.or(snapshot.start_ns);
        if process.end_ns.is_some() {
            return;
        }
        for ThreadSnapshot { tid, comm, start_ns } in &snapshot.threads {
            // /proc counts the first thread from the fork, this row may begin with an exec.
            let start_ns = if *tid == snapshot.pid { self.rows[row as usize].start_ns } else { *start_ns };
            let comm: Arc<str> = Arc::from(comm.as_str());
            match self.thread_of(row, *tid) {
                Some(thread) => self.threads[thread as usize].comm = comm,
                None => {
                    self.start_thread(row, *tid, comm, start_ns);
                }
            }
        }
    }
}

fn is_about(a_ns: i64, b_ns: i64) -> bool {
    a_ns.abs_diff(b_ns) <= START_TOLERANCE_NS as u64
}

fn is_clearly_later(a_ns: i64, b_ns: i64) -> bool {
    a_ns > b_ns.saturating_add(START_TOLERANCE_NS)
}
