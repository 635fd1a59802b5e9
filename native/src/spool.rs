//! The spool: what a capture writes while it runs, and all that `sberf recover` needs.
//!
//! A directory with `header.json` (written first), `events` (blocks of records) and, once the
//! capture has stopped, `footer.json`.  A block in `events`:
//! `{u32 magic, u32 samples_len, u32 sample_count, u32 others_len, u64 xxh3 of the rest}`, the samples
//! as `compact` encodes them, then the other records as they are.  Where copies of stacks are among these
//! they are compressed, and the magic tells it: copies are large, and much alike.  A reader stops at the
//! first block that is cut or damaged.

use std::fs::File;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::compact::{self, Encoder};
use crate::wire::RawSample;

pub const FORMAT: &str = "sberf-spool";
pub const VERSION: u32 = 4;

const MAGIC: u32 = u32::from_le_bytes(*b"SBLK");
const MAGIC_COMPRESSED: u32 = u32::from_le_bytes(*b"SBLZ");
/// 400 MB a second.
const COMPRESSION_LEVEL: i32 = 1;
const HEADER_LEN: usize = 24;
/// A block is written when this much has gathered.
const BLOCK_LEN: usize = 256 << 10;
/// No honest block is larger: one record may follow a nearly full block.
const MAX_BLOCK_LEN: u32 = 64 << 20;

/// What was known when the capture began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
    pub sberf_version: String,
    /// /proc/sys/kernel/random/boot_id: kernel addresses mean nothing after a reboot.
    pub boot_id: String,
    pub host: serde_json::Value,
    pub command_line: Vec<String>,
    pub clock: Clock,
    pub target: serde_json::Value,
    pub sources: Vec<Source>,
    pub max_sample_rate: Option<u64>,
    /// The processes that were asked for: only they and those with samples are kept.  None: all are.
    pub targets: Option<Vec<i32>>,
}

/// The three clocks, read at the same moment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Clock {
    pub monotonic_ns: u64,
    pub realtime_ns: u64,
    pub boottime_ns: u64,
}

/// One sampled event; `Sample::source` is its index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    pub event: String,
    /// "ns" or "count"
    pub unit: String,
    pub frequency_hz: Option<u64>,
    /// What a sample without a weight of its own stands for.
    pub period: Option<u64>,
    pub user: bool,
    pub kernel: bool,
    pub max_depth: u32,
}

/// What is known only at the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Footer {
    pub start_ns: u64,
    pub end_ns: u64,
    pub command: Option<Command>,
    pub dropped_by_cpu: Vec<u64>,
    pub missed_samples: u64,
    pub max_sample_rate: Option<u64>,
    pub tables: TableCounts,
    pub warnings: Vec<String>,
}

/// Unwind tables of a capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TableCounts {
    pub made: u64,
    /// Not made, but found in the cache on disk.
    pub cached: u64,
    /// Too large, or there was no room.
    pub refused: u64,
    pub evicted: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    pub argv: Vec<String>,
    pub exit_code: Option<i32>,
}

/// Gathers records into blocks.
pub struct SpoolWriter<W: Write> {
    file: W,
    samples: Encoder,
    sample_count: u32,
    others: Vec<u8>,
    has_copies: bool,
    written_bytes: u64,
}

impl<W: Write> SpoolWriter<W> {
    pub fn new(file: W) -> Self {
        let others = Vec::with_capacity(BLOCK_LEN);
        Self { file, samples: Encoder::new(), sample_count: 0, others, has_copies: false, written_bytes: 0 }
    }

    /// Appends a sample.  Readers see a block's samples before its other records.
    pub fn push_sample(&mut self, sample: &RawSample) {
        self.samples.push(sample);
        self.sample_count += 1;
    }

    /// Appends the copy of a stack.
    pub fn push_copy(&mut self, record: &[u8]) {
        self.others.extend_from_slice(record);
        self.has_copies = true;
    }

    /// Where other records are appended; call [`Self::flush_if_full`] now and then.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.others
    }

    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    pub fn flush_if_full(&mut self) -> io::Result<()> {
        if self.samples.bytes().len() + self.others.len() < BLOCK_LEN { Ok(()) } else { self.flush() }
    }

    /// Writes what is pending as one block.  After an error the file ends with the last whole block
    /// as far as readers are concerned.
    pub fn flush(&mut self) -> io::Result<()> {
        let samples = self.samples.bytes();
        if samples.is_empty() && self.others.is_empty() {
            return Ok(());
        }
        let compressed = self.has_copies.then(|| zstd::bulk::compress(&self.others, COMPRESSION_LEVEL).ok());
        let (magic, others) = match compressed.as_ref().and_then(Option::as_ref) {
            Some(compressed) => (MAGIC_COMPRESSED, compressed),
            None => (MAGIC, &self.others),
        };
        let mut header = [0; HEADER_LEN];
        let words = [magic, samples.len() as u32, self.sample_count, others.len() as u32];
        for (at, word) in words.iter().enumerate() {
            header[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let mut checksum = Xxh3::new();
        checksum.update(samples);
        checksum.update(others);
        header[16..].copy_from_slice(&checksum.digest().to_le_bytes());
        let mut parts = [IoSlice::new(&header), IoSlice::new(samples), IoSlice::new(others)];
        let written = write_all_vectored(&mut self.file, &mut parts);
        self.written_bytes += (HEADER_LEN + samples.len() + others.len()) as u64;
        self.samples.clear();
        self.sample_count = 0;
        self.others.clear();
        self.has_copies = false;
        written
    }
}

/// Reads the blocks of `events`, from the front.
pub struct SpoolReader {
    file: BufReader<File>,
    block: Vec<u8>,
    records: Vec<u8>,
    damaged: bool,
}

impl SpoolReader {
    pub fn open(spool: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 20, File::open(spool.join("events"))?);
        Ok(Self { file, block: Vec::new(), records: Vec::new(), damaged: false })
    }

    /// The records of the next block; None at the end, or where the file is cut or damaged.
    pub fn next_block(&mut self) -> Option<&[u8]> {
        let mut header = [0; HEADER_LEN];
        match read_fully(&mut self.file, &mut header) {
            0 => return None,
            HEADER_LEN => {}
            _ => return self.damage(),
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (samples_len, sample_count, others_len) = (word(4), word(8), word(12));
        let is_compressed = word(0) == MAGIC_COMPRESSED;
        if (word(0) != MAGIC && !is_compressed) || samples_len > MAX_BLOCK_LEN || others_len > MAX_BLOCK_LEN {
            return self.damage();
        }
        let len = samples_len as usize + others_len as usize;
        self.block.resize(len, 0);
        let whole = read_fully(&mut self.file, &mut self.block) == len;
        if !whole || xxh3_64(&self.block).to_le_bytes() != header[16..] {
            return self.damage();
        }
        let (samples, others) = self.block.split_at(samples_len as usize);
        self.records.clear();
        if compact::decode(samples, sample_count as usize, &mut self.records).is_none() {
            return self.damage();
        }
        if !is_compressed {
            self.records.extend_from_slice(others);
        } else if let Ok(others) = zstd::bulk::decompress(others, MAX_BLOCK_LEN as usize) {
            self.records.extend_from_slice(&others);
        } else {
            return self.damage();
        }
        Some(&self.records)
    }

    /// Did reading stop before the end of the file?
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    fn damage(&mut self) -> Option<&[u8]> {
        self.damaged = true;
        None
    }
}

fn write_all_vectored(file: &mut impl Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while parts.iter().any(|part| !part.is_empty()) {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_fully(file: &mut impl Read, buf: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn write_spool(dir: &Path, blocks: u64) {
        let mut writer = SpoolWriter::new(File::create(dir.join("events")).unwrap());
        for ts_ns in 0..blocks {
            wire::push_round(writer.buffer(), ts_ns);
            writer.flush().unwrap();
        }
    }

    fn count_blocks(dir: &Path) -> (u64, bool) {
        let mut reader = SpoolReader::open(dir).unwrap();
        let mut blocks = 0;
        while reader.next_block().is_some() {
            blocks += 1;
        }
        (blocks, reader.damaged())
    }

    #[test]
    fn samples_come_before_the_other_records() {
        let sample = RawSample {
            source: 0,
            cpu: 1,
            seq: 2,
            ts_ns: 3,
            thread: 4,
            kernel_stack: 0,
            user_ip: 0,
            user_callers: 6,
            weight: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::new(File::create(dir.path().join("events")).unwrap());
        wire::push_round(writer.buffer(), 77);
        writer.push_sample(&sample);
        writer.flush().unwrap();
        let mut expected = Vec::new();
        sample.append_to(&mut expected);
        wire::push_round(&mut expected, 77);
        assert_eq!(SpoolReader::open(dir.path()).unwrap().next_block(), Some(expected.as_slice()));
    }

    #[test]
    fn copies_are_compressed_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::new(File::create(dir.path().join("events")).unwrap());
        let copy: Vec<u8> = (0..80_000u32).flat_map(|word| (word % 900).to_ne_bytes()).collect();
        let mut expected = copy.clone();
        wire::push_round(&mut expected, 77);
        writer.push_copy(&copy);
        wire::push_round(writer.buffer(), 77);
        writer.flush().unwrap();
        wire::push_round(writer.buffer(), 78);
        writer.flush().unwrap();
        assert!(writer.written_bytes() < copy.len() as u64 / 10);
        let mut reader = SpoolReader::open(dir.path()).unwrap();
        assert_eq!(reader.next_block(), Some(expected.as_slice()));
        assert_eq!(reader.next_block().map(<[u8]>::len), Some(16));
        assert_eq!(reader.next_block(), None);
    }

    #[test]
    fn a_block_that_would_be_too_large_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        for (len, damaged) in [(MAX_BLOCK_LEN as usize, false), (MAX_BLOCK_LEN as usize + 1, true)] {
            let mut writer = SpoolWriter::new(File::create(dir.path().join("events")).unwrap());
            writer.push_copy(&vec![0; len]);
            writer.flush().unwrap();
            assert_eq!(count_blocks(dir.path()), (u64::from(!damaged), damaged));
        }
    }

    #[test]
    fn whole_blocks_before_a_cut_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write_spool(dir.path(), 3);
        assert_eq!(count_blocks(dir.path()), (3, false));
        let events = std::fs::OpenOptions::new().write(true).open(dir.path().join("events")).unwrap();
        events.set_len(events.metadata().unwrap().len() - 1).unwrap();
        assert_eq!(count_blocks(dir.path()), (2, true));
    }

    #[test]
    fn a_flipped_bit_stops_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        write_spool(dir.path(), 2);
        let mut bytes = std::fs::read(dir.path().join("events")).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(dir.path().join("events"), bytes).unwrap();
        assert_eq!(count_blocks(dir.path()), (1, true));
    }
}
