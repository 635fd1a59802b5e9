//! Names of code that a JIT compiler made: `/tmp/perf-PID.map`.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::range_map::{RangeMap, Span};
use super::text;

/// How much of a perf map is read.
#[derive(Clone, Copy, Debug)]
pub struct PerfMapLimits {
    pub bytes: u64,
    pub entries: usize,
}

impl Default for PerfMapLimits {
    /// Room for a JVM or a Node.js that ran for weeks.
    fn default() -> Self {
        PerfMapLimits { bytes: 128 << 20, entries: 2_000_000 }
    }
}

/// The names in one perf map.
#[derive(Debug)]
pub struct PerfMap {
    content: Vec<u8>,
    /// By address; the value is the offset of the name in `content`.
    symbols: RangeMap,
    skipped_lines: u64,
    is_cut: bool,
}

/// Why a perf map was not used.
#[derive(Debug, thiserror::Error)]
pub enum PerfMapError {
    #[error("cannot be opened: {0}")]
    Io(#[from] io::Error),
    #[error("not a regular file")]
    NotRegular,
    #[error("belongs to user {owner}, neither to the process's user {uid} nor to root")]
    ForeignOwner { owner: u32, uid: u32 },
}

impl PerfMap {
    /// Reads lines `START SIZE name`, numbers in hexadecimal.
    ///
    /// A later line wins over an earlier one where they overlap: compilers reuse memory.
    ///
    /// # Errors
    /// When reading fails.  Lines that make no sense are no error: see
    /// [`Self::skipped_lines`].
    pub fn parse(reader: impl Read, limits: PerfMapLimits) -> io::Result<Self> {
        let mut content = Vec::new();
        // Offsets of names are kept in 32 bits.
        let limit = limits.bytes.min(u64::from(u32::MAX) - 1);
        reader.take(limit + 1).read_to_end(&mut content)?;
        let mut is_cut = content.len() as u64 > limit;
        // A line without an end is still being written, or cut by the limit: its name, even its
        // size, may lack digits.
        let whole = content.iter().rposition(|&byte| byte == b'\n');
        let unfinished = whole.map_or(0, |at| at + 1) < content.len();
        content.truncate(whole.map_or(0, |at| at + 1));
        let mut skipped_lines = u64::from(unfinished && !is_cut);
        let mut spans: Vec<Span> = Vec::new();
        let mut line_start = 0;
        for line in content.split_inclusive(|&byte| byte == b'\n') {
            match parse_line(line) {
                Some(_) if spans.len() == limits.entries => {
                    is_cut = true;
                    break;
                }
                Some((start, end, name_at)) => spans.push(Span {
                    start,
                    end,
                    value: (line_start + name_at) as u32,
                    priority: spans.len() as u32,
                }),
                None => skipped_lines += 1,
            }
            line_start += line.len();
        }
        Ok(PerfMap { content, symbols: RangeMap::new(spans), skipped_lines, is_cut })
    }

    /// The name of the code at `address`; broken UTF-8 is escaped.
    pub fn lookup(&self, address: u64) -> Option<Cow<'_, str>> {
        let span = self.symbols.find(address)?;
        let rest = &self.content[span.value as usize..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        Some(text::decode(rest[..end.unwrap_or(rest.len())].trim_ascii_end()))
    }

    /// How many lines were no entries.
    #[cfg_attr(not(test), allow(dead_code, reason = "no view tells it yet"))]
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// True when the file is larger than the limits allow, so that its newest names are missing.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

/// `7f3a1c0e5a40 1c8 LazyCompile:~add /srv/app.js:3:14`: start, end, and where the name begins.
fn parse_line(line: &[u8]) -> Option<(u64, u64, usize)> {
    let (start, size_at) = parse_number(line, 0)?;
    let (size, name_at) = parse_number(line, size_at)?;
    let end = start.checked_add(size)?;
    let name = line.get(name_at..)?;
    (size > 0 && !name.trim_ascii().is_empty()).then_some((start, end, name_at))
}

/// A hexadecimal number, perhaps after 0x, and where the field after it begins.
fn parse_number(line: &[u8], at: usize) -> Option<(u64, usize)> {
    let field = line.get(at..)?;
    let digits = field.strip_prefix(b"0x").unwrap_or(field);
    let mut at = at + field.len() - digits.len();
    let mut number: u64 = 0;
    let count = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    for &byte in &digits[..count] {
        if number >> 60 != 0 {
            return None;
        }
        number = number << 4 | u64::from((byte as char).to_digit(16)?);
    }
    let spaces = digits[count..].iter().take_while(|&&b| b == b' ').count();
    at += count + spaces;
    (count > 0 && spaces > 0).then_some((number, at))
}

/// Opens `perf-NS_PID.map` in `dir`, the process's /tmp, when it can be trusted as far as the
/// process: a regular file, no symbolic link, of the process's user or of root (as perf insists).
///
/// # Errors
/// When there is none, it cannot be opened, or it is not to be trusted.
pub fn open_perf_map(dir: &File, ns_pid: i32, uid: u32) -> Result<File, PerfMapError> {
    // The directory's descriptor keeps the lookup inside the process's own mount namespace.
    let path = format!("/proc/self/fd/{}/perf-{ns_pid}.map", dir.as_raw_fd());
    let file = OpenOptions::new()
        .read(true)
        // Without O_NONBLOCK opening a FIFO would wait for its writer.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PerfMapError::NotRegular);
    }
    let owner = metadata.uid();
    if owner != uid && owner != 0 {
        return Err(PerfMapError::ForeignOwner { owner, uid });
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
