//! Names for code addresses: ELF files, the kernel, perf maps and jitdumps of JIT compilers.
//!
//! Everything read here comes from traced systems and may be hostile or cut off at any byte.
//! Files are read through bounded `pread`, never mapped: a file that its owner truncates must
//! give an error, not SIGBUS.  A name is only given to an address that its symbol covers.

mod debug;
mod demangle;
mod elf;
mod jitdump;
mod kallsyms;
mod perf_map;
mod range_history;
mod range_map;
mod text;

pub use debug::{CodeFile, CodeNames, DebugDirs, KnownCalls, SourceCall, open_regular};
pub use demangle::demangle;
pub use elf::{ElfSymbols, Symbol, build_id, call_frames, call_frames_of_bytes};
#[cfg(test)]
pub use jitdump::builder::DumpBuilder;
pub use jitdump::{JitCode, Jitdump, JitdumpLimits, pid_in_jitdump_name};
pub use kallsyms::{GeneratedCode, Kallsyms};
pub use perf_map::{PerfMap, PerfMapLimits, open_perf_map};
pub use text::{decode, hex};

#[cfg(test)]
pub mod tests;
