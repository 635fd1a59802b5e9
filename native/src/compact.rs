//! The form in which samples lie in the spool: about 8 bytes in the place of 48.
//!
//! Samples repeat what was there shortly before: the thread, the stacks, the CPU, a sequence number one
//! higher, a time a little later.  A general compressor finds that too, but costs more CPU time than
//! all the rest of the drain thread.  An encoded sample:
//! `{u8 flags; [u8 source]; [varint cpu]; [zigzag seq]; zigzag ts; thread; [stack kernel]; stack callers;
//! zigzag ip; [varint weight]}`, where a thread or stack is one byte that names a slot of a small table of
//! what was there before, or the value itself; the user's ip is the difference to what it was below the
//! same callers.  The tables begin empty in each block.

use crate::wire::{RawSample, SAMPLE_LEN};

const SAME_SOURCE: u8 = 1;
const SAME_CPU: u8 = 1 << 1;
const NEXT_SEQ: u8 = 1 << 2;
const KNOWN_THREAD: u8 = 1 << 3;
const NO_KERNEL_STACK: u8 = 1 << 4;
const KNOWN_KERNEL_STACK: u8 = 1 << 5;
const KNOWN_USER_CALLERS: u8 = 1 << 6;
const WEIGHTED: u8 = 1 << 7;

const SLOTS: usize = 256;

/// Room for one encoded sample, which takes at most 65 bytes, and for a word that reaches beyond its end.
const MAX_LEN: usize = 80;

/// What encoder and decoder both know of the samples so far.
struct Context {
    source: u8,
    cpu: u16,
    /// Sequence number and time of each CPU's last sample.
    last: Vec<(u32, u64)>,
    threads: [u64; SLOTS],
    stacks: [u64; SLOTS],
    /// The last ip below the callers in each slot.
    ips: [u64; SLOTS],
}

impl Context {
    fn new() -> Self {
        Self { source: 0, cpu: 0, last: Vec::new(), threads: [0; SLOTS], stacks: [0; SLOTS], ips: [0; SLOTS] }
    }

    fn reset(&mut self) {
        (self.source, self.cpu) = (0, 0);
        self.last.clear();
        self.threads.fill(0);
        self.stacks.fill(0);
        self.ips.fill(0);
    }

    fn last_ip(&mut self, callers: u64) -> &mut u64 {
        &mut self.ips[slot_of(callers)]
    }

    fn last_of(&mut self, cpu: u16) -> &mut (u32, u64) {
        let index = usize::from(cpu);
        if index >= self.last.len() {
            self.last.resize(index + 1, (u32::MAX, 0));
        }
        &mut self.last[index]
    }
}

/// The slot that a value may take; stack hashes and thread IDs both vary in their low bits.
fn slot_of(value: u64) -> usize {
    (value ^ value >> 8) as usize % SLOTS
}

/// Encodes samples one after the other.
pub struct Encoder {
    context: Box<Context>,
    out: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Self { context: Box::new(Context::new()), out: Vec::new() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Begins a new block.
    pub fn clear(&mut self) {
        self.out.clear();
        self.context.reset();
    }

    pub fn push(&mut self, sample: &RawSample) {
        // In place: reading single bytes back as a whole stalls the processor.
        let begin = self.out.len();
        self.out.resize(begin + MAX_LEN, 0);
        let buf = self.out[begin..].first_chunk_mut().expect("just resized");
        let mut bytes = Bytes { buf, len: 1 };
        let context = &mut *self.context;
        let mut flags = 0;
        if sample.source == context.source {
            flags |= SAME_SOURCE;
        } else {
            bytes.push(sample.source);
            context.source = sample.source;
        }
        if sample.cpu == context.cpu {
            flags |= SAME_CPU;
        } else {
            bytes.varint(u64::from(sample.cpu));
            context.cpu = sample.cpu;
        }
        let last = context.last_of(sample.cpu);
        if sample.seq == last.0.wrapping_add(1) {
            flags |= NEXT_SEQ;
        } else {
            bytes.zigzag(i64::from(sample.seq) - i64::from(last.0));
        }
        bytes.zigzag(sample.ts_ns.wrapping_sub(last.1) as i64);
        *last = (sample.seq, sample.ts_ns);
        if bytes.value(sample.thread, &mut context.threads) {
            flags |= KNOWN_THREAD;
        }
        if sample.kernel_stack == 0 {
            flags |= NO_KERNEL_STACK;
        } else if bytes.value(sample.kernel_stack, &mut context.stacks) {
            flags |= KNOWN_KERNEL_STACK;
        }
        if bytes.value(sample.user_callers, &mut context.stacks) {
            flags |= KNOWN_USER_CALLERS;
        }
        let last_ip = context.last_ip(sample.user_callers);
        bytes.zigzag(sample.user_ip.wrapping_sub(*last_ip) as i64);
        *last_ip = sample.user_ip;
        if let Some(weight) = sample.weight {
            flags |= WEIGHTED;
            bytes.varint(weight);
        }
        bytes.buf[0] = flags;
        let len = bytes.len;
        self.out.truncate(begin + len);
    }
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    if bits > 56 { 9 } else { bits.div_ceil(7) }
}

struct Bytes<'a> {
    buf: &'a mut [u8; MAX_LEN],
    len: usize,
}

impl Bytes<'_> {
    fn push(&mut self, byte: u8) {
        self.buf[self.len] = byte;
        self.len += 1;
    }

    /// `n` bytes, the lowest `n - 1` bits zero and then a one, above it 7 * n bits of the value; nine bytes
    /// are a zero and the value.  Unlike LEB128 it needs no loop, whose end no processor can foresee.
    fn varint(&mut self, value: u64) {
        let len = varint_len(value);
        let (word, at) = match len {
            9 => {
                self.buf[self.len] = 0;
                (value, self.len + 1)
            }
            _ => ((value << 1 | 1) << (len - 1), self.len),
        };
        self.buf[at..at + 8].copy_from_slice(&word.to_le_bytes());
        self.len += len;
    }

    fn zigzag(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63) as u64);
    }

    /// Writes the slot when `value` is known, else the value itself, which then is known.
    fn value(&mut self, value: u64, table: &mut [u64; SLOTS]) -> bool {
        let slot = slot_of(value);
        if table[slot] == value {
            self.push(slot as u8);
            return true;
        }
        table[slot] = value;
        self.buf[self.len..self.len + 8].copy_from_slice(&value.to_ne_bytes());
        self.len += 8;
        false
    }
}

/// Appends `count` samples to `out` in the form that bpf/event.h lays out; None when `bytes` is malformed.
pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<u8>) -> Option<()> {
    // Each sample takes some bytes: a count that lies must not reserve memory.
    out.reserve(count.min(bytes.len()) * SAMPLE_LEN);
    let mut context = Box::new(Context::new());
    let mut from = Source(bytes);
    for _ in 0..count {
        from.sample(&mut context)?.append_to(out);
    }
    from.0.is_empty().then_some(())
}

struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn sample(&mut self, context: &mut Context) -> Option<RawSample> {
        let flags = self.byte()?;
        if flags & SAME_SOURCE == 0 {
            context.source = self.byte()?;
        }
        if flags & SAME_CPU == 0 {
            context.cpu = u16::try_from(self.varint()?).ok()?;
        }
        let last = context.last_of(context.cpu);
        let difference = if flags & NEXT_SEQ != 0 { 1 } else { self.zigzag()? };
        last.0 = last.0.wrapping_add(difference as u32);
        last.1 = last.1.wrapping_add(self.zigzag()? as u64);
        let (seq, ts_ns) = *last;
        let thread = self.value(flags & KNOWN_THREAD != 0, &mut context.threads)?;
        let kernel_stack = match flags & NO_KERNEL_STACK {
            0 => self.value(flags & KNOWN_KERNEL_STACK != 0, &mut context.stacks)?,
            _ => 0,
        };
        let user_callers = self.value(flags & KNOWN_USER_CALLERS != 0, &mut context.stacks)?;
        let last_ip = context.last_ip(user_callers);
        *last_ip = last_ip.wrapping_add(self.zigzag()? as u64);
        let user_ip = *last_ip;
        let weight = if flags & WEIGHTED != 0 { Some(self.varint()?) } else { None };
        let (source, cpu) = (context.source, context.cpu);
        Some(RawSample { source, cpu, seq, ts_ns, thread, user_ip, kernel_stack, user_callers, weight })
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn varint(&mut self) -> Option<u64> {
        let len = self.0.first()?.trailing_zeros() as usize + 1;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        let mut word = [0; 8];
        if let Some((_, bytes)) = bytes.split_first().filter(|_| len == 9) {
            word.copy_from_slice(bytes);
            return Some(u64::from_le_bytes(word));
        }
        word[..len].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word) >> len)
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn value(&mut self, known: bool, table: &mut [u64; SLOTS]) -> Option<u64> {
        if known {
            return Some(table[usize::from(self.byte()?)]);
        }
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        let value = u64::from_ne_bytes(*bytes);
        table[slot_of(value)] = value;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SAMPLE_WEIGHTED_LEN;

    fn sample(n: u64) -> RawSample {
        RawSample {
            source: (n.is_multiple_of(7)) as u8,
            cpu: (n % 3) as u16 * 300,
            seq: (n as u32 / 3).wrapping_sub(5) + u32::from(n.is_multiple_of(11)),
            ts_ns: 5_000_000_000_000 + n * 33_000 - (n % 5) * 100_000,
            thread: ((n % 400) << 32) | (n % 401),
            kernel_stack: if n.is_multiple_of(4) { 0 } else { (n % 500).wrapping_mul(0x9e37_79b9_7f4a_7c15) },
            user_ip: if n.is_multiple_of(17) { u64::MAX } else { 0x7f00_0000_0000 + n % 9000 },
            user_callers: if n.is_multiple_of(9) { 6 } else { u64::MAX - n % 300 },
            weight: (n.is_multiple_of(13)).then_some(n << 40),
        }
    }

    #[test]
    fn samples_come_back_as_they_were() {
        let mut encoder = Encoder::new();
        let mut expected = Vec::new();
        for n in 0..10_000 {
            encoder.push(&sample(n));
            sample(n).append_to(&mut expected);
        }
        let mut decoded = Vec::new();
        assert_eq!(decode(encoder.bytes(), 10_000, &mut decoded), Some(()));
        assert!(decoded == expected);
        encoder.clear();
        encoder.push(&sample(1));
        let mut again = Vec::new();
        assert_eq!(decode(encoder.bytes(), 1, &mut again), Some(()));
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        let mut buf = [0; MAX_LEN];
        for value in (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
            let mut bytes = Bytes { buf: &mut buf, len: 0 };
            bytes.varint(value);
            let len = bytes.len;
            let mut source = Source(&buf[..len]);
            assert_eq!((source.varint(), source.0.len()), (Some(value), 0));
            assert_eq!(Source(&buf[..len - 1]).varint(), None);
        }
    }

    #[test]
    fn a_steady_program_takes_few_bytes() {
        let mut encoder = Encoder::new();
        for n in 0..1000u32 {
            let ts_ns = 5_000_000_000_000 + u64::from(n) * 100_000;
            let steady = RawSample {
                cpu: 0,
                source: 0,
                seq: n,
                ts_ns,
                thread: 9,
                kernel_stack: 0,
                user_ip: 0x5555_0000 + u64::from(n % 20),
                user_callers: 77,
                weight: None,
            };
            encoder.push(&steady);
        }
        assert!(encoder.bytes().len() < 1000 * 8);
    }

    #[test]
    fn damaged_bytes_do_no_harm() {
        let mut encoder = Encoder::new();
        (0..100).for_each(|n| encoder.push(&sample(n)));
        let bytes = encoder.bytes();
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 100, &mut Vec::new()), None);
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x55;
            let mut out = Vec::new();
            let _ = decode(&flipped, 100, &mut out);
            assert!(out.len() <= 100 * SAMPLE_WEIGHTED_LEN);
        }
    }
}
