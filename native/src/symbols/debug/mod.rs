//! Debug information: where it lies, and what it says of an address.

mod data;
mod known;
mod names;
mod search;
mod source;

pub use known::KnownCalls;
pub use names::{CodeFile, CodeNames};
pub use search::{DebugDirs, open_regular};
pub use source::SourceCall;
#[cfg(test)]
mod tests;
