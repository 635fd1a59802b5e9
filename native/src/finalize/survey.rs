//! The first pass over a spool: what must be known before the events can be replayed in order.
//!
//! A snapshot of a process that was there before the capture is valid from the begin on, but it is
//! taken some time later: after the first samples.  And a stack's body may follow the sample that
//! names it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::address_space::{Files, Map};
use super::bodies::Bodies;
use crate::error::{Error, Kind, Result, describe};
use crate::perf_record::{self, SideBody};
use crate::spool::SpoolReader;
use crate::wire::{self, ContainerNote, Mapping, ProcessSnapshot, Record};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// A process that has mapped more files than this before its snapshot is not watched any further.
const MAX_EARLY_MAPS: usize = 1 << 12;
const MAX_GENERATED: usize = 1 << 20;
const MAX_CONTAINERS: usize = 1 << 16;

/// What the first pass found.
#[derive(Default)]
pub struct Survey {
    pub bodies: Bodies,
    /// Every file that the spool names as mapped.
    pub files: Files,
    /// Processes that were there when the capture began.
    pub initial: Vec<InitialProcess>,
    pub generated: Vec<Generated>,
    pub containers: Containers,
    pub counts: Counts,
}

/// A process as it was when the capture began.
pub struct InitialProcess {
    /// Without its mappings.
    pub snapshot: ProcessSnapshot,
    pub maps: Vec<Map>,
}

/// Code that the kernel generated (a BPF program, say) came or went.
pub struct Generated {
    pub ts_ns: u64,
    pub start: u64,
    pub len: u32,
    pub name: Vec<u8>,
    pub gone: bool,
}

/// What the capture found out of containers.
#[derive(Default)]
pub struct Containers {
    /// IDs by the keys of execs; None: in no container.
    ids: FastMap<u64, Option<Arc<str>>>,
    names: FastMap<Arc<str>, Arc<str>>,
}

impl Containers {
    /// The container that a key stands for; None where that was not found out.
    pub fn of(&self, key: u64) -> Option<Option<&Arc<str>>> {
        self.ids.get(&key).map(Option::as_ref)
    }

    pub fn name(&self, id: &str) -> Option<&str> {
        self.names.get(id).map(|name| &**name)
    }

    fn note(&mut self, note: ContainerNote) {
        if self.ids.len().max(self.names.len()) >= MAX_CONTAINERS {
            return;
        }
        let id: Option<Arc<str>> = note.id.map(Arc::from);
        if let Some(key) = note.key {
            self.ids.insert(key, id.clone());
        }
        if let (Some(id), Some(name)) = (id, note.name) {
            self.names.insert(id, Arc::from(name));
        }
    }
}

/// Losses and limits.
#[derive(Default)]
pub struct Counts {
    pub lost_sideband: u64,
    pub throttled: u64,
    pub malformed: u64,
    /// The file ends in the middle of a block, or with a damaged one.
    pub damaged: bool,
    pub first_ns: Option<u64>,
    pub last_ns: Option<u64>,
    sequences: Vec<Sequence>,
}

impl Counts {
    /// By CPU, the sequence numbers between the first and the last that never arrived.
    pub fn gaps_by_cpu(&self) -> Vec<u64> {
        self.sequences.iter().map(Sequence::gap).collect()
    }

    fn saw(&mut self, ts_ns: u64) {
        self.first_ns = Some(self.first_ns.map_or(ts_ns, |first| first.min(ts_ns)));
        self.last_ns = Some(self.last_ns.map_or(ts_ns, |last| last.max(ts_ns)));
    }

    fn number(&mut self, cpu: u16, seq: u32) {
        let cpu = usize::from(cpu);
        if self.sequences.len() <= cpu {
            self.sequences.resize_with(cpu + 1, Sequence::default);
        }
        self.sequences[cpu].see(seq);
    }
}

/// The sequence numbers of one CPU, unwrapped from 32 bits.
#[derive(Default)]
struct Sequence {
    received: u64,
    last: i64,
    min: i64,
    max: i64,
}

impl Sequence {
    fn see(&mut self, seq: u32) {
        if self.received == 0 {
            (self.last, self.min, self.max) = (i64::from(seq), i64::from(seq), i64::from(seq));
        }
        // Neighbours are close, so the 32-bit difference tells which way the number wrapped.
        self.last += i64::from(seq.wrapping_sub(self.last as u32) as i32);
        self.min = self.min.min(self.last);
        self.max = self.max.max(self.last);
        self.received += 1;
    }

    fn gap(&self) -> u64 {
        if self.received == 0 {
            return 0;
        }
        u64::try_from(self.max - self.min + 1).unwrap_or(0).saturating_sub(self.received)
    }
}

/// Opens the spool's events.
pub fn open(spool: &Path) -> Result<SpoolReader> {
    SpoolReader::open(spool).map_err(|e| {
        let what = format!("cannot read '{}': {}", spool.join("events").display(), describe(&e));
        Error::new(Kind::Recording, what)
    })
}

/// Hands every record to `visit`; what cannot be parsed ends its block and is counted.
pub fn for_each_record(reader: &mut SpoolReader, mut visit: impl FnMut(Record<'_>)) -> u64 {
    let mut malformed = 0;
    while let Some(mut block) = reader.next_block() {
        while !block.is_empty() {
            match wire::next_record(block) {
                Ok((record, len)) => {
                    visit(record);
                    block = &block[len..];
                }
                Err(_) => {
                    malformed += 1;
                    break;
                }
            }
        }
    }
    malformed
}

/// Reads the whole spool once.
pub fn survey(spool: &Path) -> Result<Survey> {
    let mut reader = open(spool)?;
    let mut survey = Survey::default();
    let mut lives = Lives::default();
    let malformed = for_each_record(&mut reader, |record| match record {
        Record::Sample(sample) => {
            survey.counts.number(sample.cpu, sample.seq);
            survey.counts.saw(sample.ts_ns);
        }
        Record::Stack(body) => {
            survey.counts.number(body.cpu, body.seq);
            survey.bodies.add(&body);
        }
        Record::StackCopy(copy) => {
            survey.counts.number(copy.cpu, copy.seq);
            survey.bodies.add_copy(&copy);
        }
        Record::Perf { bytes, .. } => match perf_record::parse(bytes) {
            Some(record) => {
                survey.counts.saw(record.ts_ns);
                count_losses(&mut survey.counts, &record.body);
                note_generated(&mut survey.generated, record.ts_ns, &record.body);
                lives.note(record.ts_ns, &record.body);
                if let SideBody::Mmap { file, .. } = record.body {
                    survey.files.id(file);
                }
            }
            None => survey.counts.malformed += 1,
        },
        Record::Process(json) => match serde_json::from_slice(json) {
            Ok(snapshot) => lives.snapshot(snapshot, &mut survey.files),
            Err(_) => survey.counts.malformed += 1,
        },
        Record::Container(json) => match serde_json::from_slice(json) {
            Ok(note) => survey.containers.note(note),
            Err(_) => survey.counts.malformed += 1,
        },
        Record::Exec(exec) => survey.counts.number(exec.cpu, exec.seq),
        Record::Asked { cpu, seq } => survey.counts.number(cpu, seq),
        Record::Round { .. } => {}
    });
    survey.counts.malformed += malformed;
    survey.counts.damaged = reader.damaged();
    survey.initial = lives.initial();
    survey.generated.sort_by_key(|code| code.ts_ns);
    Ok(survey)
}

fn count_losses(counts: &mut Counts, body: &SideBody<'_>) {
    match body {
        SideBody::Lost { records } => counts.lost_sideband = counts.lost_sideband.saturating_add(*records),
        SideBody::Throttle => counts.throttled += 1,
        _ => {}
    }
}

fn note_generated(generated: &mut Vec<Generated>, ts_ns: u64, body: &SideBody<'_>) {
    if let SideBody::KernelSymbol { start, len, name, gone } = *body
        && generated.len() < MAX_GENERATED
    {
        generated.push(Generated { ts_ns, start, len, name: name.to_vec(), gone });
    }
}

/// Which lives began while the capture ran, and which were there before.
#[derive(Default)]
struct Lives {
    /// By thread ID, the first fork or exec that was seen.
    births: FastMap<u32, u64>,
    /// By process ID, the best snapshot, and its mappings if it has any.
    snapshots: FastMap<i32, (ProcessSnapshot, Option<Vec<Map>>)>,
    /// By process ID, what was mapped before the process's snapshot: (time, start, end).
    early_maps: FastMap<u32, Vec<(u64, u64, u64)>>,
}

impl Lives {
    fn note(&mut self, ts_ns: u64, body: &SideBody<'_>) {
        match *body {
            SideBody::Fork { tid, .. } | SideBody::Comm { pid: tid, exec: true, .. } => {
                let first = self.births.entry(tid).or_insert(ts_ns);
                *first = ts_ns.min(*first);
                self.early_maps.remove(&tid);
            }
            SideBody::Mmap { pid, start, end, .. } => {
                let taken = match self.snapshots.get(&(pid as i32)) {
                    Some((snapshot, Some(_))) => Some(snapshot.ts_ns),
                    _ => None,
                };
                if !self.births.contains_key(&pid) && taken.is_none_or(|taken| ts_ns <= taken) {
                    let maps = self.early_maps.entry(pid).or_default();
                    if maps.len() < MAX_EARLY_MAPS {
                        maps.push((ts_ns, start, end));
                    }
                }
            }
            _ => {}
        }
    }

    /// The first snapshot counts, but one with mappings before one without.
    fn snapshot(&mut self, mut snapshot: ProcessSnapshot, files: &mut Files) {
        let maps =
            snapshot.maps.take().map(|maps| maps.into_iter().map(|map| known_map(map, files)).collect());
        if self.is_born_by(snapshot.pid, snapshot.ts_ns) {
            return;
        }
        match self.snapshots.entry(snapshot.pid) {
            Entry::Vacant(vacant) => {
                vacant.insert((snapshot, maps));
            }
            Entry::Occupied(mut known) => {
                let (old, old_maps) = known.get();
                if (maps.is_none(), snapshot.ts_ns) < (old_maps.is_none(), old.ts_ns) {
                    known.insert((snapshot, maps));
                }
            }
        }
    }

    fn is_born_by(&self, tid: i32, ts_ns: u64) -> bool {
        self.births.get(&(tid as u32)).is_some_and(|&born| born <= ts_ns)
    }

    fn initial(mut self) -> Vec<InitialProcess> {
        let mut initial = Vec::new();
        for (pid, (mut snapshot, maps)) in std::mem::take(&mut self.snapshots) {
            let taken = snapshot.ts_ns;
            if self.is_born_by(pid, taken) {
                continue;
            }
            snapshot.threads.retain(|thread| thread.tid == pid || !self.is_born_by(thread.tid, taken));
            // What was mapped since the begin was not there at the begin: the replay maps it in time.
            let early = self.early_maps.get(&(pid as u32)).map_or(&[][..], Vec::as_slice);
            let mut maps = maps.unwrap_or_default();
            maps.retain(|map| {
                !early.iter().any(|&(ts_ns, start, end)| ts_ns <= taken && map.start < end && start < map.end)
            });
            initial.push(InitialProcess { snapshot, maps });
        }
        initial.sort_by_key(|process| process.snapshot.pid);
        initial
    }
}

fn known_map(map: Mapping, files: &mut Files) -> Map {
    Map { start: map.start, end: map.end, file_offset: map.file_offset, file: files.id(map.file) }
}

#[cfg(test)]
mod tests {
    use super::Sequence;

    fn gap(numbers: &[u32]) -> u64 {
        let mut sequence = Sequence::default();
        numbers.iter().for_each(|&seq| sequence.see(seq));
        sequence.gap()
    }

    #[test]
    fn gaps_are_what_lies_between_first_and_last() {
        assert_eq!(gap(&[]), 0);
        assert_eq!(gap(&[7]), 0);
        assert_eq!(gap(&[7, 8, 9]), 0);
        assert_eq!(gap(&[7, 10, 8]), 1);
        assert_eq!(gap(&[u32::MAX - 1, u32::MAX, 1, 2]), 1);
        assert_eq!(gap(&[1, u32::MAX, 0, 2]), 0);
    }
}
