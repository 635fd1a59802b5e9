//! Source lines of one function in a jitdump.

use super::super::text;
use super::records::Records;

/// More than any real function's table.
const MAX_TABLE_BYTES: u32 = 256 << 10;
const ENTRY_LEN: usize = 16;
/// In the place of a file's name: that of the entry before.
const SAME_NAME: &[u8] = b"\xff";
/// V8 gives addresses as they are in a file that perf makes of the code, behind its ELF header.
const ELF_HEADER_LEN: u64 = 64;

/// Where a function's table lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The function's first address.
    pub start: u64,
    /// Its first entry, and the bytes of all.
    pub at: u64,
    pub size: u32,
}

impl Lines {
    /// The line of `address` in the function, which ends at `end`.
    ///
    /// Tables that are not believable are not believed: V8 12 writes the file's name from memory that it
    /// has freed, so that what follows cannot be read.
    pub fn find(&self, records: &Records, end: u64, address: u64) -> Option<(String, u32)> {
        if self.size > MAX_TABLE_BYTES {
            return None;
        }
        let shift = if records.header().is_of_v8 { ELF_HEADER_LEN } else { 0 };
        let bytes = records.read(self.at, self.size as usize)?;
        let (mut rest, mut name) = (&bytes[..], &[][..]);
        let mut found: Option<(u64, u32, &[u8])> = None;
        // `{u64 address; u32 line, column; char name[]}`
        while rest.len() > ENTRY_LEN {
            let (at, line) = (records.u64(rest, 0).checked_sub(shift)?, records.u32(rest, 8));
            let len = rest[ENTRY_LEN..].iter().position(|&byte| byte == 0)?;
            let text = &rest[ENTRY_LEN..ENTRY_LEN + len];
            name = if text == SAME_NAME { name } else { text };
            if at < self.start || at > end || !is_name(name) {
                return None;
            }
            if at <= address && found.is_none_or(|(best, _, _)| at >= best) {
                found = Some((at, line, name));
            }
            rest = &rest[ENTRY_LEN + len + 1..];
        }
        let (_, line, name) = found.filter(|(_, line, _)| *line > 0)?;
        Some((text::decode(name).into_owned(), line))
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(u8::is_ascii_control)
}
