//! What a recording is told of containers: which one each process is in, and each one's name once.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::{Container, Containers};
use crate::wire::{Cgroup, ContainerNote};

/// Containers and keys that are remembered; then the memory begins anew.
const MAX_TOLD: usize = 1 << 14;

pub struct Notes {
    containers: Containers,
    /// By ID.  Those without a name yet may be so new that their runtime has not written it.
    unnamed: HashMap<String, Arc<Container>>,
    named: HashSet<String>,
    keys: HashSet<u64>,
}

impl Notes {
    pub fn new() -> Self {
        Self {
            containers: Containers::new(),
            unnamed: HashMap::new(),
            named: HashSet::new(),
            keys: HashSet::new(),
        }
    }

    /// The ID of the container that a process is in; what is new of it goes to `tell`.
    ///
    /// # Errors
    /// The process has gone.
    pub fn container_of(
        &mut self,
        pid: i32,
        tell: &mut dyn FnMut(&ContainerNote),
    ) -> io::Result<Option<String>> {
        let Some(container) = self.containers.of(pid)? else { return Ok(None) };
        self.name(&container, tell);
        Ok(Some(container.id.clone()))
    }

    /// Finds out what the key of a process's exec stands for, unless that was told.
    pub fn explain(&mut self, key: u64, pid: i32, cgroups: &[Cgroup], tell: &mut dyn FnMut(&ContainerNote)) {
        if self.keys.contains(&key) {
            return;
        }
        let id = if cgroups.is_empty() {
            // When the process has gone, the next one with this key tells.
            let Ok(id) = self.container_of(pid, tell) else { return };
            id
        } else {
            let container = self.containers.at(cgroups).map(Arc::new);
            container.map(|container| {
                self.name(&container, tell);
                container.id.clone()
            })
        };
        if self.keys.len() >= MAX_TOLD {
            self.keys.clear();
        }
        self.keys.insert(key);
        tell(&ContainerNote { key: Some(key), id, name: None });
    }

    /// Looks once more for the names that were not there.
    pub fn finish(mut self, tell: &mut dyn FnMut(&ContainerNote)) {
        for container in std::mem::take(&mut self.unnamed).into_values() {
            self.name(&container, tell);
        }
    }

    fn name(&mut self, container: &Arc<Container>, tell: &mut dyn FnMut(&ContainerNote)) {
        let id = &container.id;
        if self.named.contains(id) {
            return;
        }
        if self.named.len() + self.unnamed.len() >= MAX_TOLD {
            self.named.clear();
            self.unnamed.clear();
        }
        match self.containers.name(container) {
            Some(name) => {
                self.named.insert(id.clone());
                self.unnamed.remove(id);
                tell(&ContainerNote { key: None, id: Some(id.clone()), name: Some(name) });
            }
            None => {
                self.unnamed.insert(id.clone(), Arc::clone(container));
            }
        }
    }
}
