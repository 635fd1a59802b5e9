//! Where the cgroup hierarchies are mounted.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::cgroup::{Membership, is_within};
use super::unescaped;

/// One mounted hierarchy.
struct Mount {
    place: Vec<u8>,
    /// The cgroup that is mounted there.
    root: Vec<u8>,
    /// Empty in the v2 hierarchy.
    controllers: Vec<Vec<u8>>,
}

/// All that this process sees.
pub struct Hierarchies(Vec<Mount>);

impl Hierarchies {
    pub fn read() -> Self {
        Self::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &[u8]) -> Self {
        Self(mountinfo.split(|&b| b == b'\n').filter_map(mount).collect())
    }

    /// The directory of a cgroup, if it is mounted.
    pub fn directory(&self, place: Membership<'_>) -> Option<PathBuf> {
        let directory = |mount: &Mount| {
            let root = mount.root.strip_suffix(b"/").unwrap_or(&mount.root);
            let below = is_within(place.path, root).then(|| &place.path[root.len()..])?;
            let path = [&mount.place, below].concat();
            Some(PathBuf::from(OsString::from_vec(path))).filter(|path| path.is_dir())
        };
        self.0.iter().filter(|mount| mount.holds(place.controllers)).find_map(directory)
    }
}

impl Mount {
    fn holds(&self, controllers: &[u8]) -> bool {
        match controllers {
            b"" => self.controllers.is_empty(),
            some => some.split(|&b| b == b',').all(|one| self.controllers.iter().any(|own| own == one)),
        }
    }
}

/// `31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let (root, place) = (fields.nth(3)?, fields.next()?);
    let mut kind = fields.skip_while(|&field| field != b"-").skip(1);
    let controllers = match kind.next()? {
        b"cgroup2" => Vec::new(),
        b"cgroup" => kind.nth(1)?.split(|&b| b == b',').map(<[u8]>::to_vec).collect(),
        _ => return None,
    };
    // The kernel writes `\040` for a space.
    let plain = |path| unescaped(path, b"\\", 3, 8);
    Some(Mount { place: plain(place), root: plain(root), controllers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_where_its_hierarchy_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        for path in ["v2/a", "cpu/b c", "part/inner"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let hierarchies = Hierarchies::parse(
            format!(
                "24 1 0:22 / /proc rw - proc proc rw\n\
                 31 25 0:27 / {at}/v2 rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                 32 25 0:28 / {at}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                 33 25 0:29 /docker/x {at}/part rw - cgroup cgroup rw,memory\n"
            )
            .as_bytes(),
        );
        let found = |controllers: &str, path: &str| {
            let place = Membership { controllers: controllers.as_bytes(), path: path.as_bytes() };
            hierarchies.directory(place)?.strip_prefix(dir.path()).ok().map(|path| path.to_path_buf())
        };
        assert_eq!(found("", "/a"), Some(PathBuf::from("v2/a")));
        assert_eq!(found("cpu,cpuacct", "/b c"), Some(PathBuf::from("cpu/b c")));
        assert_eq!(found("memory", "/docker/x/inner"), Some(PathBuf::from("part/inner")));
        assert_eq!(found("memory", "/docker/xy/inner"), None);
        assert_eq!(found("pids", "/a"), None);
        assert_eq!(found("", "/gone"), None);
    }
}
