//! Turns a spool into a recording: decodes, resolves, names, writes the tables.
//!
//! Two passes over the spool.  The first ([`survey`]) collects what is needed before the events can
//! be told in the order of time, the second ([`replay`]) tells them: processes come and go, files
//! are mapped, samples become rows.  Last, the frames get their names.

mod address_space;
mod bodies;
mod code;
mod copies;
mod generated;
mod jitdumps;
mod kernel;
mod mapped;
mod meta;
mod naming;
mod order;
mod processes;
mod replay;
mod stacks;
mod survey;
mod symbolize;
mod tables;
mod work_dir;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::kernel::Kernel;
use self::processes::{Processes, Thread};
use self::replay::{Replayed, replay};
use self::survey::{Containers, Survey, survey};
pub use self::symbolize::symbolize;
use self::work_dir::WorkDir;
use crate::error::{Error, Kind, Result, describe};
use crate::spool::{self, Footer, Header};
use crate::symbols::DebugDirs;
use crate::unwind::TableCache;
use crate::wire::MappedFile;

/// Row groups that may wait for the writer.
const QUEUED_ROWS: usize = 2;

/// Keeps what backs the traced processes' mappings.
pub trait FileStore: Sync {
    /// A file that was opened while the process lived.
    fn open(&self, file: &MappedFile) -> Option<File>;
    /// The directory in which the process's perf map lies (its own /tmp, maybe in a container),
    /// when one was kept.
    fn perf_map_dir(&self, pid: i32, started_ns: Option<i64>) -> Option<File>;
    /// The map itself, when it was there already: its process may have deleted it since.
    fn perf_map(&self, pid: i32, started_ns: Option<i64>) -> Option<File>;
    /// Where the capture's unwind tables may be.
    fn table_cache(&self) -> Option<&TableCache> {
        None
    }
}

/// Nothing was kept: the capture's process is gone.
pub struct NoFiles;

impl FileStore for NoFiles {
    fn open(&self, _: &MappedFile) -> Option<File> {
        None
    }

    fn perf_map_dir(&self, _: i32, _: Option<i64>) -> Option<File> {
        None
    }

    fn perf_map(&self, _: i32, _: Option<i64>) -> Option<File> {
        None
    }
}

/// Writes the recording of the capture in directory `spool` to the new directory `output`, and
/// returns the content of its meta.json.  The spool stays as it is.
///
/// # Errors
/// `recording`: the spool is missing or of another version.  `usage`: `output` exists.  `capture`:
/// it cannot be written; nothing is left of it then.
pub fn finalize(spool: &Path, output: &Path, files: &dyn FileStore) -> Result<Value> {
    finish(spool, output, files, false)
}

/// The same for a capture whose process has gone, and the files that it kept with it.
pub fn recover(spool: &Path, output: &Path) -> Result<Value> {
    finish(spool, output, &NoFiles, true)
}

fn finish(spool: &Path, output: &Path, files: &dyn FileStore, recovered: bool) -> Result<Value> {
    let header = read_header(spool)?;
    // None: the capture was killed before, or while, it was written.
    let footer: Option<Footer> = read_json(&spool.join("footer.json")).ok();
    let work = WorkDir::create(output)?;
    let meta = write_recording(spool, &header, footer.as_ref(), work.path(), files, recovered);
    let meta = meta.map_err(|error| with_hint(error, spool))?;
    work.publish()?;
    Ok(meta)
}

fn write_recording(
    spool: &Path,
    header: &Header,
    footer: Option<&Footer>,
    dir: &Path,
    files: &dyn FileStore,
    recovered: bool,
) -> Result<Value> {
    let tables = dir.join("tables");
    fs::create_dir(&tables).map_err(|e| Error::io(format!("cannot create '{}'", tables.display()), &e))?;
    let (survey, kernel) = std::thread::scope(|scope| {
        let kernel = scope.spawn(|| Kernel::read(&header.boot_id));
        let survey = survey(spool);
        (survey, kernel.join().expect("reading the kernel's symbols does not panic"))
    });
    let (survey, mut kernel) = (survey?, kernel);
    kernel.add_generated(&survey.generated);
    let (mut replayed, samples, stacks) = replay_into(&tables, spool, header, &survey, kernel, files)?;
    let dirs = DebugDirs::usual(Vec::new());
    naming::name_frames(&mut replayed.code, |code, module| {
        Some(mapped::names_of(&code.modules[module as usize], &survey.files, files, &dirs))
    });
    if let Some(command) = footer.and_then(|footer| footer.command.as_ref()) {
        note_exit_code(&mut replayed.processes, header, command.exit_code);
    }
    let (processes, threads) =
        write_lives(&tables, &replayed.processes, &survey.containers, header.targets.is_some())?;
    let outcome = meta::Outcome {
        recovered: recovered || footer.is_none(),
        counts: &survey.counts,
        stack_collisions: survey.bodies.collisions,
        refused_stacks: survey.bodies.refused,
        name_warnings: &replayed.name_warnings,
        copied_stacks: survey.bodies.copies(),
        unresolved_stacks: replayed.unresolved,
        late_samples: replayed.late,
        rows: [
            ("processes", processes),
            ("threads", threads),
            ("modules", tables::write_modules(&tables, &replayed.code)?),
            ("frames", tables::write_frames(&tables, &replayed.code)?),
            ("stacks", stacks),
            ("samples", samples),
        ],
    };
    let meta = meta::meta(header, footer, &outcome);
    let path = dir.join("meta.json");
    let text = serde_json::to_vec_pretty(&meta).expect("JSON values become text");
    fs::write(&path, text).map_err(|e| Error::io(format!("cannot write '{}'", path.display()), &e))?;
    Ok(meta)
}

/// Replays the spool while another thread writes the rows.
fn replay_into(
    tables: &Path,
    spool: &Path,
    header: &Header,
    survey: &Survey,
    kernel: Kernel,
    files: &dyn FileStore,
) -> Result<(Replayed, u64, u64)> {
    let events: Vec<String> = header.sources.iter().map(|source| source.event.clone()).collect();
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(QUEUED_ROWS);
        let writer = scope.spawn(move || tables::write_rows(tables, &events, &receiver));
        let replayed = replay(spool, header, survey, kernel, files, sender);
        let written = writer.join().expect("writing rows does not panic");
        let (samples, stacks) = written?;
        Ok((replayed?, samples, stacks))
    })
}

/// Writes `processes` and `threads`; of a capture of chosen targets only those that matter.
fn write_lives(
    tables: &Path,
    processes: &Processes,
    containers: &Containers,
    targeted: bool,
) -> Result<(u64, u64)> {
    let kept = kept_processes(processes, targeted);
    let mut keys = vec![None; processes.rows.len()];
    for (key, &row) in kept.iter().enumerate() {
        keys[row as usize] = Some(key as u32);
    }
    let is_kept = |thread: &Thread| {
        let process = &processes.rows[thread.process as usize];
        keys[thread.process as usize].is_some() && (!targeted || process.target)
    };
    let mut threads: Vec<&Thread> = processes.threads.iter().filter(|thread| thread.key.is_some()).collect();
    threads.sort_unstable_by_key(|thread| thread.key);
    threads.extend(processes.threads.iter().filter(|thread| thread.key.is_none() && is_kept(thread)));
    let process_rows = tables::write_processes(tables, &processes.rows, &kept, &keys, containers)?;
    Ok((process_rows, tables::write_threads(tables, &threads, &keys)?))
}

/// All processes, or those with samples, the targets, and what they descend from.
fn kept_processes(processes: &Processes, targeted: bool) -> Vec<u32> {
    let rows = &processes.rows;
    let mut is_kept: Vec<bool> =
        rows.iter().map(|process| !targeted || process.first_sample_ns.is_some() || process.target).collect();
    let mut unseen: Vec<u32> = (0..rows.len() as u32).filter(|&row| is_kept[row as usize]).collect();
    while let Some(row) = unseen.pop() {
        let process = &rows[row as usize];
        for ancestor in [process.parent, process.exec_from].into_iter().flatten() {
            if !std::mem::replace(&mut is_kept[ancestor as usize], true) {
                unseen.push(ancestor);
            }
        }
    }
    (0..rows.len() as u32).filter(|&row| is_kept[row as usize]).collect()
}

/// The command is the one target of its capture; its last program is the one that exited.
fn note_exit_code(processes: &mut Processes, header: &Header, exit_code: Option<i32>) {
    if header.target.get("kind").and_then(Value::as_str) == Some("command")
        && let Some(process) = processes.rows.iter_mut().rev().find(|process| process.target)
    {
        process.exit_code = exit_code;
    }
}

fn read_header(spool: &Path) -> Result<Header> {
    let path = spool.join("header.json");
    let foreign = |reason: &str| Error::new(Kind::Recording, format!("'{}' {reason}", spool.display()));
    let header: Value = read_json(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => foreign("is no spool of a capture: it has no header.json"),
        _ => foreign(&format!("has an unreadable header.json: {}", describe(&error))),
    })?;
    let (format, version) = (header["format"].as_str(), header["version"].as_u64());
    if format != Some(spool::FORMAT) {
        return Err(foreign("is no spool of a capture"));
    }
    if version != Some(u64::from(spool::VERSION)) {
        let version = version.map_or("unknown".to_string(), |version| version.to_string());
        let message = format!("has spool version {version}; this sberf reads version {}", spool::VERSION);
        return Err(foreign(&message).hint("use the sberf version that wrote it"));
    }
    serde_json::from_value(header).map_err(|error| foreign(&format!("has a damaged header.json: {error}")))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

fn with_hint(error: Error, spool: &Path) -> Error {
    match error.kind {
        Kind::Capture => error.hint(format!(
            "the samples are safe in '{}': make room, then run `sberf recover` on it",
            spool.display()
        )),
        _ => error,
    }
}
