//! The errors that reach a user; `python.rs` turns them into `NativeError`.

use std::fmt;
use std::io;

/// What sort of mistake it is; the names are those of `_native.pyi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Usage,
    Target,
    Permission,
    Unsupported,
    Capture,
    Recording,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Target => "target",
            Kind::Permission => "permission",
            Kind::Unsupported => "unsupported",
            Kind::Capture => "capture",
            Kind::Recording => "recording",
        }
    }
}

/// A sentence that says what is wrong, and how to mend it.
#[derive(Debug, Clone)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An I/O error of the capture itself, with what was being done.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Kind::Permission,
            _ => Kind::Capture,
        };
        Self::new(kind, format!("{doing}: {}", describe(error)))
    }
}

/// The errno's text without Rust's "(os error N)".
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
