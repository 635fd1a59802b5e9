//! The output appears whole or not at all.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A directory beside the output, which becomes the output when it is complete; removed otherwise.
pub struct WorkDir {
    path: PathBuf,
    output: PathBuf,
    published: bool,
}

impl WorkDir {
    pub fn create(output: &Path) -> Result<Self> {
        let no_name = || Error::new(Kind::Usage, format!("'{}' names no directory", output.display()));
        let name = output.file_name().ok_or_else(no_name)?;
        if output.symlink_metadata().is_ok() {
            return Err(exists(output));
        }
        let hidden = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let path = output.with_file_name(hidden);
        fs::create_dir(&path).map_err(|e| Error::io(format!("cannot create '{}'", path.display()), &e))?;
        Ok(Self { path, output: output.to_path_buf(), published: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory its name.
    pub fn publish(mut self) -> Result<()> {
        match rename_to_new(&self.path, &self.output) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.output)),
            Err(error) => Err(Error::io(format!("cannot create '{}'", self.output.display()), &error)),
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.published {
            // There is nothing left to do about a directory that cannot be removed.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn exists(output: &Path) -> Error {
    Error::new(Kind::Usage, format!("'{}' exists", output.display()))
        .hint("choose another output directory; sberf overwrites nothing")
}

/// Renames without ever replacing anything, not even an empty directory.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (c_from, c_to) = (c_path(from)?, c_path(to)?);
    // SAFETY: both are NUL-terminated strings that live until the call returns.
    let result = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            c_from.as_ptr(),
            libc::AT_FDCWD,
            c_to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Not every file system knows the flag.
        Some(libc::EINVAL | libc::ENOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let work = WorkDir::create(&output).unwrap();
        fs::write(work.path().join("file"), "x").unwrap();
        assert!(!output.exists());
        work.publish().unwrap();
        assert!(output.join("file").exists());
        assert_eq!(WorkDir::create(&output).err().unwrap().kind, Kind::Usage);
        let other = dir.path().join("other");
        let work = WorkDir::create(&other).unwrap();
        fs::create_dir(&other).unwrap();
        assert_eq!(work.publish().unwrap_err().kind, Kind::Usage);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
