//! From the hashes in samples to stacks of frames.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::bodies::Bodies;
use crate::wire::{self, STACK_ENDS, Sample};

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
    /// By kernel hash, address-space version and user hash.
    whole: FastMap<(u64, u64, u64), Resolved>,
    kernel: FastMap<u64, Part>,
    /// By address-space version and user hash.
    user: FastMap<(u64, u64), Part>,
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
            user: FastMap::default(),
            frames: Vec::new(),
            hashed: Vec::new(),
        }
    }

    /// The stack of a sample; a new one is added to [`Self::rows`].
    pub fn resolve(&mut self, sample: &Sample, code: &mut impl Resolve) -> Resolved {
        let version = if sample.user_stack < FIRST_HASH { 0 } else { code.version() };
        let key = (sample.kernel_stack, version, sample.user_stack);
        if let Some(&resolved) = self.whole.get(&key) {
            return resolved;
        }
        if self.whole.len() >= MAX_CACHED_STACKS || self.frames.len() >= MAX_CACHED_FRAMES {
            self.forget();
        }
        let kernel = self.kernel_part(sample.kernel_stack, code);
        let user = self.user_part(version, sample.user_stack, code);
        let resolved = self.join(kernel, user, code);
        self.whole.insert(key, resolved);
        resolved
    }

    /// Kernel addresses mean something else from now on.
    pub fn forget(&mut self) {
        self.whole.clear();
        self.kernel.clear();
        self.user.clear();
        self.frames.clear();
    }

    fn kernel_part(&mut self, hash: u64, code: &mut impl Resolve) -> Part {
        if let Some(&part) = self.kernel.get(&hash) {
            return part;
        }
        let part = match self.bodies.get(hash, false) {
            _ if hash == 0 => self.part(&[], 0, |_, _| 0),
            Some(body) => self.part(body.addresses, body.end, |a, is_return| code.kernel_frame(a, is_return)),
            None => self.part(&[], LOST, |_, _| 0),
        };
        self.kernel.insert(hash, part);
        part
    }

    fn user_part(&mut self, version: u64, hash: u64, code: &mut impl Resolve) -> Part {
        if hash < FIRST_HASH {
            return self.part(&[], wire::end_without_body(hash).unwrap_or(LOST), |_, _| 0);
        }
        if let Some(&part) = self.user.get(&(version, hash)) {
            return part;
        }
        let part = match self.bodies.get(hash, true) {
            Some(body) => {
                let code_len = code_len(body.addresses, code);
                let end = if code_len < body.addresses.len() { BAD_FRAME_POINTER } else { body.end };
                self.part(&body.addresses[..code_len], end, |a, is_return| code.user_frame(a, is_return))
            }
            None => self.part(&[], LOST, |_, _| 0),
        };
        self.user.insert((version, hash), part);
        part
    }

    /// Only the leaf's address is where the code is; those above are where it returns to.
    fn part(&mut self, addresses: &[u64], end: u8, mut frame: impl FnMut(u64, bool) -> u32) -> Part {
        let start = self.frames.len() as u32;
        self.frames.extend(addresses.iter().enumerate().map(|(depth, &address)| frame(address, depth > 0)));
        Part { start, len: self.frames.len() as u32 - start, end }
    }

    fn join(&mut self, kernel: Part, user: Part, code: &impl Resolve) -> Resolved {
        let lost = kernel.end == LOST || user.end == LOST;
        let end = if lost { LOST } else { user.end };
        let slice = |part: Part| &self.frames[part.start as usize..(part.start + part.len) as usize];
        let frames = [slice(kernel), slice(user)];
        self.hashed.clear();
        for &frame in frames.into_iter().flatten() {
            self.hashed.extend_from_slice(&code.identity(frame).to_le_bytes());
        }
        self.hashed.extend_from_slice(end_name(end).as_bytes());
        let stack_id = xxh3_64(&self.hashed);
        if self.known.insert(stack_id) {
            self.rows.ids.push(stack_id);
            self.rows.ends.push(end);
            self.rows.lens.push(kernel.len + user.len);
            frames.into_iter().for_each(|part| self.rows.frames.extend_from_slice(part));
        }
        Resolved { stack_id, lost }
    }
}

/// How much of a user stack is code: where a function uses the frame pointer as an ordinary register
/// the walk ends among other data, and what it took for return addresses there is none.
fn code_len(addresses: &[u64], code: &impl Resolve) -> usize {
    let is_code = |&address: &u64| code.may_be_code(address.wrapping_sub(1));
    let callers = addresses.get(1..).unwrap_or_default();
    let last = callers.iter().rposition(is_code).map_or(0, |at| at + 1);
    addresses.len().min(last + 1)
}
