//! Mapped memory: of maps and perf events, which the kernel shares, and of files.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

/// A shared mapping of a map, a perf event or a file.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; a move to another thread changes nothing.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives away no more than the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn new(fd: RawFd, offset: usize, len: usize, protection: i32) -> io::Result<Self> {
        let offset = offset as libc::off_t;
        // SAFETY: a fresh shared mapping of a descriptor that is open; the result is checked.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), len })
    }

    /// Aligned to a page; valid as long as `self` lives.
    pub fn base(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what mmap returned; users of `base` do not outlive `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

pub fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
