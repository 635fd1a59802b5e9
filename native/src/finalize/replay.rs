//! The second pass over a spool: everything in the order of time.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::FileStore;
use super::address_space::{Files, Map};
use super::code::{Code, ModuleKind};
use super::copies;
use super::generated::PerfMaps;
use super::jitdumps::Jitdumps;
use super::kernel::Kernel;
use super::mapped::{MappedCode, Place};
use super::order::TimeOrder;
use super::processes::{PerfMapOf, Processes, Program};
use super::stacks::{Resolve, StackRows, Stacks};
use super::survey::{self, Containers, Survey};
use super::tables::{Rows, SAMPLES_IN_GROUP, SampleRows};
use crate::arguments;
use crate::error::Result;
use crate::perf_record::{self, SideBody};
use crate::spool::{Header, SpoolReader};
use crate::symbols;
use crate::unwind::Table;
use crate::wire::{self, ProcessSnapshot, Record, Sample, StackCopy};

const STACKS_IN_BATCH: usize = 1 << 15;
const NO_MAPPING: &str = "none: the address lies in no known mapping";

/// What waits for its turn.
enum Event {
    Sample(Sample),
    Perf(Box<[u8]>),
    Process(Box<ProcessSnapshot>),
    Exec(Exec),
}

struct Exec {
    pid: i32,
    ns_pid: i32,
    container_key: u64,
    cmdline: Option<Box<str>>,
}

/// What the replay leaves.
pub struct Replayed {
    pub processes: Processes,
    pub code: Code,
    /// Samples of which a part of the stack is missing.
    pub unresolved: u64,
    /// Samples that came after everything around them had been written.
    pub late: u64,
    /// What is wrong with the names of generated code.
    pub name_warnings: Vec<String>,
}

/// Replays the spool; rows of samples and stacks go to `rows`.
pub fn replay(
    spool: &Path,
    header: &Header,
    survey: &Survey,
    kernel: Kernel,
    store: &dyn FileStore,
    rows: SyncSender<Rows>,
) -> Result<Replayed> {
    let mut reader = survey::open(spool)?;
    let same_boot = header.boot_id == super::kernel::boot_id();
    let mut replay = Replay {
        world: World {
            files: &survey.files,
            containers: &survey.containers,
            processes: Processes::new(header.targets.as_deref().unwrap_or_default(), &survey.files),
            code: Code::default(),
            kernel,
            mapped: MappedCode::new(&survey.files, store, same_boot),
            jitdumps: Jitdumps::new(&survey.files, store),
            perf_maps: PerfMaps::new(store, &header.clock),
            max_user_frames: header.sources.iter().map(|source| source.max_depth).max().unwrap_or(1) as usize,
        },
        stacks: Stacks::new(&survey.bodies),
        samples: Samples::new(header, rows),
        unresolved: 0,
    };
    replay.world.processes.begin(&survey.initial);
    replay.read(&mut reader);
    replay.samples.finish(&mut replay.stacks.rows);
    let World { processes, code, jitdumps, perf_maps, .. } = replay.world;
    let name_warnings = [jitdumps.warnings(), perf_maps.warnings()].concat();
    let (unresolved, late) = (replay.unresolved, replay.samples.late);
    Ok(Replayed { processes, code, unresolved, late, name_warnings })
}

/// The record's time, what to do then, and how many bytes that holds.
fn event_of(record: Record<'_>) -> Option<(u64, Event, usize)> {
    let (ts_ns, event, bytes) = match record {
        Record::Sample(sample) => (sample.ts_ns, Event::Sample(sample), 0),
        Record::Perf { bytes, .. } => {
            (perf_record::parse(bytes)?.ts_ns, Event::Perf(bytes.into()), bytes.len())
        }
        Record::Process(json) => {
            let snapshot: ProcessSnapshot = serde_json::from_slice(json).ok()?;
            (snapshot.ts_ns, Event::Process(Box::new(snapshot)), json.len())
        }
        Record::Exec(wire::Exec { ts_ns, pid, ns_pid, container_key, arguments, .. }) => {
            let cmdline = arguments::quote(arguments).map(String::into_boxed_str);
            let exec = Exec { pid: pid as i32, ns_pid: ns_pid as i32, container_key, cmdline };
            (ts_ns, Event::Exec(exec), arguments.len())
        }
        Record::Stack(_)
        | Record::StackCopy(_)
        | Record::Container(_)
        | Record::Asked { .. }
        | Record::Round { .. } => return None,
    };
    // Times are signed in the tables.
    i64::try_from(ts_ns).is_ok().then_some((ts_ns, event, bytes))
}

struct Replay<'a> {
    world: World<'a>,
    stacks: Stacks<'a>,
    samples: Samples,
    unresolved: u64,
}

impl Replay<'_> {
    fn read(&mut self, reader: &mut SpoolReader) {
        let mut order = TimeOrder::new();
        survey::for_each_record(reader, |record| {
            if let Record::Round { ts_ns } = record {
                order.round(ts_ns, |ts_ns, event| self.event(ts_ns, event));
                self.world.processes.forget_dead();
            } else if let Some((ts_ns, event, bytes)) = event_of(record) {
                // What happened at the moment of a sample counts for it.
                let follows = matches!(event, Event::Sample(_));
                order.push(ts_ns, follows, event, bytes);
                if order.is_full() {
                    order.relieve(|ts_ns, event| self.event(ts_ns, event));
                    self.world.processes.forget_dead();
                }
            }
        });
        order.finish(|ts_ns, event| self.event(ts_ns, event));
    }

    fn event(&mut self, ts_ns: u64, event: Event) {
        match event {
            Event::Sample(sample) => self.sample(&sample),
            Event::Perf(bytes) => self.side_band(&bytes),
            Event::Process(snapshot) => self.world.snapshot(&snapshot),
            Event::Exec(exec) => self.world.exec(ts_ns, &exec),
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if !self.samples.takes(sample) {
            return;
        }
        let processes = &mut self.world.processes;
        let thread = processes.sampled_thread(sample.ts_ns as i64, sample.tgid as i32, sample.tid as i32);
        let thread = &processes.threads[thread as usize];
        let (row, thread_id) = (thread.process, thread.key.expect("a sampled thread has a key"));
        let mut view = View { world: &mut self.world, row, ts_ns: sample.ts_ns };
        let resolved = self.stacks.resolve(sample, &mut view);
        self.unresolved += u64::from(resolved.lost);
        self.samples.add(sample, thread_id, resolved.stack_id, &mut self.stacks.rows);
    }

    fn side_band(&mut self, bytes: &[u8]) {
        let Some(record) = perf_record::parse(bytes) else { return };
        let ts_ns = record.ts_ns as i64;
        let World { processes, files, kernel, .. } = &mut self.world;
        match record.body {
            SideBody::Mmap { pid, start, end, file_offset, file, .. } => {
                if let Some(file) = files.find(&file) {
                    processes.mmap(ts_ns, pid as i32, Map { start, end, file_offset, file }, files);
                }
            }
            SideBody::Comm { pid, tid, comm, exec } => {
                processes.comm(ts_ns, pid as i32, tid as i32, Arc::from(symbols::decode(comm)), exec);
            }
            SideBody::Fork { pid, parent_pid, tid } => {
                processes.fork(ts_ns, pid as i32, parent_pid as i32, tid as i32);
            }
            SideBody::Exit { pid, tid } => processes.exit(ts_ns, pid as i32, tid as i32),
            SideBody::KernelSymbol { start, len, .. } if kernel.changed(start, len) => self.stacks.forget(),
            _ => {}
        }
    }
}

/// Everything that gives addresses their meaning.
struct World<'a> {
    files: &'a Files,
    containers: &'a Containers,
    processes: Processes,
    code: Code,
    kernel: Kernel,
    mapped: MappedCode<'a>,
    jitdumps: Jitdumps<'a>,
    perf_maps: PerfMaps<'a>,
    max_user_frames: usize,
}

impl World<'_> {
    fn snapshot(&mut self, snapshot: &ProcessSnapshot) {
        let known = |map: &crate::wire::Mapping| {
            let file = self.files.find(&map.file)?;
            Some(Map { start: map.start, end: map.end, file_offset: map.file_offset, file })
        };
        let maps: Vec<Map> = snapshot.maps.iter().flatten().filter_map(known).collect();
        self.processes.snapshot(snapshot, &maps);
    }

    fn exec(&mut self, ts_ns: u64, exec: &Exec) {
        let program = Program {
            ns_pid: (exec.ns_pid > 0).then_some(exec.ns_pid),
            container: self.containers.of(exec.container_key),
            cmdline: exec.cmdline.as_deref(),
        };
        self.processes.runs(ts_ns as i64, exec.pid, &program);
    }
}

/// The world as one process sees it at one moment.
pub struct View<'v, 'a> {
    world: &'v mut World<'a>,
    row: u32,
    ts_ns: u64,
}

impl View<'_, '_> {
    /// The mapping of code at an address.
    pub fn map_of(&self, address: u64) -> Option<Map> {
        self.world.processes.rows[self.row as usize].space.find(address).copied()
    }

    /// Of a stack, the leaf included.
    pub fn max_user_frames(&self) -> usize {
        self.world.max_user_frames
    }

    /// What a mapping holds, and its unwind table if it has one.
    pub fn table_of(&mut self, map: &Map) -> (Place, Option<Arc<Table>>) {
        let World { code, mapped, .. } = &mut *self.world;
        let place = mapped.place(code, map);
        (place, mapped.table(code, place))
    }
}

impl Resolve for View<'_, '_> {
    fn version(&mut self) -> u64 {
        let World { processes, jitdumps, perf_maps, .. } = &mut *self.world;
        if processes.rows[self.row as usize].perf_map == PerfMapOf::Unchecked {
            perf_maps.check(processes, self.row);
        }
        jitdumps.advance(processes, self.row, self.ts_ns);
        processes.rows[self.row as usize].space.version()
    }

    fn kernel_frame(&mut self, address: u64, is_return: bool) -> u32 {
        let World { kernel, code, .. } = &mut *self.world;
        kernel.frame(code, self.ts_ns, address, is_return)
    }

    fn user_frame(&mut self, address: u64, is_return: bool) -> u32 {
        let World { processes, code, mapped, jitdumps, perf_maps, .. } = &mut *self.world;
        // A call at the very end of a mapping returns to the byte behind it.
        let in_code = address.wrapping_sub(u64::from(is_return));
        let map = processes.rows[self.row as usize].space.find(in_code).copied();
        let module = match map.map(|map| (map, mapped.place(code, &map))) {
            Some((map, Place::File(module))) => {
                let offset = map.file_offset.wrapping_add(address - map.start);
                return code.frame(module, offset, is_return, super::code::NO_NAME);
            }
            Some((map, Place::Vdso(module))) => {
                return mapped.vdso_frame(code, module, address - map.start, is_return);
            }
            Some((_, Place::Generated(module))) => Some(module),
            None => None,
        };
        let dumps = &processes.rows[self.row as usize].dumps;
        if let Some(frame) = jitdumps.frame(code, dumps, self.ts_ns, address, is_return) {
            return frame;
        }
        if let Some(frame) = perf_maps.frame(code, processes, self.row, address, is_return) {
            return frame;
        }
        let module =
            module.unwrap_or_else(|| code.named_module("[unknown]", ModuleKind::Unknown, NO_MAPPING));
        code.frame(module, address, is_return, super::code::NO_NAME)
    }

    fn unwind(&mut self, copy: &StackCopy<'_>, found: usize) -> (Vec<u64>, u8) {
        copies::unwind(self, copy, found)
    }

    fn may_be_code(&self, address: u64) -> bool {
        let space = &self.world.processes.rows[self.row as usize].space;
        space.is_empty() || space.find(address).is_some()
    }

    fn identity(&self, frame: u32) -> u64 {
        self.world.code.frames[frame as usize].identity
    }
}

/// Gathers samples into row groups.
struct Samples {
    rows: SampleRows,
    out: SyncSender<Rows>,
    /// By source: what a sample without a weight of its own stands for.
    periods: Vec<u64>,
    is_sorted: bool,
    last_ns: i64,
    /// Rows before this time have been written.
    written_ns: i64,
    late: u64,
}

impl Samples {
    fn new(header: &Header, out: SyncSender<Rows>) -> Self {
        let periods = header.sources.iter().map(|source| source.period.unwrap_or(1)).collect();
        let rows = SampleRows::new();
        Self { rows, out, periods, is_sorted: true, last_ns: i64::MIN, written_ns: i64::MIN, late: 0 }
    }

    /// Can the sample still be put in its place, and is its event known?
    fn takes(&mut self, sample: &Sample) -> bool {
        let is_late = (sample.ts_ns as i64) < self.written_ns;
        self.late += u64::from(is_late);
        !is_late && usize::from(sample.source) < self.periods.len()
    }

    fn add(&mut self, sample: &Sample, thread_id: u32, stack_id: u64, stacks: &mut StackRows) {
        let ts_ns = sample.ts_ns as i64;
        self.is_sorted &= ts_ns >= self.last_ns;
        self.last_ns = self.last_ns.max(ts_ns);
        self.rows.ts_ns.push(ts_ns);
        self.rows.cpu.push(sample.cpu);
        self.rows.thread_id.push(thread_id);
        self.rows.event.push(sample.source);
        self.rows.stack_id.push(stack_id);
        self.rows.weight.push(sample.weight.unwrap_or(self.periods[usize::from(sample.source)]));
        if self.rows.len() == SAMPLES_IN_GROUP {
            self.flush();
        }
        if stacks.ids.len() >= STACKS_IN_BATCH {
            self.send(Rows::Stacks(std::mem::take(stacks)));
        }
    }

    fn finish(&mut self, stacks: &mut StackRows) {
        self.flush();
        self.send(Rows::Stacks(std::mem::take(stacks)));
    }

    fn flush(&mut self) {
        let mut rows = std::mem::replace(&mut self.rows, SampleRows::new());
        if !self.is_sorted {
            rows.sort();
        }
        (self.is_sorted, self.written_ns) = (true, self.last_ns);
        self.send(Rows::Samples(rows));
    }

    fn send(&self, rows: Rows) {
        // When the writer has failed, its error is what the user gets to see.
        let _ = self.out.send(rows);
    }
}
