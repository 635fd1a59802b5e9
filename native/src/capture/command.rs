//! Starts the traced command stopped before its exec, so that nothing of it is missed.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Kind, Result, describe};
use crate::symbols::decode;

/// A child that waits to exec.  Dropped before `release`, it ends without having run anything.
pub struct Command {
    pub pid: i32,
    go: Option<OwnedFd>,
    /// Closed by a successful exec; an errno arrives here otherwise.
    failure: std::fs::File,
    name: String,
}

impl Command {
    pub fn spawn(argv: &[Vec<u8>]) -> Result<Self> {
        let arguments: Vec<CString> = argv
            .iter()
            .map(|word| CString::new(word.as_slice()))
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| Error::new(Kind::Usage, "an argument of the command holds a NUL byte"))?;
        let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|word| word.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let (go_read, go_write) = pipe().map_err(|e| Error::io("cannot make a pipe", &e))?;
        let (failure_read, failure_write) = pipe().map_err(|e| Error::io("cannot make a pipe", &e))?;
        // SAFETY: the child calls only async-signal-safe functions on memory made before the fork.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(Error::io("cannot fork", &io::Error::last_os_error())),
            0 => {
                wait_and_exec(go_read.as_raw_fd(), go_write.as_raw_fd(), failure_write.as_raw_fd(), &pointers)
            }
            _ => Ok(Self {
                pid,
                go: Some(go_write),
                failure: failure_read.into(),
                name: decode(&argv[0]).into_owned(),
            }),
        }
    }

    /// Lets the child exec; fails when it cannot.
    pub fn release(&mut self) -> Result<()> {
        if let Some(go) = self.go.take() {
            // SAFETY: one byte from a live buffer to a descriptor that we own.
            unsafe { libc::write(go.as_raw_fd(), b"g".as_ptr().cast(), 1) };
        }
        let mut errno = [0; 4];
        match self.failure.read_exact(&mut errno) {
            Err(_) => Ok(()), // closed by the exec
            Ok(()) => {
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                let message = format!("cannot start '{}': {}", self.name, describe(&error));
                Err(Error::new(Kind::Target, message)
                    .hint("give the command after `--`, with its path if it has one"))
            }
        }
    }
}

fn wait_and_exec(go: i32, go_write: i32, failure: i32, argv: &[*const libc::c_char]) -> ! {
    // SAFETY: only async-signal-safe calls on descriptors and pointers that live through the fork.
    unsafe {
        // Our copy of the write end would keep the pipe open when the tracer dies.
        libc::close(go_write);
        let mut byte = 0u8;
        if libc::read(go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(127);
        }
        // Python ignores SIGPIPE and SIGXFSZ, and a mask survives exec too.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::execvp(argv[0], argv.as_ptr());
        let errno = *libc::__errno_location();
        libc::write(failure, (&raw const errno).cast(), 4);
        libc::_exit(127)
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned both, nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}
