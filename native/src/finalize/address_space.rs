//! Where files are mapped in one process, and how that changes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::wire::MappedFile;

/// More than any real process has: vm.max_map_count is 65530 by default.
const MAX_MAPS: usize = 1 << 18;

/// The version of an address space without mappings.
pub const EMPTY_VERSION: u64 = 0;

/// Every distinct mapped file, by a small number.
#[derive(Default)]
pub struct Files {
    files: Vec<MappedFile>,
    ids: HashMap<MappedFile, u32, ahash::RandomState>,
}

impl Files {
    pub fn id(&mut self, file: MappedFile) -> u32 {
        if let Some(&id) = self.ids.get(&file) {
            return id;
        }
        let id = self.files.len() as u32;
        self.files.push(file.clone());
        self.ids.insert(file, id);
        id
    }

    pub fn find(&self, file: &MappedFile) -> Option<u32> {
        self.ids.get(file).copied()
    }

    pub fn get(&self, id: u32) -> &MappedFile {
        &self.files[id as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &MappedFile)> {
        self.files.iter().enumerate().map(|(id, file)| (id as u32, file))
    }
}

/// One executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    /// Key into [`Files`].
    pub file: u32,
}

/// Gives every state that an address space was ever in a number of its own.
pub struct Versions(u64);

impl Default for Versions {
    fn default() -> Self {
        Self(EMPTY_VERSION)
    }
}

impl Versions {
    pub fn fresh(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// The mappings of a process at one moment; a fork shares them until either side changes.
///
/// Two spaces with the same version have the same mappings.
#[derive(Clone)]
pub struct AddressSpace {
    /// Sorted, disjoint.
    maps: Arc<Vec<Map>>,
    version: u64,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self { maps: Arc::default(), version: EMPTY_VERSION }
    }
}

impl AddressSpace {
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Marks the same mappings as another state: code that they hold means something else now.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// Is nothing known to be mapped?
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    pub fn find(&self, address: u64) -> Option<&Map> {
        let after = self.maps.partition_point(|map| map.start <= address);
        self.maps[..after].last().filter(|map| address < map.end)
    }

    /// A new mapping takes the place of what it overlaps.
    pub fn map(&mut self, new: Map, versions: &mut Versions) {
        let (first, last) = self.overlapping(&new);
        let is_news = last - first != 1 || self.maps[first] != new;
        if new.start >= new.end || !is_news || self.maps.len() >= MAX_MAPS {
            return;
        }
        let maps = Arc::make_mut(&mut self.maps);
        let mut pieces = Vec::with_capacity(3);
        if first < last && maps[first].start < new.start {
            pieces.push(Map { end: new.start, ..maps[first] });
        }
        pieces.push(new);
        if first < last && maps[last - 1].end > new.end {
            let cut = maps[last - 1];
            let skipped = new.end - cut.start;
            pieces.push(Map { start: new.end, file_offset: cut.file_offset.wrapping_add(skipped), ..cut });
        }
        maps.splice(first..last, pieces);
        self.version = versions.fresh();
    }

    /// Adds only those parts of the mapping that overlap nothing.
    pub fn fill(&mut self, new: Map, versions: &mut Versions) {
        let (first, last) = self.overlapping(&new);
        let taken: Vec<(u64, u64)> = self.maps[first..last].iter().map(|map| (map.start, map.end)).collect();
        let mut start = new.start;
        for (taken_start, taken_end) in taken.into_iter().chain([(new.end, new.end)]) {
            if start < taken_start {
                let file_offset = new.file_offset.wrapping_add(start - new.start);
                self.map(Map { start, end: taken_start, file_offset, file: new.file }, versions);
            }
            start = start.max(taken_end);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn overlapping(&self, new: &Map) -> (usize, usize) {
        let first = self.maps.partition_point(|map| map.end <= new.start);
        let last = self.maps.partition_point(|map| map.start < new.end);
        (first, last.max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: u64, end: u64, file_offset: u64, file: u32) -> Map {
        Map { start, end, file_offset, file }
    }

    #[test]
    fn a_new_mapping_cuts_the_old_ones() {
        let (mut space, mut versions) = (AddressSpace::default(), Versions::default());
        space.map(map(100, 200, 0, 0), &mut versions);
        space.map(map(200, 300, 0, 1), &mut versions);
        space.map(map(120, 140, 7, 2), &mut versions);
        space.map(map(190, 210, 9, 3), &mut versions);
        let expected = [
            map(100, 120, 0, 0),
            map(120, 140, 7, 2),
            map(140, 190, 40, 0),
            map(190, 210, 9, 3),
            map(210, 300, 10, 1),
        ];
        assert_eq!(space.maps.as_slice(), expected);
        assert_eq!(space.find(139).unwrap().file, 2);
        assert_eq!(space.find(300), None);
        assert_eq!(space.find(99), None);
    }

    #[test]
    fn fill_leaves_what_is_there() {
        let (mut space, mut versions) = (AddressSpace::default(), Versions::default());
        space.map(map(100, 200, 0, 0), &mut versions);
        space.map(map(250, 260, 0, 0), &mut versions);
        space.fill(map(50, 300, 1000, 1), &mut versions);
        let files: Vec<_> = space.maps.iter().map(|m| (m.start, m.end, m.file_offset, m.file)).collect();
        assert_eq!(
            files,
            [
                (50, 100, 1000, 1),
                (100, 200, 0, 0),
                (200, 250, 1150, 1),
                (250, 260, 0, 0),
                (260, 300, 1210, 1)
            ]
        );
    }

    #[test]
    fn a_fork_shares_until_it_changes() {
        let (mut parent, mut versions) = (AddressSpace::default(), Versions::default());
        parent.map(map(100, 200, 0, 0), &mut versions);
        let mut child = parent.clone();
        assert_eq!(child.version(), parent.version());
        child.map(map(100, 200, 0, 0), &mut versions);
        assert_eq!(child.version(), parent.version());
        child.map(map(100, 200, 0, 1), &mut versions);
        assert_ne!(child.version(), parent.version());
        assert_eq!(parent.find(150).unwrap().file, 0);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let (mut space, mut versions) = (AddressSpace::default(), Versions::default());
        space.map(map(100, 200, 0, 0), &mut versions);
        space.map(map(150, 150, 0, 1), &mut versions);
        space.map(map(180, 120, 0, 1), &mut versions);
        space.fill(map(180, 120, 0, 1), &mut versions);
        assert_eq!(space.maps.len(), 1);
    }
}
