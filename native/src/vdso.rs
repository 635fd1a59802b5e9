//! The code that the kernel maps into every process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

const MAX_LEN: u64 = 1 << 20;

/// The image that is mapped at `start..end` of a process, by its name in /proc.
///
/// # Errors
/// When it cannot be read, or the range is none of a vDSO.
pub fn image(process: &str, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let len = end.checked_sub(start).filter(|len| *len <= MAX_LEN).ok_or(io::ErrorKind::InvalidInput)?;
    let mut image = vec![0; len as usize];
    File::open(format!("/proc/{process}/mem"))?.read_exact_at(&mut image, start)?;
    Ok(image)
}

/// The image in this process, which is that of all 64-bit ones.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn own_image() -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    // `7ffd5a1c8000-7ffd5a1ca000 r-xp 00000000 00:00 0                          [vdso]`
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).ok_or(io::ErrorKind::NotFound)?;
    let parse = |text: &str| u64::from_str_radix(text, 16).ok();
    let range = line.split(' ').next().and_then(|range| range.split_once('-'));
    let range = range.and_then(|(start, end)| Some((parse(start)?, parse(end)?)));
    let (start, end) = range.ok_or(io::ErrorKind::InvalidData)?;
    image("self", start, end)
}
