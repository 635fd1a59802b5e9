//! The drain thread: moves raw records from the rings to the spool.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock::monotonic_ns;
use super::keeper;
use super::ring::Ring;
use super::sideband::SideBand;
use crate::error::describe;
use crate::perf_record::{self, SideBody};
use crate::spool::SpoolWriter;
use crate::wire::{self, Cgroup, Exec, RawSample, Wanted};

/// Rounds are at most this far apart, so a kill loses no more and the live line stays fresh.
const ROUND_INTERVAL: Duration = Duration::from_millis(250);
/// The round after one that told of new files: more of them follow, and they may be deleted at once.
/// Then each is `BACK_OFF` times as far away, until they are `ROUND_INTERVAL` apart again.
const NEWS_INTERVAL: Duration = Duration::from_millis(10);
const BACK_OFF: u32 = 5;
/// Files and processes that are remembered as known; then the memory begins anew.
const MAX_KNOWN: usize = 1 << 16;
/// So many processes are asked what their container is, if its cgroups were not told: the first may be gone
/// before it is looked at.
const MAX_QUESTIONS: u8 = 3;
/// Cgroups that wait for a program that is run in them.
const MAX_WAITING_CGROUPS: usize = 256;
/// What is pending reaches the file at least so often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes taken from a ring before the next one and the spool are looked after.
const BATCH_LEN: u64 = 256 << 10;
/// PID_MAX_LIMIT of include/linux/threads.h.
const MAX_PIDS: usize = 4 << 20;
/// Batches in a round: producers that never pause must not keep it from ending.
const MAX_BATCHES: usize = 256;
/// Wake-ups taken at once; more of them begin the next round.
const MAX_WAKEUPS: usize = 64;

/// What the live line shows; written by the drain thread, read by anyone.
#[derive(Default)]
pub struct Stats {
    pub samples: AtomicU64,
    pub processes: AtomicU64,
    pub written_bytes: AtomicU64,
    /// The fullest that the rings were in one round, in percent of all.
    pub fill_percent: AtomicU64,
    /// When the first sample was taken; 0: none yet.
    pub first_sample_ns: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Stats {
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: String) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Everything that the thread owns.
pub struct Drain {
    pub sidebands: Vec<SideBand>,
    pub rings: Vec<Ring>,
    pub ring_bytes: u64,
    pub spool: File,
    pub stats: Arc<Stats>,
    pub code: NewCode,
    pub from_keeper: Receiver<Vec<u8>>,
    /// None: the side-band of every process is kept.
    pub followed: Option<Followed>,
    pub stop: Arc<StopSignal>,
}

/// Ends the thread at once, also while it waits.
pub struct StopSignal {
    flag: AtomicBool,
    event: OwnedFd,
}

impl StopSignal {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor.
        Ok(Self { flag: AtomicBool::new(false), event: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    pub fn raise(&self) {
        self.flag.store(true, Ordering::Release);
        // SAFETY: eight bytes from a live buffer to a descriptor that we own.
        unsafe { libc::write(self.event.as_raw_fd(), 1u64.to_ne_bytes().as_ptr().cast(), 8) };
    }

    fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// The spool and what is counted on the way into it.
struct Inbox {
    spool: SpoolWriter<File>,
    samples: u64,
    /// Bytes that came from the rings in this round.
    round_bytes: u64,
    first_sample_ns: u64,
    processes: PidSet,
    last_tgid: u32,
    wanted: Vec<Wanted>,
    /// Programs that were run: the keys of their containers, and their processes.
    execs: Vec<(u64, i32)>,
    cgroups: Vec<Cgroup>,
}

impl Inbox {
    fn new(spool: SpoolWriter<File>) -> Self {
        let processes = PidSet::default();
        Self {
            spool,
            samples: 0,
            round_bytes: 0,
            first_sample_ns: 0,
            processes,
            last_tgid: u32::MAX,
            wanted: Vec::new(),
            execs: Vec::new(),
            cgroups: Vec::new(),
        }
    }

    fn push(&mut self, record: &[u8]) {
        let Some(sample) = RawSample::read(record) else {
            if wire::is_stack_copy(record) {
                return self.spool.push_copy(record);
            }
            self.spool.buffer().extend_from_slice(record);
            self.wanted.extend(Wanted::read(record));
            self.execs.extend(Exec::read_key(record));
            self.cgroups.extend(Cgroup::read(record));
            return;
        };
        self.spool.push_sample(&sample);
        self.samples += 1;
        let tgid = sample.tgid();
        if tgid != self.last_tgid {
            self.last_tgid = tgid;
            self.processes.insert(tgid);
        }
        if self.first_sample_ns == 0 {
            self.first_sample_ns = sample.ts_ns;
        }
    }
}

/// Counts distinct process IDs in bounded memory: a bit each, 512 KiB for the kernel's largest pid_max.
#[derive(Default)]
struct PidSet {
    bits: Vec<u64>,
    len: u64,
}

impl PidSet {
    fn insert(&mut self, pid: u32) {
        let (word, bit) = (pid as usize / 64, 1u64 << (pid % 64));
        if word >= MAX_PIDS / 64 {
            return; // no kernel gives such a process ID
        }
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.len += u64::from(self.bits[word] & bit == 0);
        self.bits[word] |= bit;
    }
}

impl Drain {
    /// Runs until the stop signal, then drains what is left.
    pub fn run(mut self) {
        let file = self.spool.try_clone().expect("a descriptor can be duplicated");
        let mut inbox = Inbox::new(SpoolWriter::new(file));
        let wakeups = match Wakeups::new(&self.sidebands, &self.rings, &self.stop) {
            Ok(wakeups) => wakeups,
            Err(error) => {
                return self.stats.set_error(format!("cannot wait for events: {}", describe(&error)));
            }
        };
        let mut flushed = Instant::now();
        let mut interval = NEWS_INTERVAL;
        loop {
            // Read before the round: what was written before the signal is drained by this round.
            let stopping = self.stop.is_raised();
            let news = self.round(&mut inbox);
            interval = if news { NEWS_INTERVAL } else { ROUND_INTERVAL.min(BACK_OFF * interval) };
            if stopping || self.stats.error().is_some() {
                break;
            }
            let due = flushed.elapsed() >= FLUSH_INTERVAL;
            self.write(&mut inbox, due);
            if due {
                flushed = Instant::now();
            }
            wakeups.wait(interval);
        }
        self.finish(inbox);
    }

    /// Ends the keeper, takes what it still has to say, and completes the spool.
    fn finish(self, mut inbox: Inbox) {
        let Self { code, from_keeper, stats, .. } = self;
        drop(code);
        while let Ok(record) = from_keeper.recv() {
            inbox.spool.buffer().extend_from_slice(&record);
        }
        if stats.error().is_none()
            && let Err(error) = inbox.spool.flush()
        {
            stats.set_error(spool_error(&error));
        }
        stats.written_bytes.store(inbox.spool.written_bytes(), Ordering::Relaxed);
    }

    /// Empties all rings once; was a file mapped that nobody knew?
    fn round(&mut self, inbox: &mut Inbox) -> bool {
        let round_ns = monotonic_ns();
        inbox.round_bytes = 0;
        let news = self.drain_sidebands(inbox);
        for _ in 0..MAX_BATCHES {
            let mut more = false;
            for ring in &mut self.rings {
                let len = ring.consume(BATCH_LEN, |record| inbox.push(record));
                inbox.round_bytes += len;
                more |= len >= BATCH_LEN;
            }
            if !more {
                break;
            }
            self.write(inbox, false);
        }
        inbox.wanted.retain(|wanted| !self.code.want(*wanted));
        // A program's record follows those of its container.
        for (container_key, pid) in inbox.execs.drain(..) {
            let is_its = |cgroup: &mut Cgroup| cgroup.container_key == container_key;
            self.code.ran(container_key, pid, inbox.cgroups.extract_if(.., is_its).collect());
        }
        inbox.cgroups.truncate(MAX_WAITING_CGROUPS);
        while let Ok(record) = self.from_keeper.try_recv() {
            inbox.spool.buffer().extend_from_slice(&record);
        }
        wire::push_round(inbox.spool.buffer(), round_ns);
        self.publish(inbox);
        news
    }

    fn publish(&self, inbox: &Inbox) {
        let stats = &self.stats;
        let capacity = self.ring_bytes.max(1);
        stats.samples.store(inbox.samples, Ordering::Relaxed);
        stats.processes.store(inbox.processes.len, Ordering::Relaxed);
        stats.written_bytes.store(inbox.spool.written_bytes(), Ordering::Relaxed);
        stats.fill_percent.fetch_max((100 * inbox.round_bytes / capacity).min(100), Ordering::Relaxed);
        stats.first_sample_ns.store(inbox.first_sample_ns, Ordering::Relaxed);
    }

    fn write(&self, inbox: &mut Inbox, now: bool) {
        let spool = &mut inbox.spool;
        if let Err(error) = if now { spool.flush() } else { spool.flush_if_full() } {
            self.stats.set_error(spool_error(&error));
        }
    }

    fn drain_sidebands(&mut self, inbox: &mut Inbox) -> bool {
        let out = inbox.spool.buffer();
        let (mut news, followed, code) = (false, &mut self.followed, &mut self.code);
        for sideband in &mut self.sidebands {
            let cpu = sideband.cpu;
            sideband.drain(|bytes| match followed {
                Some(followed) => followed.hold(cpu, bytes),
                None => news |= code.forward(cpu, bytes, out),
            });
        }
        if let Some(followed) = followed {
            followed.release(|cpu, bytes| news |= code.forward(cpu, bytes, out));
        }
        news
    }
}

fn spool_error(error: &io::Error) -> String {
    format!("cannot write the spool: {}", describe(error))
}

/// Tells the keeper of code that it has not seen yet.
pub struct NewCode {
    to_keeper: SyncSender<keeper::Request>,
    /// Of files whose identity a build-id makes certain: `perf_record::file_identity`.
    files: HashSet<u64, ahash::RandomState>,
    /// Processes with code that they generated.
    generating: HashSet<u32>,
    /// How often each key of a container was asked for.
    containers: HashMap<u64, u8, ahash::RandomState>,
}

impl NewCode {
    pub fn new(to_keeper: SyncSender<keeper::Request>) -> Self {
        let (files, containers) = (HashSet::default(), HashMap::default());
        Self { to_keeper, files, generating: HashSet::new(), containers }
    }

    /// False: the keeper cannot keep up.  The unwinder asks once, so it must be told later.
    fn want(&self, wanted: Wanted) -> bool {
        !matches!(self.to_keeper.try_send(keeper::Request::MakeTable(wanted)), Err(TrySendError::Full(_)))
    }

    /// Asks what the container of a process is that has run a program.
    fn ran(&mut self, container_key: u64, pid: i32, cgroups: Vec<Cgroup>) {
        if self.containers.len() >= MAX_KNOWN {
            self.containers.clear();
        }
        let asked = self.containers.entry(container_key).or_default();
        if *asked < MAX_QUESTIONS {
            *asked = if cgroups.is_empty() { *asked + 1 } else { MAX_QUESTIONS };
            // As in `forward`: what is not told is not known.
            let _ = self.to_keeper.try_send(keeper::Request::Explain { container_key, pid, cgroups });
        }
    }

    /// Spools a side-band record; does it tell of a file that nobody knew?
    fn forward(&mut self, cpu: u16, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let identity = perf_record::file_identity(bytes);
        if identity.is_some_and(|identity| self.files.contains(&identity)) {
            wire::push_perf(out, cpu, bytes); // most of what a busy build maps
            return false;
        }
        let Some(record) = perf_record::parse(bytes) else { return false };
        let mapped = match record.body {
            SideBody::Other => return false,
            SideBody::Mmap { pid, start, end, file, raw_path, .. }
                if self.is_new(pid, identity, raw_path) =>
            {
                Some(keeper::Mapped { pid: pid as i32, start, end, file, raw_path: raw_path.to_vec() })
            }
            SideBody::Comm { pid, exec: true, .. } => {
                self.generating.remove(&pid);
                None
            }
            _ => None,
        };
        wire::push_perf(out, cpu, bytes);
        let news = mapped.is_some();
        if let Some(mapped) = mapped {
            // A keeper that cannot keep up costs names, never samples, and never memory.
            let _ = self.to_keeper.try_send(keeper::Request::Keep(mapped));
        }
        news
    }

    fn is_new(&mut self, pid: u32, identity: Option<u64>, raw_path: &[u8]) -> bool {
        if self.files.len() + self.generating.len() > MAX_KNOWN {
            self.files.clear();
            self.generating.clear();
        }
        match identity {
            Some(identity) => self.files.insert(identity),
            None if keeper::is_generated(raw_path) => self.generating.insert(pid),
            None => keeper::is_file(raw_path), // [vdso] and the like are none
        }
    }
}

/// The processes whose side-band a capture of chosen processes keeps, and their descendants.
pub struct Followed {
    pids: HashSet<u32>,
    inherit: bool,
    held: Vec<(u16, Vec<u8>)>,
    /// Records of unknown processes wait for one round: the fork may lie in another CPU's ring.
    unknown: Vec<(u16, Vec<u8>)>,
}

impl Followed {
    pub fn new(pids: impl IntoIterator<Item = u32>, inherit: bool) -> Self {
        Self { pids: pids.into_iter().collect(), inherit, held: Vec::new(), unknown: Vec::new() }
    }

    fn hold(&mut self, cpu: u16, bytes: &[u8]) {
        self.held.push((cpu, bytes.to_vec()));
    }

    /// Learns the round's forks, then hands on what belongs to followed processes.
    fn release(&mut self, mut forward: impl FnMut(u16, &[u8])) {
        let (waiting, fresh) = (std::mem::take(&mut self.unknown), std::mem::take(&mut self.held));
        let mut forks: Vec<(u64, u32, u32)> =
            waiting.iter().chain(&fresh).filter_map(|(_, r)| fork_of(r)).collect();
        forks.sort_unstable();
        for (_, pid, parent) in forks {
            if pid == parent {
                continue;
            }
            if self.inherit && self.pids.contains(&parent) {
                self.pids.insert(pid);
            } else {
                self.pids.remove(&pid); // the PID of a followed process was given to another
            }
        }
        for (cpu, bytes) in waiting {
            if self.wants(&bytes) {
                forward(cpu, &bytes);
            }
        }
        for (cpu, bytes) in fresh {
            if self.wants(&bytes) {
                forward(cpu, &bytes);
            } else {
                self.unknown.push((cpu, bytes));
            }
        }
    }

    fn wants(&self, bytes: &[u8]) -> bool {
        match perf_record::parse(bytes).map(|record| record.body) {
            Some(
                SideBody::Mmap { pid, .. }
                | SideBody::Comm { pid, .. }
                | SideBody::Fork { pid, .. }
                | SideBody::Exit { pid, .. },
            ) => self.pids.contains(&pid),
            Some(SideBody::Lost { .. } | SideBody::Throttle | SideBody::KernelSymbol { .. }) => true,
            Some(SideBody::Other) | None => false,
        }
    }
}

fn fork_of(bytes: &[u8]) -> Option<(u64, u32, u32)> {
    let record = perf_record::parse(bytes)?;
    match record.body {
        SideBody::Fork { pid, parent_pid, .. } => Some((record.ts_ns, pid, parent_pid)),
        _ => None,
    }
}

/// What ends the wait for the next round early: a ring that fills, a program that was never run before
/// (bpf/exec.bpf.h), the stop signal.
struct Wakeups(OwnedFd);

impl Wakeups {
    fn new(sidebands: &[SideBand], rings: &[Ring], stop: &StopSignal) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor.
        let wakeups = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        for fd in sidebands.iter().map(SideBand::fd).chain(rings.iter().map(Ring::fd)) {
            // Edge-triggered: a BPF ring is "readable" when it holds a single record.
            wakeups.add(fd, libc::EPOLLIN | libc::EPOLLET)?;
        }
        wakeups.add(stop.event.as_raw_fd(), libc::EPOLLIN)?;
        Ok(wakeups)
    }

    fn add(&self, fd: RawFd, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        // SAFETY: both descriptors are open, and `event` is a whole structure.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait(&self, timeout: Duration) {
        const EMPTY: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };
        let mut events = [EMPTY; MAX_WAKEUPS];
        // SAFETY: `events` is a live array of that many elements.  A signal only begins a round early.
        unsafe {
            let (room, timeout) = (events.len() as i32, timeout.as_millis() as i32);
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, timeout)
        };
    }
}
