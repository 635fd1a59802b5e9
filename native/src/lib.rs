//! The core of sberf; this file holds the export list and nothing else.
mod arguments;
mod capture;
mod compact;
mod disk_cache;
mod error;
mod features;
mod finalize;
mod memory;
mod perf_record;
mod python;
mod spool;
mod symbols;
mod unwind;
mod vdso;
mod wire;
