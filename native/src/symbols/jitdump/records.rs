//! The records of a jitdump, one after the other.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::JitdumpError;
use super::lines::Lines;

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_LEN: u64 = 40;
const MAX_HEADER_LEN: u64 = 64 << 10;
const ARCH_TIMESTAMPS: u64 = 1;
/// What V8 writes in the header's unused field.
const PAD_OF_V8: u32 = 0xdead_beef;

const CODE_LOAD: u32 = 0;
const CODE_MOVE: u32 = 1;
const CODE_DEBUG_INFO: u32 = 2;
/// Of a kind that may be written one day; greater numbers are no kinds of records.
const MAX_KIND: u32 = 255;

const HEAD_LEN: u64 = 16;
const LOAD_LEN: u64 = 56;
const MOVE_LEN: u64 = 64;
const DEBUG_INFO_LEN: u64 = 32;
/// A record and its name, seldom more.
const CHUNK_LEN: usize = 16 << 10;
/// So far records are looked for behind damage, in all.
const MAX_SEARCHED: u64 = 16 << 20;

/// `{u32 magic, version, total_size, elf_mach, pad, pid; u64 timestamp, flags}`
pub struct Header {
    /// In the process's own namespace.
    pub pid: u32,
    pub has_arch_timestamps: bool,
    pub is_of_v8: bool,
    len: u64,
    is_swapped: bool,
}

/// One record, as far as it matters.
#[derive(Debug, PartialEq)]
pub enum Record {
    Load {
        pid: u32,
        ts_ns: u64,
        start: u64,
        size: u32,
        name_at: u64,
        name_room: u32,
    },
    Move {
        ts_ns: u64,
        from: u64,
        to: u64,
        size: u32,
    },
    Lines(Lines),
    /// Whole, but what it says cannot be.
    Senseless,
    Other,
}

/// Reads records with `pread`, a piece at a time: most bytes of a dump are machine code.
pub struct Records {
    file: File,
    header: Header,
    at: u64,
    len: u64,
    chunk: Vec<u8>,
    chunk_at: u64,
    count: u32,
    damaged: u64,
    searched: u64,
}

impl Records {
    pub fn open(file: File) -> Result<Self, JitdumpError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(JitdumpError::NotRegular);
        }
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => JitdumpError::NoMagic,
            _ => JitdumpError::Io(error),
        })?;
        let header = Header::parse(&bytes)?;
        let (at, len, chunk) = (header.len, metadata.len(), Vec::new());
        Ok(Self { file, header, at, len, chunk, chunk_at: 0, count: 0, damaged: 0, searched: 0 })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many records there were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How often something else stood in the place of a record.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Frees what only [`Self::next`] needs.
    pub fn finish(&mut self) {
        self.chunk = Vec::new();
    }

    /// The next record that is complete.
    pub fn next(&mut self) -> Option<Record> {
        loop {
            let (kind, size) = self.head(self.at)?;
            self.count = self.count.saturating_add(1);
            let at = self.at;
            if kind <= MAX_KIND && size >= HEAD_LEN && size <= self.len - at {
                self.at += size;
                return self.record(at, kind, size);
            }
            // A record that is still being written ends the file: then nothing is found behind it.
            self.at = self.search(at + 1)?;
            self.damaged += 1;
        }
    }

    /// Bytes of the file, as it is now; fewer at its end.
    pub fn read(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = read_at(&self.file, &mut bytes, at)?;
        bytes.truncate(read);
        (read > 0).then_some(bytes)
    }

    pub fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        self.header.u32(bytes, at)
    }

    pub fn u64(&self, bytes: &[u8], at: usize) -> u64 {
        self.header.u64(bytes, at)
    }

    /// `{u32 id, total_size; u64 timestamp}`: the kind and the size.
    fn head(&mut self, at: u64) -> Option<(u32, u64)> {
        let place = self.bytes(at, HEAD_LEN as usize)?;
        let bytes = &self.chunk[place];
        Some((self.u32(bytes, 0), u64::from(self.u32(bytes, 4))))
    }

    /// None only when the file became shorter.
    fn record(&mut self, at: u64, kind: u32, size: u64) -> Option<Record> {
        let len = match kind {
            CODE_LOAD => LOAD_LEN,
            CODE_MOVE => MOVE_LEN,
            CODE_DEBUG_INFO => DEBUG_INFO_LEN,
            _ => return Some(Record::Other),
        };
        if size < len {
            return Some(Record::Senseless);
        }
        let place = self.bytes(at, len as usize)?;
        let bytes = &self.chunk[place];
        let record = match kind {
            CODE_LOAD => self.load(bytes, at, size),
            CODE_MOVE => self.code_move(bytes),
            _ => Some(self.lines(bytes, at, size)),
        };
        Some(record.unwrap_or(Record::Senseless))
    }

    /// `{head; u32 pid, tid; u64 vma, code_addr, code_size, code_index; char name[]; u8 code[]}`
    fn load(&self, bytes: &[u8], at: u64, size: u64) -> Option<Record> {
        let (start, code_size) = (self.u64(bytes, 32), self.u64(bytes, 40));
        start.checked_add(code_size)?;
        let name_room = (size - LOAD_LEN).checked_sub(code_size).filter(|&room| room > 0)?;
        if code_size == 0 {
            return Some(Record::Other); // there are functions without code
        }
        Some(Record::Load {
            pid: self.u32(bytes, 16),
            ts_ns: self.u64(bytes, 8),
            start,
            size: code_size as u32,
            name_at: at + LOAD_LEN,
            name_room: name_room as u32,
        })
    }

    /// `{head; u32 pid, tid; u64 vma, old_code_addr, new_code_addr, code_size, code_index}`
    fn code_move(&self, bytes: &[u8]) -> Option<Record> {
        let (from, to) = (self.u64(bytes, 32), self.u64(bytes, 40));
        let size = u32::try_from(self.u64(bytes, 48)).ok().filter(|&size| size > 0)?;
        to.checked_add(u64::from(size))?;
        Some(Record::Move { ts_ns: self.u64(bytes, 8), from, to, size })
    }

    /// `{head; u64 code_addr, nr_entry; entries}`
    fn lines(&self, bytes: &[u8], at: u64, size: u64) -> Record {
        let (start, size) = (self.u64(bytes, 16), (size - DEBUG_INFO_LEN) as u32);
        Record::Lines(Lines { start, at: at + DEBUG_INFO_LEN, size })
    }

    /// Finds the next load that is certainly one.
    ///
    /// A process that forks with a part of the dump in its buffer has it written twice, once by the
    /// child: the second time begins anywhere in a record (CPython does so).
    fn search(&mut self, mut at: u64) -> Option<u64> {
        while self.searched < MAX_SEARCHED {
            let place = self.bytes(at, LOAD_LEN as usize)?;
            if self.is_certain_load(&self.chunk[place], at) {
                return Some(at);
            }
            at += 1;
            self.searched += 1;
        }
        None
    }

    fn is_certain_load(&self, bytes: &[u8], at: u64) -> bool {
        let size = u64::from(self.u32(bytes, 4));
        let fits = self.u32(bytes, 0) == CODE_LOAD && size > LOAD_LEN && size <= self.len - at;
        let record = fits.then(|| self.load(bytes, at, size)).flatten();
        matches!(record, Some(Record::Load { pid, .. }) if pid == self.header.pid)
    }

    /// Has bytes of the file in the chunk, and tells where.
    fn bytes(&mut self, at: u64, len: usize) -> Option<Range<usize>> {
        let end = at.checked_add(len as u64).filter(|&end| end <= self.len)?;
        if at < self.chunk_at || end > self.chunk_at + self.chunk.len() as u64 {
            self.chunk.resize(CHUNK_LEN, 0);
            let read = read_at(&self.file, &mut self.chunk, at)?;
            self.chunk.truncate(read);
            self.chunk_at = at;
        }
        let start = (at - self.chunk_at) as usize;
        (start + len <= self.chunk.len()).then_some(start..start + len)
    }
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN as usize]) -> Result<Self, JitdumpError> {
        let mut header =
            Header { pid: 0, has_arch_timestamps: false, is_of_v8: false, len: 0, is_swapped: false };
        header.is_swapped = match header.u32(bytes, 0) {
            MAGIC => false,
            magic if magic.swap_bytes() == MAGIC => true,
            _ => return Err(JitdumpError::NoMagic),
        };
        let version = header.u32(bytes, 4);
        if version != VERSION {
            return Err(JitdumpError::Version(version));
        }
        header.len = u64::from(header.u32(bytes, 8)).clamp(HEADER_LEN, MAX_HEADER_LEN);
        header.is_of_v8 = header.u32(bytes, 16) == PAD_OF_V8;
        header.pid = header.u32(bytes, 20);
        header.has_arch_timestamps = header.u64(bytes, 32) & ARCH_TIMESTAMPS != 0;
        Ok(header)
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let number = u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if self.is_swapped { number.swap_bytes() } else { number }
    }

    fn u64(&self, bytes: &[u8], at: usize) -> u64 {
        let number = u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if self.is_swapped { number.swap_bytes() } else { number }
    }
}

/// As many bytes as there are; None when reading fails.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Option<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(done)
}
