//! Which of many address ranges, each taken over at some time, owns an address at a time.

use std::ops::Range;

/// Ranges in the order of time: a later one takes the place of what it overlaps.
///
/// A segment tree over the pieces between all starts and ends: a range is a member of the few nodes
/// that make it up, so that a lookup asks the nodes above one piece, whatever overlaps whatever.
#[derive(Debug, Default)]
pub struct RangeHistory {
    /// Every start and end, ascending.
    bounds: Vec<u64>,
    /// By node: where its members begin in `members`.
    first: Vec<u32>,
    /// Indices of ranges, ascending within a node.
    members: Vec<u32>,
    len: usize,
}

impl RangeHistory {
    /// O(n log n).  Ranges that would make more than `max_members` members are left out, the latest
    /// first: see [`Self::len`].
    pub fn new(ranges: &[Range<u64>], max_members: u32) -> Self {
        let mut bounds: Vec<u64> = ranges.iter().flat_map(|range| [range.start, range.end]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let pieces = bounds.len().saturating_sub(1);
        let mut history = Self { bounds, first: vec![0; 2 * pieces + 1], members: Vec::new(), len: 0 };
        let mut count: u32 = 0;
        for range in ranges {
            let nodes = history.nodes(range);
            if nodes.clone().count() as u32 > max_members - count {
                break;
            }
            nodes.for_each(|node| {
                history.first[node + 1] += 1;
                count += 1;
            });
            history.len += 1;
        }
        for node in 0..2 * pieces {
            history.first[node + 1] += history.first[node];
        }
        history.members = vec![0; count as usize];
        let mut next = history.first.clone();
        for (index, range) in ranges[..history.len].iter().enumerate() {
            for node in history.nodes(range) {
                history.members[next[node] as usize] = index as u32;
                next[node] += 1;
            }
        }
        history
    }

    /// How many of the ranges are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The last range before the one with index `before` that covers the address.
    pub fn last(&self, address: u64, before: u32) -> Option<u32> {
        let last_of = |members: &[u32]| {
            let at = members.partition_point(|&index| index < before);
            at.checked_sub(1).map(|at| members[at])
        };
        self.above(address).filter_map(last_of).max()
    }

    /// The first range from index `from` on that covers the address.
    pub fn first(&self, address: u64, from: u32) -> Option<u32> {
        let first_of = |members: &[u32]| members.get(members.partition_point(|&index| index < from)).copied();
        self.above(address).filter_map(first_of).min()
    }

    /// The members of each node above the piece in which the address lies.
    fn above(&self, address: u64) -> impl Iterator<Item = &[u32]> {
        let pieces = self.bounds.len().saturating_sub(1);
        let after = self.bounds.partition_point(|&bound| bound <= address);
        let piece = after.checked_sub(1).filter(|&piece| piece < pieces);
        let leaf = piece.map_or(0, |piece| piece + pieces);
        std::iter::successors(Some(leaf), |node| Some(node / 2))
            .take_while(|&node| node > 0)
            .map(|node| &self.members[self.first[node] as usize..self.first[node + 1] as usize])
    }

    /// The nodes that make up a range.
    fn nodes(&self, range: &Range<u64>) -> impl Iterator<Item = usize> + Clone + use<> {
        let pieces = self.bounds.len().saturating_sub(1);
        let piece = |bound: u64| self.bounds.partition_point(|&other| other < bound);
        let (mut left, mut right) = (piece(range.start) + pieces, piece(range.end) + pieces);
        let mut waiting = None;
        std::iter::from_fn(move || {
            if let Some(node) = waiting.take() {
                return Some(node);
            }
            while left < right {
                let (from, to) = (left, right);
                (left, right) = (from.div_ceil(2), to / 2);
                match (from % 2, to % 2) {
                    (0, 0) => {}
                    (1, 0) => return Some(from),
                    (0, _) => return Some(to - 1),
                    (_, _) => {
                        waiting = Some(from);
                        return Some(to - 1);
                    }
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::RangeHistory;
    use crate::symbols::tests::Random;

    fn random_ranges(random: &mut Random, count: u64, span: u64) -> Vec<Range<u64>> {
        (0..count)
            .map(|_| {
                let start = random.below(span);
                start..start + random.below(span / 2)
            })
            .collect()
    }

    #[test]
    fn agrees_with_a_linear_search() {
        let mut random = Random::new(5);
        for round in 0..300 {
            let ranges = random_ranges(&mut random, round % 40, 64);
            let history = RangeHistory::new(&ranges, u32::MAX);
            assert_eq!(history.len(), ranges.len());
            for address in 0..100 {
                for split in 0..=ranges.len() {
                    let covers = |&index: &usize| ranges[index].contains(&address);
                    let last = (0..split).rev().find(covers).map(|index| index as u32);
                    let first = (split..ranges.len()).find(covers).map(|index| index as u32);
                    let found = (history.last(address, split as u32), history.first(address, split as u32));
                    assert_eq!(found, (last, first), "{ranges:?} at {address}, {split}");
                }
            }
        }
    }

    #[test]
    fn ends_of_the_address_space() {
        let history = RangeHistory::new(&[0..1, u64::MAX - 1..u64::MAX, 5..5], u32::MAX);
        let found = [0, 1, 5, u64::MAX - 1, u64::MAX].map(|address| history.last(address, 3));
        assert_eq!(found, [Some(0), None, None, Some(1), None]);
        assert_eq!(RangeHistory::new(&[], 0).last(0, 1), None);
        let empty = std::slice::from_ref(&(3..3));
        assert_eq!(RangeHistory::new(empty, 0).first(3, 0), None);
    }

    #[test]
    fn members_are_bounded() {
        let ranges: Vec<_> = (0..100_000).map(|i| i..200_000 - i).collect();
        let whole = RangeHistory::new(&ranges, u32::MAX);
        assert_eq!(whole.last(100_000, u32::MAX), Some(99_999));
        let cut = RangeHistory::new(&ranges, 1000);
        assert!(cut.members.len() <= 1000 && (40..1000).contains(&cut.len()), "{}", cut.len());
        let last = cut.len() as u32 - 1;
        assert_eq!(cut.last(100_000, u32::MAX), Some(last));
        assert_eq!(cut.first(100_000, last + 1), None);
    }
}
