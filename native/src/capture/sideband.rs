//! Reads the mmapped ring of a perf event.  Layout: perf_event_open(2), "MMAP layout".

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use perf_event_open_sys::bindings::perf_event_mmap_page;

use super::perf::Event;
use crate::memory::{Mapping, page_size};
use crate::wire::u16_at;

const RECORD_HEADER_LEN: usize = 8;

/// One side-band event and its ring; records are read in the order of its CPU.
pub struct SideBand {
    pub cpu: u16,
    event: Event,
    memory: Mapping,
    data: *const u8,
    data_len: usize,
    /// A record that wraps around the ring's end is put together here.
    wrapped: Vec<u8>,
}

// SAFETY: `data` points into `memory`, which moves along.
unsafe impl Send for SideBand {}

impl SideBand {
    /// Maps a ring of `data_len` bytes, a power of two of pages.
    pub fn new(cpu: u16, event: Event, data_len: usize) -> io::Result<Self> {
        let page = page_size();
        let memory = Mapping::new(event.fd(), 0, page + data_len, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the mapping is one page longer than the data.
        let data = unsafe { memory.base().add(page) };
        Ok(Self { cpu, event, memory, data, data_len, wrapped: Vec::new() })
    }

    pub fn event(&self) -> &Event {
        &self.event
    }

    pub fn fd(&self) -> RawFd {
        self.event.fd()
    }

    /// Hands each record that is there to `on_record`, then frees the room.
    pub fn drain(&mut self, mut on_record: impl FnMut(&[u8])) {
        let (head, mut tail) = (self.head().load(Ordering::Acquire), self.tail().load(Ordering::Relaxed));
        while head.wrapping_sub(tail) >= RECORD_HEADER_LEN as u64 {
            let at = tail as usize & (self.data_len - 1);
            // SAFETY: records are 8-byte aligned, so a header never wraps; the kernel has published
            // everything before `head` and does not write there until we move `tail`.
            let header = unsafe { std::slice::from_raw_parts(self.data.add(at), RECORD_HEADER_LEN) };
            let len = usize::from(u16_at(header, 6));
            if len < RECORD_HEADER_LEN || len as u64 > head.wrapping_sub(tail) {
                tail = head; // cannot happen; better to skip than to spin
                break;
            }
            let until_end = self.data_len - at;
            if len <= until_end {
                // SAFETY: as above, and the record lies wholly before the ring's end.
                on_record(unsafe { std::slice::from_raw_parts(self.data.add(at), len) });
            } else {
                self.wrapped.clear();
                // SAFETY: the record is the ring's last `until_end` bytes and its first ones.
                unsafe {
                    self.wrapped.extend_from_slice(std::slice::from_raw_parts(self.data.add(at), until_end));
                    self.wrapped.extend_from_slice(std::slice::from_raw_parts(self.data, len - until_end));
                }
                on_record(&self.wrapped);
            }
            tail = tail.wrapping_add(len as u64);
        }
        self.tail().store(tail, Ordering::Release);
    }

    fn head(&self) -> &AtomicU64 {
        let page = self.memory.base().cast::<perf_event_mmap_page>();
        // SAFETY: the control page is mapped as long as `self` lives, and the field is aligned.
        unsafe { AtomicU64::from_ptr(&raw mut (*page).data_head) }
    }

    fn tail(&self) -> &AtomicU64 {
        let page = self.memory.base().cast::<perf_event_mmap_page>();
        // SAFETY: as in `head`.
        unsafe { AtomicU64::from_ptr(&raw mut (*page).data_tail) }
    }
}
