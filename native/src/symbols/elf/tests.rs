//! Tests of ELF files: generated ones, real ones beside binutils, and hostile ones.

mod builder;
mod hostile;
mod plt;
mod real;
mod synthetic;
