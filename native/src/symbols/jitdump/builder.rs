//! Builds jitdumps, record by record, as a compiler would write them.

use std::fs::File;
use std::io::Write;

/// A dump in memory, in either byte order.
pub struct DumpBuilder {
    pub bytes: Vec<u8>,
    /// The process that writes the next records.
    pub pid: u32,
    is_swapped: bool,
    loads: u64,
}

impl DumpBuilder {
    pub fn new(pid: u32) -> Self {
        Self::with(pid, false, 0, 0)
    }

    /// `pad`: what stands in the header's unused field.
    pub fn with(pid: u32, is_swapped: bool, pad: u32, flags: u64) -> Self {
        let mut dump = Self { bytes: Vec::new(), pid, is_swapped, loads: 0 };
        dump.u32s(&[0x4a69_5444, 1, 40, 62, pad, pid]);
        dump.u64s(&[0, flags]);
        dump
    }

    pub fn load(&mut self, ts_ns: u64, start: u64, size: usize, name: &str) -> &mut Self {
        self.load_bytes(ts_ns, start, size, &[name.as_bytes(), b"\0"].concat())
    }

    /// With its NUL, if it is to have one.
    pub fn load_bytes(&mut self, ts_ns: u64, start: u64, size: usize, name: &[u8]) -> &mut Self {
        self.head(0, 56 + name.len() + size, ts_ns);
        self.u32s(&[self.pid, self.pid]);
        self.loads += 1;
        self.u64s(&[start, start, size as u64, self.loads]);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len() + size, 0xcc);
        self
    }

    pub fn code_move(&mut self, ts_ns: u64, from: u64, to: u64, size: u64) -> &mut Self {
        self.head(1, 64, ts_ns);
        self.u32s(&[self.pid, self.pid]);
        self.u64s(&[to, from, to, size, self.loads]);
        self
    }

    /// Entries: address, line, file.
    pub fn lines(&mut self, ts_ns: u64, start: u64, entries: &[(u64, u32, &[u8])]) -> &mut Self {
        let size: usize = entries.iter().map(|(_, _, file)| 17 + file.len()).sum();
        self.head(2, 32 + size, ts_ns);
        self.u64s(&[start, entries.len() as u64]);
        for &(address, line, file) in entries {
            self.u64s(&[address]);
            self.u32s(&[line, 0]);
            self.bytes.extend_from_slice(file);
            self.bytes.push(0);
        }
        self
    }

    pub fn other(&mut self, kind: u32, size: usize) -> &mut Self {
        self.head(kind, 16 + size, 0);
        self.bytes.resize(self.bytes.len() + size, 0xff);
        self
    }

    pub fn file(&self) -> File {
        file_of(&self.bytes)
    }

    fn head(&mut self, kind: u32, size: usize, ts_ns: u64) {
        self.u32s(&[kind, size as u32]);
        self.u64s(&[ts_ns]);
    }

    fn u32s(&mut self, numbers: &[u32]) {
        for &number in numbers {
            let number = if self.is_swapped { number.swap_bytes() } else { number };
            self.bytes.extend_from_slice(&number.to_ne_bytes());
        }
    }

    fn u64s(&mut self, numbers: &[u64]) {
        for &number in numbers {
            let number = if self.is_swapped { number.swap_bytes() } else { number };
            self.bytes.extend_from_slice(&number.to_ne_bytes());
        }
    }
}

/// A file that has no name.
pub fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}
