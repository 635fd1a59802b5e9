//! What containers are called, from the files in which their runtimes keep their state.
//!
//! Files only, never a daemon's socket: a daemon may be slow, and what is asked of it may start something.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::cgroup::{is_long_id, is_within};

/// A state file is not larger; the list of a few thousand podman containers is one of some megabytes.
const MAX_STATE_BYTES: u64 = 16 << 20;
/// Containers of a runtime that was called by hand, and namespaces of containerd.
const MAX_ENTRIES: usize = 1024;
/// Characters of a name.
const MAX_NAME: usize = 256;

const DOCKER: [&str; 2] = ["var/lib/docker", "var/snap/docker/common/var-lib-docker"];
const CONTAINERD: [&str; 3] =
    ["run/containerd", "run/k3s/containerd", "var/snap/microk8s/common/run/containerd"];
/// podman, CRI-O and buildah: what they store, and what they forget at a reboot.
const STORAGE: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
const STORAGE_DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// Reads the names; remembers lists of many containers for as long as they do not change.
pub struct Names {
    /// `/`, but for tests.
    root: PathBuf,
    lists: HashMap<PathBuf, (SystemTime, HashMap<String, String>)>,
}

/// A container that crun or runc was told by hand to run.
pub struct Manual {
    pub id: String,
    /// The container's cgroup, a part of the path that was asked for.
    pub root_len: usize,
}

impl Names {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), lists: HashMap::new() }
    }

    /// The name of a container, where a runtime's files tell one; `owner` is the user of a rootless one.
    pub fn of(&mut self, id: &str, owner: Option<u32>) -> Option<String> {
        if !is_long_id(id.as_bytes()) {
            return Some(shortened(id)); // somebody called it so
        }
        let home = owner.and_then(|uid| Some((self.root.join(home_of(&self.root, uid)?), uid)));
        let name = self.docker(id, home.as_ref()).or_else(|| self.storage(id, home.as_ref()));
        let name = name.or_else(|| self.containerd(id));
        name.map(|name| shortened(&name)).filter(|name| !name.is_empty())
    }

    /// The container of crun or runc that has the cgroup `path`, or one above it; `directory` is its place.
    pub fn manual(&self, path: &[u8], directory: Option<&Path>) -> Option<Manual> {
        self.crun(path).or_else(|| self.runc(path, directory?))
    }

    /// `{"ID":"<id>","Name":"/web", ...}`
    fn docker(&self, id: &str, home: Option<&(PathBuf, u32)>) -> Option<String> {
        #[derive(Deserialize)]
        struct Container {
            #[serde(rename = "Name")]
            name: String,
        }
        let configured = self.docker_root();
        let ours = DOCKER.iter().map(|dir| self.root.join(dir)).chain(configured).map(|dir| (dir, 0));
        let theirs = home.map(|(home, uid)| (home.join(".local/share/docker"), *uid));
        let mut places = ours.chain(theirs);
        let container: Container = places.find_map(|(dir, uid)| {
            read_json(&dir.join("containers").join(id).join("config.v2.json"), uid).ok()
        })?;
        let name = container.name.trim_start_matches('/');
        Some(kubernetes_name(name).unwrap_or_else(|| name.to_string()))
    }

    /// `{"data-root": "/srv/docker"}`
    fn docker_root(&self) -> Option<PathBuf> {
        #[derive(Deserialize)]
        struct Daemon {
            #[serde(rename = "data-root")]
            data_root: String,
        }
        let daemon: Daemon = read_json(&self.root.join("etc/docker/daemon.json"), 0).ok()?;
        Some(self.root.join(daemon.data_root.trim_start_matches('/')))
    }

    fn storage(&mut self, id: &str, home: Option<&(PathBuf, u32)>) -> Option<String> {
        let mut places: Vec<_> = STORAGE.iter().map(|dir| (self.root.join(dir), 0)).collect();
        if let Some((home, uid)) = home {
            places.push((home.join(".local/share/containers/storage"), *uid));
            places.push((self.root.join(format!("run/user/{uid}/containers")), *uid));
        }
        for (dir, uid) in places {
            for driver in STORAGE_DRIVERS {
                let containers = dir.join(format!("{driver}-containers"));
                for list in ["containers.json", "volatile-containers.json"] {
                    if let Some(name) = self.listed(&containers.join(list), uid, id) {
                        return Some(name);
                    }
                }
            }
        }
        None
    }

    /// `[{"id":"<id>","names":["web"],"metadata":"..."}, ...]`
    fn listed(&mut self, path: &Path, uid: u32, id: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Container {
            id: String,
            #[serde(default)]
            names: Vec<String>,
        }
        let changed = fs::symlink_metadata(path).ok()?.modified().ok()?;
        if self.lists.get(path).is_none_or(|(read, _)| *read != changed) {
            let containers: Vec<Container> = read_json(path, uid).unwrap_or_default();
            let named = containers.into_iter().filter_map(|mut container| {
                let name = container.names.drain(..).next()?;
                Some((container.id, kubernetes_name(&name).unwrap_or(name)))
            });
            self.lists.insert(path.to_path_buf(), (changed, named.collect()));
        }
        self.lists.get(path)?.1.get(id).cloned()
    }

    /// The OCI configuration of a container, with what its caller noted in it.
    fn containerd(&self, id: &str) -> Option<String> {
        CONTAINERD.iter().find_map(|dir| {
            let tasks = self.root.join(dir).join("io.containerd.runtime.v2.task");
            entries(&tasks).find_map(|namespace| {
                let config: Config = read_json(&namespace.join(id).join("config.json"), 0).ok()?;
                config.name()
            })
        })
    }

    /// `/run/crun/NAME/status`: `{"pid": 812, "cgroup-path": "/NAME", ...}`
    fn crun(&self, path: &[u8]) -> Option<Manual> {
        #[derive(Deserialize)]
        struct Status {
            #[serde(rename = "cgroup-path")]
            cgroup: String,
        }
        entries(&self.root.join("run/crun")).find_map(|dir| {
            let status: Status = read_json(&dir.join("status"), 0).ok()?;
            let root = status.cgroup.trim_end_matches('/').as_bytes();
            let id = dir.file_name()?.to_str()?.to_string();
            (!root.is_empty() && is_within(path, root)).then_some(Manual { id, root_len: root.len() })
        })
    }

    /// `/run/runc/NAME/state.json`: `{"id":"NAME","cgroup_paths":{"memory":"/sys/fs/cgroup/memory/NAME"}}`
    fn runc(&self, path: &[u8], directory: &Path) -> Option<Manual> {
        #[derive(Deserialize)]
        struct State {
            id: String,
            cgroup_paths: HashMap<String, PathBuf>,
        }
        entries(&self.root.join("run/runc")).find_map(|dir| {
            let state: State = read_json(&dir.join("state.json"), 0).ok()?;
            let above = state.cgroup_paths.values().find(|root| directory.starts_with(root))?;
            let below = directory.as_os_str().len() - above.as_os_str().len();
            let root_len = path.len().checked_sub(below).filter(|&len| len > 1)?;
            Some(Manual { id: state.id, root_len })
        })
    }
}

/// `config.json` of an OCI bundle.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Config {
    fn name(&self) -> Option<String> {
        let note = |name: &str| self.annotations.get(name).map(String::as_str);
        if let Some(name) = note("nerdctl/name") {
            return Some(name.to_string());
        }
        let pod = note("io.kubernetes.cri.sandbox-name").or_else(|| note("io.kubernetes.pod.name"))?;
        let container =
            note("io.kubernetes.cri.container-name").or_else(|| note("io.kubernetes.container.name"));
        Some(in_pod(pod, container.unwrap_or("POD")))
    }
}

/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`, as docker and CRI-O call the containers of a kubelet.
fn kubernetes_name(name: &str) -> Option<String> {
    let mut fields = name.strip_prefix("k8s_")?.split('_');
    let (container, pod) = (fields.next()?, fields.next()?);
    Some(in_pod(pod, container))
}

fn in_pod(pod: &str, container: &str) -> String {
    format!("{pod}/{container}")
}

fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

/// The home directory of a user, without the leading slash.
///
/// `ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash`
fn home_of(root: &Path, uid: u32) -> Option<String> {
    let passwd = read_bounded(&root.join("etc/passwd"), 0).ok()?;
    String::from_utf8_lossy(&passwd).lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let is_theirs = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        is_theirs.then(|| home.trim_start_matches('/').to_string())
    })
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_ENTRIES)
}

fn read_json<T: DeserializeOwned>(path: &Path, uid: u32) -> io::Result<T> {
    serde_json::from_slice(&read_bounded(path, uid)?).map_err(io::Error::other)
}

/// A file of root, ours or of user `uid`: nobody else is believed, and nothing but a file is waited for.
fn read_bounded(path: &Path, uid: u32) -> io::Result<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: geteuid only reads.
    let trusted = [0, uid, unsafe { libc::geteuid() }].contains(&metadata.uid());
    if !trusted || !metadata.is_file() || metadata.len() > MAX_STATE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
