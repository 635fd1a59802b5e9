//! Tables that tell, for every address of a program's code, how to find the caller's registers.
//!
//! Compilers describe that in `.eh_frame`, in a form that takes a program to read.  Here it becomes rows of
//! four bytes that bpf/unwind.bpf.h can search: see `table` for their layout and docs/stacks.md for how a
//! walk goes.

mod cache;
mod cfi;
mod marks;
mod rule;
mod stored;
mod table;
mod walk;

pub use cache::{Found, TableCache};
pub use cfi::{CallFrames, Special};
pub use rule::{Cfa, Rule, WireRule};
pub use table::{CodeSegment, Table, TableError};
pub use walk::{Frame, Machine, StackMemory, Stop};

#[cfg(test)]
mod tests;
