//! Names of code that a JIT compiler made, over time: `jit-PID.dump`.
//!
//! Layout: tools/perf/Documentation/jitdump-specification.txt of the Linux source.  Names and source
//! lines stay in the file until they are asked for; only where they lie is kept.

mod lines;
mod records;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use self::lines::Lines;
use self::records::{Header, Record, Records};
use super::range_history::RangeHistory;
use super::text;

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// Names are cut at so many bytes: Java's have signatures in them, V8's have paths.
const MAX_NAME_BYTES: usize = 16 << 10;
/// Members of the index a function: one or two unless functions overlap without end.
const MEMBERS_PER_CODE: u32 = 8;

/// How much of a dump is read.
#[derive(Clone, Copy, Debug)]
pub struct JitdumpLimits {
    /// Of any kind.
    pub records: u32,
    /// Functions that were loaded or moved.
    pub codes: u32,
}

impl Default for JitdumpLimits {
    /// Room for a JVM or a Node.js that ran for weeks, in 200 MB.
    fn default() -> Self {
        JitdumpLimits { records: 8_000_000, codes: 2_000_000 }
    }
}

/// What one dump tells.
pub struct Jitdump {
    records: Records,
    codes: Vec<Code>,
    /// In the order of time.
    spans: Vec<Span>,
    history: RangeHistory,
    is_shared: bool,
    is_cut: bool,
    skipped_records: u64,
}

/// Why a dump was not used.
#[derive(Debug, thiserror::Error)]
pub enum JitdumpError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("not a regular file")]
    NotRegular,
    #[error("not a jitdump")]
    NoMagic,
    #[error("has version {0}")]
    Version(u32),
}

/// A function as the compiler wrote it: where its name and its source lines lie in the file.
struct Code {
    name_at: u64,
    lines_at: u64,
    name_room: u32,
    lines_size: u32,
    /// Where it was first; source lines keep these addresses when it is moved.
    origin: u64,
}

/// A function at an address from a time on.
#[derive(Clone, Copy)]
struct Span {
    ts_ns: u64,
    start: u64,
    size: u32,
    /// Key into `Jitdump::codes`.
    code: u32,
}

impl Span {
    fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.size)
    }
}

/// Where an address was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitCode {
    /// Number of the load or move, in the order of time.
    pub span: u32,
    /// The function; moves keep it.
    pub code: u32,
    /// Bytes behind the function's start.
    pub offset: u64,
}

impl Jitdump {
    /// Reads all records that are complete: the compiler may still be writing.
    ///
    /// # Errors
    /// When the file has no jitdump's header.  Records that make no sense are no error: see
    /// [`Self::skipped_records`].
    pub fn read(file: File, limits: JitdumpLimits) -> Result<Self, JitdumpError> {
        let mut contents = Contents::default();
        let mut records = Records::open(file)?;
        while let Some(record) = records.next() {
            if records.count() > limits.records || contents.spans.len() == limits.codes as usize {
                contents.is_cut = true;
                break;
            }
            contents.add(record, records.header());
        }
        records.finish();
        let Contents { codes, mut spans, by_start, is_shared, mut is_cut, skipped, .. } = contents;
        drop(by_start);
        let skipped_records = skipped + records.damaged();
        spans.sort_by_key(|span| span.ts_ns);
        let ranges: Vec<Range<u64>> = spans.iter().map(Span::range).collect();
        let history = RangeHistory::new(&ranges, limits.codes.saturating_mul(MEMBERS_PER_CODE));
        is_cut |= history.len() < spans.len();
        spans.truncate(history.len());
        Ok(Jitdump { records, codes, spans, history, is_shared, is_cut, skipped_records })
    }

    /// How many loads and moves had happened at a time; all, when the times cannot be used.
    pub fn spans_at(&self, ts_ns: u64) -> u32 {
        if !self.has_usable_times() {
            return self.spans();
        }
        self.spans.partition_point(|span| span.ts_ns <= ts_ns) as u32
    }

    /// What the load or move with this number covers.
    pub fn span(&self, number: u32) -> Option<Range<u64>> {
        self.spans.get(number as usize).map(Span::range)
    }

    /// The function at an address after the first `spans` loads and moves.
    pub fn find(&self, address: u64, spans: u32) -> Option<JitCode> {
        self.history.last(address, spans).map(|span| self.at(address, span))
    }

    /// The first function that comes to an address after them.
    pub fn find_later(&self, address: u64, spans: u32) -> Option<JitCode> {
        self.history.first(address, spans).map(|span| self.at(address, span))
    }

    fn at(&self, address: u64, span: u32) -> JitCode {
        let Span { start, code, .. } = self.spans[span as usize];
        JitCode { span, code, offset: address - start }
    }

    /// Its name; broken UTF-8 is escaped.  None: it is empty, or the file changed.
    pub fn name(&self, found: JitCode) -> Option<String> {
        let code = self.codes.get(found.code as usize)?;
        let room = (code.name_room as usize).min(MAX_NAME_BYTES);
        let bytes = self.records.read(code.name_at, room)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        (end > 0).then(|| text::decode(&bytes[..end]).into_owned())
    }

    /// The source file and line, where the dump tells them and they make sense.
    pub fn source(&self, found: JitCode) -> Option<(String, u32)> {
        let &Code { lines_at: at, lines_size: size, origin: start, .. } =
            self.codes.get(found.code as usize)?;
        let is_of_v8 = self.records.header().is_of_v8;
        if size == 0 || is_of_v8 && is_bytecode(&self.name(found)?) {
            return None;
        }
        let end = start + u64::from(self.spans[found.span as usize].size);
        Lines { start, at, size }.find(&self.records, end, start + found.offset)
    }

    /// False when the compiler's clock is not CLOCK_MONOTONIC: only the order of loads is known.
    pub fn has_usable_times(&self) -> bool {
        !self.records.header().has_arch_timestamps
    }

    /// Several processes write it: forked workers that share their code's memory.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Larger than the limits allow, so that its newest names are missing.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many loads and moves it holds.
    pub fn spans(&self) -> u32 {
        self.spans.len() as u32
    }

    /// How many records made no sense.
    #[cfg_attr(not(test), allow(dead_code, reason = "no view tells it yet"))]
    pub fn skipped_records(&self) -> u64 {
        self.skipped_records
    }
}

/// What was read so far.
#[derive(Default)]
struct Contents {
    codes: Vec<Code>,
    spans: Vec<Span>,
    /// By start address, the function that came there last.
    by_start: FastMap<u64, u32>,
    /// Source lines come before the function that they belong to.
    lines: Option<Lines>,
    is_shared: bool,
    is_cut: bool,
    skipped: u64,
}

impl Contents {
    fn add(&mut self, record: Record, header: &Header) {
        match record {
            Record::Load { pid, ts_ns, start, size, name_at, name_room } => {
                self.is_shared |= pid != header.pid;
                let lines = self.lines.take_if(|lines| lines.start == start);
                let (lines_at, lines_size) = lines.map_or((0, 0), |lines| (lines.at, lines.size));
                self.codes.push(Code { name_at, lines_at, name_room, lines_size, origin: start });
                self.cover(ts_ns, start, size, self.codes.len() as u32 - 1);
            }
            Record::Move { ts_ns, from, to, size } => match self.by_start.get(&from) {
                Some(&code) => self.cover(ts_ns, to, size, code),
                None => self.skipped += 1,
            },
            Record::Lines(lines) => self.lines = Some(lines),
            Record::Senseless => self.skipped += 1,
            Record::Other => {}
        }
    }

    fn cover(&mut self, ts_ns: u64, start: u64, size: u32, code: u32) {
        self.spans.push(Span { ts_ns, start, size, code });
        self.by_start.insert(start, code);
    }
}

/// The lines of V8's baseline code are by place in its bytecode, not in its machine code.
fn is_bytecode(name: &str) -> bool {
    name.starts_with("JS:^") || name.starts_with("JS:~")
}

/// The number in the name of a file that compilers would call a jitdump: `/srv/app/jit-812.dump`.
pub fn pid_in_jitdump_name(path: &str) -> Option<i32> {
    let name = Path::new(path).file_name()?.to_str()?;
    let digits = name.strip_prefix("jit-")?.strip_suffix(".dump")?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
pub mod builder;
#[cfg(test)]
mod tests;
