//! Reads a BPF ring buffer.  Layout: kernel/bpf/ringbuf.c; a page that holds the consumer's position, one
//! that holds the producers', then the data, mapped twice in a row so that no record wraps around.
//!
//! In the place of libbpf's reader, which calls back through C for each record and publishes the
//! position after each: it took as long as all that is done with a sample.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::memory::{Mapping, page_size};
use libbpf_rs::MapHandle;

/// `{u32 len with the flags, u32 page offset}`
const HEADER_LEN: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Room is given back to the producers whenever this much was read.
const RELEASE_LEN: u64 = 64 << 10;

/// One ring and its mappings.
pub struct Ring {
    map: MapHandle,
    consumer: Mapping,
    producer: Mapping,
    data: *const u8,
    data_len: usize,
}

// SAFETY: `data` points into `producer`, which moves along.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps `map`, a ring of `data_len` bytes.
    pub fn new(map: MapHandle, data_len: usize) -> io::Result<Self> {
        let fd = map.as_fd().as_raw_fd();
        let page = page_size();
        let consumer = Mapping::new(fd, 0, page, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = Mapping::new(fd, page, page + 2 * data_len, libc::PROT_READ)?;
        // SAFETY: the data follows the producers' page, twice.
        let data = unsafe { producer.base().add(page) };
        Ok(Self { map, consumer, producer, data, data_len })
    }

    pub fn fd(&self) -> RawFd {
        self.map.as_fd().as_raw_fd()
    }

    /// Hands records to `on_record` until `max_len` bytes were read; returns the bytes that were.
    pub fn consume(&mut self, max_len: u64, mut on_record: impl FnMut(&[u8])) -> u64 {
        let begin = position(&self.consumer).load(Ordering::Relaxed);
        let (mut at, mut released) = (begin, begin);
        let end = position(&self.producer).load(Ordering::Acquire);
        while at < end && at - begin < max_len {
            let offset = at as usize & (self.data_len - 1);
            // SAFETY: the producers have reserved everything before `end`, and records are aligned.
            let header = unsafe { AtomicU32::from_ptr(self.data.add(offset).cast_mut().cast()) };
            let len = header.load(Ordering::Acquire);
            if len & BUSY != 0 {
                break; // its producer is at work, on another CPU or interrupted
            }
            let size = (len & !(BUSY | DISCARDED)) as usize;
            if len & DISCARDED == 0 && size <= self.data_len {
                // SAFETY: a committed record belongs to us until the position passes it.
                on_record(unsafe { std::slice::from_raw_parts(self.data.add(offset + HEADER_LEN), size) });
            }
            at += (size + HEADER_LEN).next_multiple_of(8) as u64;
            if at - released >= RELEASE_LEN {
                position(&self.consumer).store(at, Ordering::Release);
                released = at;
            }
        }
        position(&self.consumer).store(at, Ordering::Release);
        at - begin
    }
}

/// The position that a mapping's first page holds.
fn position(page: &Mapping) -> &AtomicU64 {
    // SAFETY: the page is mapped as long as `page` lives, and its first word is aligned.
    unsafe { AtomicU64::from_ptr(page.base().cast()) }
}
