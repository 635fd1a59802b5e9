//! The stack bodies of a spool: raw addresses by their hash.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::wire::{STACK_ENDS, StackBody, StackCopy};

/// 512 MiB of addresses; a crafted spool cannot make us keep more.
const MAX_ADDRESSES: usize = 64 << 20;
/// Of copied stacks; a capture makes a few hundred.
const MAX_COPIED_BYTES: usize = 256 << 20;

/// The addresses of one kernel stack or of a user stack's callers, leaf first.
pub struct Body<'a> {
    pub addresses: &'a [u64],
    /// Index into [`STACK_ENDS`].
    pub end: u8,
}

#[derive(Default)]
pub struct Bodies {
    places: HashMap<(u64, bool), Place, ahash::RandomState>,
    addresses: Vec<u64>,
    copies: HashMap<u64, Copied, ahash::RandomState>,
    copied: Vec<u8>,
    /// Bodies whose hash another body had already; the first one counts.
    pub collisions: u64,
    /// Bodies that were not kept because of their number or because they were malformed.
    pub refused: u64,
}

struct Place {
    start: u32,
    len: u16,
    end: u8,
}

/// A stack copy whose bytes lie in `Bodies::copied`.
struct Copied {
    copy: StackCopy<'static>,
    start: usize,
    len: usize,
}

impl Bodies {
    pub fn add_copy(&mut self, copy: &StackCopy<'_>) {
        if self.copied.len() + copy.bytes.len() > MAX_COPIED_BYTES {
            self.refused += 1;
            return;
        }
        let (start, len) = (self.copied.len(), copy.bytes.len());
        self.copied.extend_from_slice(copy.bytes);
        self.copies.insert(copy.id, Copied { copy: StackCopy { bytes: &[], ..*copy }, start, len });
    }

    /// How many copies there are.
    pub fn copies(&self) -> u64 {
        self.copies.len() as u64
    }

    pub fn copy(&self, id: u64) -> Option<StackCopy<'_>> {
        let Copied { copy, start, len } = self.copies.get(&id)?;
        Some(StackCopy { bytes: &self.copied[*start..start + len], ..*copy })
    }

    pub fn add(&mut self, body: &StackBody<'_>) {
        let len = body.addresses().len();
        let fits = self.addresses.len() + len <= MAX_ADDRESSES;
        if !fits || usize::from(body.end) >= STACK_ENDS.len() {
            self.refused += 1;
            return;
        }
        match self.places.entry((body.hash, body.user)) {
            Entry::Occupied(known) => {
                let known = known.get();
                let start = known.start as usize;
                let addresses = &self.addresses[start..start + usize::from(known.len)];
                let same = known.end == body.end && addresses.iter().copied().eq(body.addresses());
                self.collisions += u64::from(!same);
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Place { start: self.addresses.len() as u32, len: len as u16, end: body.end });
                self.addresses.extend(body.addresses());
            }
        }
    }

    pub fn get(&self, hash: u64, user: bool) -> Option<Body<'_>> {
        let place = self.places.get(&(hash, user))?;
        let start = place.start as usize;
        Some(Body { addresses: &self.addresses[start..start + usize::from(place.len)], end: place.end })
    }
}
