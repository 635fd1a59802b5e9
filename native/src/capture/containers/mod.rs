//! In which container a process is, and what the container is called.
//!
//! The kernel knows no containers.  A container is what a runtime put into a cgroup of its own and, but
//! for few, into namespaces of its own.

mod cgroup;
mod hierarchy;
mod names;
mod notes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cgroup::{Found, Membership};
use hierarchy::Hierarchies;
use names::Names;
pub use notes::Notes;

use super::procfs;
use crate::wire::Cgroup;

/// Places that are remembered; then the memory begins anew.
const MAX_KNOWN: usize = 1 << 12;
/// How many processes of a cgroup are asked whether they are the host's.
const MAX_NEIGHBOURS: usize = 64;
const MAX_PROCS_BYTES: u64 = 64 << 10;

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Text: `\xNN` for bytes that are not UTF-8.
    pub id: String,
    /// The user of a rootless container, as far as its cgroup's path tells.
    owner: Option<u32>,
    /// Its outermost cgroup, of the hierarchies that the kernel can tell tasks by if possible.
    controllers: Vec<u8>,
    path: Vec<u8>,
}

/// A container that runs now.
pub struct Running {
    pub id: String,
    pub name: Option<String>,
    /// Its outermost cgroup.
    pub directory: PathBuf,
}

/// Finds containers, and remembers them.
pub struct Containers {
    ours: Namespaces,
    hierarchies: Hierarchies,
    names: Names,
    /// By what a process's cgroups and namespaces are.
    known: HashMap<(Vec<u8>, Namespaces), Option<Arc<Container>>, ahash::RandomState>,
}

/// Inode numbers; None where they may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Namespaces {
    mount: Option<u64>,
    pid: Option<u64>,
}

impl Containers {
    pub fn new() -> Self {
        Self {
            ours: Namespaces::of("self"),
            hierarchies: Hierarchies::read(),
            names: Names::new(Path::new("/")),
            known: HashMap::default(),
        }
    }

    /// The container that a process is in.
    ///
    /// # Errors
    /// The process has gone.
    pub fn of(&mut self, pid: i32) -> io::Result<Option<Arc<Container>>> {
        let key = (fs::read(format!("/proc/{pid}/cgroup"))?, Namespaces::of(&pid.to_string()));
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = self.find(cgroup::memberships(&key.0), key.1).map(Arc::new);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, found.clone());
        Ok(found)
    }

    /// The container of processes of which the kernel told the cgroups.
    pub fn at(&self, cgroups: &[Cgroup]) -> Option<Container> {
        let first = cgroups.first()?;
        let namespaces =
            Namespaces { mount: Some(u64::from(first.mount_ns)), pid: Some(u64::from(first.pid_ns)) };
        let places = cgroups.iter();
        let places = places.map(|place| Membership { controllers: &place.controller, path: &place.path });
        self.find(cgroup::in_order(places.collect()), namespaces)
    }

    /// What a container is called, if a runtime's files tell.
    pub fn name(&mut self, container: &Container) -> Option<String> {
        self.names.of(&container.id, container.owner)
    }

    fn find(&self, places: Vec<Membership<'_>>, namespaces: Namespaces) -> Option<Container> {
        let apart = namespaces.differ_from(self.ours);
        let by_name = |place: &Membership<'_>| {
            let found = cgroup::by_name(place.path, apart.mount || apart.pid)?;
            Some(Container::new(*place, &found))
        };
        if let Some(container) = places.iter().find_map(by_name) {
            return Some(container);
        }
        if !(apart.mount && apart.pid) {
            return None;
        }
        places.into_iter().find_map(|place| self.by_hand(place))
    }

    /// The container that a runtime was called by hand for: one without a daemon that gives IDs.
    fn by_hand(&self, place: Membership<'_>) -> Option<Container> {
        let directory = self.hierarchies.directory(place);
        if let Some(manual) = self.names.manual(place.path, directory.as_deref()) {
            let root = &place.path[..manual.root_len];
            return Some(Container::new(place, &Found { id: manual.id, root }));
        }
        let found = cgroup::by_place(place.path)?;
        let is_shared = directory.is_some_and(|directory| self.has_our_processes(&directory));
        (!is_shared).then(|| Container::new(place, &found))
    }

    /// Is a process of our own PID namespace in the cgroup?  Then it is not a container's: somebody
    /// only called `unshare` there.
    fn has_our_processes(&self, directory: &Path) -> bool {
        let mut text = Vec::new();
        let file = File::open(directory.join("cgroup.procs"));
        // A threaded cgroup does not tell its processes.
        let _ = file.and_then(|file| file.take(MAX_PROCS_BYTES).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let mut pids = text.lines().take(MAX_NEIGHBOURS);
        self.ours.pid.is_some() && pids.any(|pid| Namespaces::of(pid).pid == self.ours.pid)
    }
}

impl Container {
    fn new(place: Membership<'_>, found: &Found<'_>) -> Self {
        Self {
            id: found.id.clone(),
            owner: cgroup::owner(place.path),
            controllers: place.controllers.to_vec(),
            path: found.root.to_vec(),
        }
    }
}

impl Namespaces {
    fn of(pid: &str) -> Self {
        let inode = |kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|ns| ns.ino());
        Self { mount: inode("mnt"), pid: inode("pid") }
    }

    fn differ_from(self, other: Self) -> Apart {
        let differ = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
        Apart { mount: differ(self.mount, other.mount), pid: differ(self.pid, other.pid) }
    }
}

struct Apart {
    mount: bool,
    pid: bool,
}

/// The containers that have a process, each once, in the order of their IDs.
pub fn running() -> io::Result<Vec<Running>> {
    let mut containers = Containers::new();
    let mut found: Vec<Arc<Container>> = Vec::new();
    for pid in procfs::all_pids()? {
        found.extend(containers.of(pid).ok().flatten());
    }
    found.sort_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
    found.dedup_by(|a, b| (&a.id, &a.path) == (&b.id, &b.path));
    let mut running = Vec::new();
    for container in found {
        let place = Membership { controllers: &container.controllers, path: &container.path };
        if let Some(directory) = containers.hierarchies.directory(place) {
            let name = containers.name(&container);
            running.push(Running { id: container.id.clone(), name, directory });
        }
    }
    Ok(running)
}

/// Replaces what stands for a byte: `mark` and so many digits.
fn unescaped(mut text: &[u8], mark: &[u8], digits: usize, radix: u32) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let code = text.strip_prefix(mark).and_then(|rest| rest.get(..digits));
        let code = code.filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, radix).ok());
        plain.push(byte.unwrap_or(*first));
        text = if byte.is_some() { &text[mark.len() + digits..] } else { rest };
    }
    plain
}
