//! From the hashes in samples to stacks of frames.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::bodies::Bodies;
use crate::wire::{self, STACK_ENDS, Sample, StackCopy};

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// How a stack ends whose body never arrived; follows [`STACK_ENDS`].
pub const LOST: u8 = STACK_ENDS.len() as u8;
/// Follows bpf/event.h.
const BAD_FRAME_POINTER: u8 = 3;
/// Values below are no hashes: they say why there is no user stack.
const FIRST_HASH: u64 = 256;

/// The caches are emptied at these sizes: 64 MB of frames, 2 M stacks.
const MAX_CACHED_FRAMES: usize = 16 << 20;
const MAX_CACHED_STACKS: usize = 2 << 20;

/// The name of a stack's end.
pub fn end_name(end: u8) -> &'static str {
    STACK_ENDS.get(usize::from(end)).copied().unwrap_or("lost")
}

/// Gives addresses their frames.
pub trait Resolve {
    /// The version of the sampled process's address space.
    fn version(&mut self) -> u64;
    fn kernel_frame(&mut self, address: u64, is_return: bool) -> u32;
    fn user_frame(&mut self, address: u64, is_return: bool) -> u32;
    /// False when the address certainly was not code in the sampled process.
    fn may_be_code(&self, address: u64) -> bool;
    /// [`super::code::Frame::identity`]
    fn identity(&self, frame: u32) -> u64;
    /// The callers in a copied stack above the `found` ones, and how it ends.
    fn unwind(&mut self, copy: &StackCopy<'_>, found: usize) -> (Vec<u64>, u8);
}

/// Distinct stacks that wait to be written.
#[derive(Default)]
pub struct StackRows {
    pub ids: Vec<u64>,
    pub ends: Vec<u8>,
    /// Lengths of the stacks; their frames follow one another in `frames`.
    pub lens: Vec<u32>,
    pub frames: Vec<u32>,
}

/// Frames of one half of a stack, in `Stacks::frames`.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
    end: u8,
}

/// What a stack is made of, as samples have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    kernel: u64,
    /// Of the address space; 0 where there is no user stack.
    version: u64,
    user_ip: u64,
    user_callers: u64,
}

/// What a sample's stack is.
#[derive(Clone, Copy)]
pub struct Resolved {
    pub stack_id: u64,
    /// A part of it is missing.
    pub lost: bool,
}

pub struct Stacks<'a> {
    bodies: &'a Bodies,
    /// Rows for the `stacks` table; the caller takes them now and then.
    pub rows: StackRows,
    known: HashSet<u64, ahash::RandomState>,
    whole: FastMap<Key, Resolved>,
    kernel: FastMap<u64, Part>,
    /// By address-space version and hash.
    callers: FastMap<(u64, u64), Part>,
    frames: Vec<u32>,
    hashed: Vec<u8>,
}

impl<'a> Stacks<'a> {
    pub fn new(bodies: &'a Bodies) -> Self {
        Self {
            bodies,
            rows: StackRows::default(),
            known: HashSet::default(),
            whole: FastMap::default(),
            kernel: FastMap::default(),
            callers: FastMap::default(),
            frames: Vec::new(),
            hashed: Vec::new(),
        }
    }

    /// The stack of a sample; a new one is added to [`Self::rows`].
    pub fn resolve(&mut self, sample: &Sample, code: &mut impl Resolve) -> Resolved {
        let version = if sample.user_callers < FIRST_HASH { 0 } else { code.version() };
        let &Sample { kernel_stack: kernel, user_ip, user_callers, .. } = sample;
        let key = Key { kernel, version, user_ip, user_callers };
        if let Some(&resolved) = self.whole.get(&key) {
            return resolved;
        }
        if self.whole.len() >= MAX_CACHED_STACKS || self.frames.len() >= MAX_CACHED_FRAMES {
            self.forget();
        }
        let kernel = self.kernel_part(kernel, code);
        let leaf = (user_callers >= FIRST_HASH).then(|| code.user_frame(user_ip, false));
        let callers = self.callers_part(version, user_callers, code);
        let resolved = self.join(kernel, leaf, callers, code);
        self.whole.insert(key, resolved);
        resolved
    }

    /// Kernel addresses mean something else from now on.
    pub fn forget(&mut self) {
        self.whole.clear();
        self.kernel.clear();
        self.callers.clear();
        self.frames.clear();
    }

    /// Only the leaf's address is where the code is; those above are where it returns to.
    fn kernel_part(&mut self, hash: u64, code: &mut impl Resolve) -> Part {
        if let Some(&part) = self.kernel.get(&hash) {
            return part;
        }
        let part = match self.bodies.get(hash, false) {
            _ if hash == 0 => self.part([].into_iter(), 0),
            Some(body) => {
                let frame = |(depth, &address)| code.kernel_frame(address, depth > 0);
                self.part(body.addresses.iter().enumerate().map(frame), body.end)
            }
            None => self.part([].into_iter(), LOST),
        };
        self.kernel.insert(hash, part);
        part
    }

    fn callers_part(&mut self, version: u64, hash: u64, code: &mut impl Resolve) -> Part {
        if hash < FIRST_HASH {
            return self.part([].into_iter(), wire::end_without_body(hash).unwrap_or(LOST));
        }
        if let Some(&part) = self.callers.get(&(version, hash)) {
            return part;
        }
        let part = match (self.bodies.copy(hash), self.bodies.get(hash, true)) {
            (Some(copy), _) => self.copied_part(&copy, code),
            (None, Some(body)) => {
                let code_len = code_len(body.addresses, code);
                let end = if code_len < body.addresses.len() { BAD_FRAME_POINTER } else { body.end };
                self.part(body.addresses[..code_len].iter().map(|&a| code.user_frame(a, true)), end)
            }
            (None, None) => self.part([].into_iter(), LOST),
        };
        self.callers.insert((version, hash), part);
        part
    }

    fn copied_part(&mut self, copy: &StackCopy<'_>, code: &mut impl Resolve) -> Part {
        let found = self.bodies.get(copy.prefix, true).map_or(&[][..], |body| body.addresses);
        let (callers, end) = code.unwind(copy, found.len());
        self.part(found.iter().chain(&callers).map(|&address| code.user_frame(address, true)), end)
    }

    fn part(&mut self, frames: impl Iterator<Item = u32>, end: u8) -> Part {
        let start = self.frames.len() as u32;
        self.frames.extend(frames);
        Part { start, len: self.frames.len() as u32 - start, end }
    }

    fn join(&mut self, kernel: Part, leaf: Option<u32>, callers: Part, code: &impl Resolve) -> Resolved {
        let lost = kernel.end == LOST || callers.end == LOST;
        let end = if lost { LOST } else { callers.end };
        let slice = |part: Part| &self.frames[part.start as usize..(part.start + part.len) as usize];
        let frames = [slice(kernel), leaf.as_slice(), slice(callers)];
        self.hashed.clear();
        for &frame in frames.into_iter().flatten() {
            self.hashed.extend_from_slice(&code.identity(frame).to_le_bytes());
        }
        self.hashed.extend_from_slice(end_name(end).as_bytes());
        let stack_id = xxh3_64(&self.hashed);
        if self.known.insert(stack_id) {
            self.rows.ids.push(stack_id);
            self.rows.ends.push(end);
            self.rows.lens.push(frames.iter().map(|part| part.len() as u32).sum());
            frames.into_iter().for_each(|part| self.rows.frames.extend_from_slice(part));
        }
        Resolved { stack_id, lost }
    }
}

/// How many of a user stack's callers are code: where a function uses the frame pointer as an ordinary
/// register the walk ends among other data, and what it took for return addresses there is none.
fn code_len(callers: &[u64], code: &impl Resolve) -> usize {
    callers.iter().rposition(|&address| code.may_be_code(address.wrapping_sub(1))).map_or(0, |at| at + 1)
}
