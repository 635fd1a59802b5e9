//! One capture: from the options to a spool.

mod clock;
mod command;
mod containers;
mod drain;
mod keeper;
mod options;
mod perf;
mod procfs;
mod programs;
mod ring;
mod sideband;
mod table_maker;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

pub use containers::{Running, running as running_containers};
pub use options::Options;
pub use perf::event_opens;

use crate::error::{Error, Kind, Result};
use crate::spool::{self, Footer, Header, Source};
use crate::symbols::decode;
use command::Command;
use drain::{Drain, Followed, NewCode, Stats, StopSignal};
use keeper::{Keeper, KeeperThread, KeptFiles, Likely, Request, Scan};
use options::TargetKind;
use perf::{Event, Place};
use procfs::BootClock;
use programs::{Programs, Storage};
use ring::Ring;
use sideband::SideBand;
use table_maker::TableMaker;
use tables::TableStore;

/// Side-band rings of all CPUs together; each has at most MAX_SIDEBAND_BYTES.
const SIDEBAND_BYTES: usize = 32 << 20;
const MAX_SIDEBAND_BYTES: usize = 512 << 10;
const MIN_SIDEBAND_BYTES: usize = 32 << 10;

/// Of the capture's threads, which seldom run.
const NICENESS: i32 = -5;

/// New mappings that may wait for the keeper.
const KEEPER_QUEUE: usize = 1 << 16;
/// Processes that the keeper may read ahead of the spool.
const SNAPSHOT_QUEUE: usize = 256;

/// A capture that is open; dropping it detaches everything.
pub struct Capture {
    spool: PathBuf,
    programs: Programs,
    events: Vec<Event>,
    command: Option<Command>,
    argv: Option<Vec<Vec<u8>>>,
    enabled_by_exec: bool,
    /// What the keeper is told when the capture begins.
    scan: Option<(SyncSender<Request>, Scan)>,
    stats: Arc<Stats>,
    stop: Arc<StopSignal>,
    drain: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<KeptFiles>>,
    files: Option<KeptFiles>,
    tables: TableMaker,
    start_ns: u64,
    end_ns: u64,
}

/// What the live line shows.
pub struct Snapshot {
    pub samples: u64,
    pub processes: u64,
    pub lost: u64,
    pub written_bytes: u64,
    pub fill_percent: u64,
    pub first_sample_ns: u64,
}

impl Capture {
    /// Loads, opens and attaches; nothing counts before [`Self::start`].
    pub fn open(options: Options) -> Result<Self> {
        let (cpus, clocks) = (perf::online_cpus()?, clock::read_clocks());
        let mut storage = Storage::uninit();
        let (programs, table_maps) = programs::open(&mut storage, &options, &cpus)?;
        let store = TableStore::new(table_maps).map_err(|e| Error::io("cannot map the unwind tables", &e))?;
        let tables = TableMaker::new(store).map_err(|e| Error::io("cannot start a thread", &e))?;
        // It makes the first tables while the kernel verifies the programs.
        let keeper = start_keeper(&options, clocks, &tables)?;
        let programs = programs.load(&options)?;

        let command = options.target.argv.as_deref().map(Command::spawn).transpose()?;
        let sidebands = open_sidebands(&cpus)?;
        let events = open_sources(&options, &cpus, &programs, command.as_ref(), &sidebands)?;

        let pids = target_pids(&options, command.as_ref());
        let spool = create_spool(&options, &pids, clocks)?;
        let followed = options
            .target
            .is_per_task()
            .then(|| Followed::new(pids.iter().map(|&pid| pid as u32), options.target.inherit));
        let scan = if options.target.is_per_task() { Scan::Pids(pids) } else { Scan::Everything };
        let stop = Arc::new(StopSignal::new().map_err(|e| Error::io("cannot make an eventfd", &e))?);
        let stats = Arc::new(Stats::default());
        let drain = Drain {
            ring_bytes: programs.ring_bytes * programs.rings.len() as u64,
            rings: map_rings(&programs)?,
            sidebands,
            spool,
            stats: Arc::clone(&stats),
            code: NewCode::new(keeper.requests.clone()),
            from_keeper: keeper.records,
            followed,
            stop: Arc::clone(&stop),
        };
        let drain = spawn("sberf-drain", move || drain.run())?;
        Ok(Self {
            spool: options.spool,
            programs,
            events,
            command,
            enabled_by_exec: options.target.kind == TargetKind::Command && !options.delayed,
            argv: options.target.argv,
            scan: Some((keeper.requests, scan)),
            stats,
            stop,
            drain: Some(drain),
            keeper: Some(keeper.thread),
            files: None,
            tables,
            start_ns: 0,
            end_ns: 0,
        })
    }

    /// The process ID of the command, once there is one.
    pub fn command_pid(&self) -> Option<i32> {
        self.command.as_ref().map(|command| command.pid)
    }

    /// Lets the command run, without enabling the events of a delayed capture.
    pub fn release_command(&mut self) -> Result<()> {
        self.command.as_mut().map_or(Ok(()), Command::release)
    }

    /// Enables the events, then lets the command run if it does not yet.
    pub fn start(&mut self) -> Result<()> {
        self.start_ns = clock::monotonic_ns();
        if !self.enabled_by_exec {
            for event in &self.events {
                event.enable().map_err(|e| Error::io("cannot enable an event", &e))?;
            }
        }
        if let Some((keeper, scan)) = self.scan.take() {
            let _ = keeper.send(Request::Scan(scan));
        }
        self.release_command()
    }

    pub fn snapshot(&self) -> Snapshot {
        let read = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        Snapshot {
            samples: read(&self.stats.samples),
            processes: read(&self.stats.processes),
            lost: self.programs.dropped_by_cpu().iter().sum(),
            written_bytes: read(&self.stats.written_bytes),
            fill_percent: read(&self.stats.fill_percent),
            first_sample_ns: read(&self.stats.first_sample_ns),
        }
    }

    /// Why the drain thread had to give up, if it had to.
    pub fn failure(&self) -> Option<String> {
        self.stats.error()
    }

    /// Disables, drains and detaches; the spool is complete afterwards.
    pub fn stop(
        &mut self,
        exit_code: Option<i32>,
        max_sample_rate: Option<u64>,
        mut warnings: Vec<String>,
    ) -> Result<()> {
        let Some(drain) = self.drain.take() else { return Ok(()) };
        for event in &self.events {
            // An event whose task has exited cannot be disabled, and need not be.
            let _ = event.disable();
        }
        self.end_ns = clock::monotonic_ns();
        self.tables.end();
        self.scan = None;
        self.stop.raise();
        let drained = drain.join();
        if let Some(keeper) = self.keeper.take() {
            self.files = keeper.join().ok();
        }
        self.events.clear();
        if drained.is_err() {
            return Err(Error::new(
                Kind::Capture,
                "the drain thread panicked; `sberf recover` reads what it wrote",
            ));
        }
        warnings.extend(self.tables.warnings());
        let footer = Footer {
            start_ns: if self.start_ns == 0 { self.end_ns } else { self.start_ns },
            end_ns: self.end_ns,
            command: self.argv.take().map(|argv| spool::Command {
                argv: argv.iter().map(|word| decode(word).into_owned()).collect(),
                exit_code,
            }),
            dropped_by_cpu: self.programs.dropped_by_cpu(),
            missed_samples: self.programs.missed_runs(),
            max_sample_rate,
            tables: self.tables.counts(),
            warnings,
        };
        write_json(&self.spool.join("footer.json"), &footer)
    }

    /// The spool and the files that were kept; only after [`Self::stop`].
    pub fn result(&self) -> Option<(&Path, &KeptFiles)> {
        Some((&self.spool, self.files.as_ref()?))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.tables.end();
        self.scan = None;
        self.stop.raise();
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}

fn start_keeper(options: &Options, clocks: spool::Clock, tables: &TableMaker) -> Result<KeeperThread> {
    let (requests, asked) = sync_channel(KEEPER_QUEUE);
    let (to_drain, records) = sync_channel(SNAPSHOT_QUEUE);
    let suspended_ns = clocks.boottime_ns.saturating_sub(clocks.monotonic_ns) as i64;
    let kept_files = keeper::raise_open_files();
    let keeper = Keeper::new(BootClock::new(suspended_ns), to_drain, kept_files, tables.clone());
    let likely = likely_to_be_sampled(options);
    if options.use_tables {
        tables.prepare();
    }
    let thread = spawn("sberf-keeper", move || keeper.run(&asked, likely))?;
    Ok(KeeperThread { thread, requests, records })
}

/// A command's files are known once it runs.
fn likely_to_be_sampled(options: &Options) -> Likely {
    match options.target.kind {
        _ if !options.use_tables => Likely::Pids(Vec::new()),
        TargetKind::All | TargetKind::Cgroup | TargetKind::Container => Likely::Running,
        TargetKind::Pids | TargetKind::Tids | TargetKind::Command => Likely::Pids(target_pids(options, None)),
    }
}

fn open_sidebands(cpus: &[u16]) -> Result<Vec<SideBand>> {
    let per_cpu = (SIDEBAND_BYTES / cpus.len()).clamp(MIN_SIDEBAND_BYTES, MAX_SIDEBAND_BYTES);
    let per_cpu = 1usize << per_cpu.ilog2();
    let open = |&cpu: &u16| {
        let event =
            perf::open_sideband(cpu, per_cpu / 4).map_err(|e| perf::explain("dummy", Place::Cpu(cpu), &e))?;
        let sideband = SideBand::new(cpu, event, per_cpu).map_err(|e| {
            Error::io("cannot map a perf ring", &e)
                .hint("give CAP_IPC_LOCK, or raise kernel.perf_event_mlock_kb")
        })?;
        sideband.event().enable().map_err(|e| Error::io("cannot enable the side-band", &e))?;
        Ok(sideband)
    };
    cpus.iter().map(open).collect()
}

fn open_sources(
    options: &Options,
    online: &[u16],
    programs: &Programs,
    command: Option<&Command>,
    sidebands: &[SideBand],
) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for (index, source) in options.sources.iter().enumerate() {
        let mut open = |place| -> std::io::Result<()> {
            let event = perf::open_source(source, place, &options.target, options.delayed)?;
            event.set_program(programs.on_sample(index))?;
            if let Place::Cpu(cpu) = place
                && let Some(sideband) = sidebands.iter().find(|sideband| sideband.cpu == cpu)
            {
                event.redirect_to(sideband.event())?;
            }
            events.push(event);
            Ok(())
        };
        if options.target.is_per_task() {
            open_on_tasks(options, command, &source.event, &mut open)?;
        } else {
            for &cpu in options.target.cpus.as_deref().unwrap_or(online) {
                open(Place::Cpu(cpu)).map_err(|e| perf::explain(&source.event, Place::Cpu(cpu), &e))?;
            }
        }
    }
    Ok(events)
}

/// Opens the event on each thread of the targets; threads that come meanwhile are found by looking again.
fn open_on_tasks(
    options: &Options,
    command: Option<&Command>,
    event: &str,
    open: &mut dyn FnMut(Place) -> std::io::Result<()>,
) -> Result<()> {
    let explain = |tid, e: &std::io::Error| perf::explain(event, Place::Task(tid), e);
    for &tid in &options.target.tids {
        open(Place::Task(tid)).map_err(|e| explain(tid, &e))?;
    }
    if options.target.kind == TargetKind::Command
        && let Some(command) = command
    {
        open(Place::Task(command.pid)).map_err(|e| explain(command.pid, &e))?;
    }
    for &pid in &options.target.pids {
        let mut seen = std::collections::HashSet::new();
        let mut opened = 0;
        loop {
            let fresh: Vec<i32> =
                procfs::tids(pid).unwrap_or_default().into_iter().filter(|tid| seen.insert(*tid)).collect();
            if fresh.is_empty() {
                break;
            }
            for tid in fresh {
                match open(Place::Task(tid)) {
                    Ok(()) => opened += 1,
                    // This thread exited between the look at the directory and now.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(explain(tid, &error)),
                }
            }
        }
        if opened == 0 {
            return Err(Error::new(
                Kind::Target,
                format!("process {pid} exited before it could be recorded"),
            ));
        }
    }
    Ok(())
}

fn target_pids(options: &Options, command: Option<&Command>) -> Vec<i32> {
    let target = &options.target;
    let command_pid = command.filter(|_| target.kind == TargetKind::Command).map(|command| command.pid);
    let processes_of_tids = target.tids.iter().filter_map(|tid| {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
    });
    let mut pids: Vec<i32> =
        target.pids.iter().copied().chain(command_pid).chain(processes_of_tids).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn create_spool(options: &Options, targets: &[i32], clock: spool::Clock) -> Result<fs::File> {
    let doing = |what: &Path| format!("cannot create '{}'", what.display());
    fs::create_dir(&options.spool).map_err(|e| Error::io(doing(&options.spool), &e))?;
    let header = Header {
        format: spool::FORMAT.to_string(),
        version: spool::VERSION,
        sberf_version: options.sberf_version.clone(),
        boot_id: boot_id(),
        host: options.host.clone(),
        command_line: options.command_line.clone(),
        clock,
        target: options.target.description.clone(),
        sources: options.sources.iter().map(|source| describe_source(options, source)).collect(),
        max_sample_rate: options.max_sample_rate,
        targets: (!options.target.is_system_wide()).then(|| targets.to_vec()),
    };
    write_json(&options.spool.join("header.json"), &header)?;
    let events = options.spool.join("events");
    let file = fs::File::create_new(&events).map_err(|e| Error::io(doing(&events), &e))?;
    if let Some((uid, gid)) = options.owner {
        for path in [&options.spool, &options.spool.join("header.json"), &events] {
            // Ownership is a courtesy; a file system without owners is no reason to fail.
            let _ = std::os::unix::fs::chown(path, Some(uid), Some(gid));
        }
    }
    Ok(file)
}

fn describe_source(options: &Options, source: &options::SourceOptions) -> Source {
    Source {
        event: source.event.clone(),
        unit: source.unit.clone(),
        frequency_hz: source.frequency_hz,
        period: programs::source_period(source.frequency_hz, source.period, &source.unit),
        user: source.user,
        kernel: source.kernel,
        max_depth: options.max_user_frames,
    }
}

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

fn map_rings(programs: &Programs) -> Result<Vec<Ring>> {
    let map = |ring| {
        let ring = libbpf_rs::MapHandle::try_from(ring).map_err(std::io::Error::other)?;
        Ring::new(ring, programs.ring_bytes as usize)
    };
    let rings = programs.rings.iter().map(map).collect::<std::io::Result<_>>();
    rings.map_err(|e| Error::io("cannot map a ring buffer", &e))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).expect("plain structures become JSON");
    fs::write(path, json).map_err(|e| Error::io(format!("cannot write '{}'", path.display()), &e))
}

/// Starts a thread that is preferred.
fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let thread = std::thread::Builder::new().name(name.to_string()).spawn(|| {
        prefer_this_thread();
        body()
    });
    thread.map_err(|e| Error::io("cannot start a thread", &e))
}

/// Runs before other work from now on, where we may: at full load others would keep a thread waiting for tens
/// of milliseconds, in which rings fill, processes exit and tables are missing.
fn prefer_this_thread() {
    // SAFETY: no pointers; on Linux it is this thread's value, and a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// This thread runs before other work as long as the value lives.
struct Preferred(i32);

impl Preferred {
    fn begin() -> Self {
        // SAFETY: no pointers; on Linux it is this thread's value.
        let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        prefer_this_thread();
        Self(before)
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.0) };
    }
}
