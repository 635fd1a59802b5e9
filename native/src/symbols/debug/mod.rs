//! Debug information: where it lies, and what it says of an address.

mod data;
mod names;
mod search;
mod source;

pub use names::{CodeFile, CodeNames};
pub use search::DebugDirs;
pub use source::SourceCall;
#[cfg(test)]
mod tests;
