//! Tests of ELF files: generated ones, real ones beside binutils, and hostile ones.

mod builder;
mod hostile;
mod plt;
mod real;
mod synthetic;

use super::{ElfSymbols, Symbol};

fn at_offset(symbols: &ElfSymbols, file_offset: u64) -> Option<Symbol<'_>> {
    symbols.lookup(symbols.address_of(file_offset)?)
}
