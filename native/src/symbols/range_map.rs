//! Which of many, possibly overlapping, address ranges owns an address.

use std::collections::BinaryHeap;

/// One range of addresses, `start..end`, with what the owner of the map keeps for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub value: u32,
    /// Where ranges overlap the greater one wins.
    pub priority: u32,
}

/// Finds the winning range by one binary search, however the ranges overlap.
#[derive(Debug, Default)]
pub struct RangeMap {
    spans: Vec<Span>,
    /// Start of each piece; it reaches to the next piece or to the end of its owner.
    starts: Vec<u64>,
    /// Index in `spans` of the owner of each piece.
    owners: Vec<u32>,
}

impl RangeMap {
    /// Sorts the ranges and cuts them into disjoint pieces: O(n log n), at most two a range.
    pub fn new(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.start < span.end);
        spans.sort_by_key(|span| span.start);
        let mut map = RangeMap {
            starts: Vec::with_capacity(spans.len()),
            owners: Vec::with_capacity(spans.len()),
            spans: Vec::new(),
        };
        let mut active = Active::default();
        for (index, span) in spans.iter().enumerate() {
            active.paint_until(span.start, &mut map);
            active.push(span, index as u32);
        }
        active.paint_until(u64::MAX, &mut map);
        map.spans = spans;
        map
    }

    /// The range that wins at `address`, if any covers it.
    pub fn find(&self, address: u64) -> Option<&Span> {
        let piece = self.starts.partition_point(|&start| start <= address);
        let owner = *self.owners.get(piece.checked_sub(1)?)?;
        let span = self.spans.get(owner as usize)?;
        (address < span.end).then_some(span)
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn push(&mut self, start: u64, owner: u32) {
        self.starts.push(start);
        self.owners.push(owner);
    }
}

/// The ranges that reach beyond the address up to which pieces were made.
#[derive(Default)]
struct Active {
    cursor: u64,
    /// (priority, index, end): the winner is on top.
    heap: BinaryHeap<(u32, u32, u64)>,
}

impl Active {
    fn push(&mut self, span: &Span, index: u32) {
        self.heap.push((span.priority, index, span.end));
    }

    /// Makes the pieces of `cursor..limit`.
    fn paint_until(&mut self, limit: u64, map: &mut RangeMap) {
        while let Some(&(_, index, end)) = self.heap.peek() {
            if end <= self.cursor {
                self.heap.pop();
            } else if self.cursor < limit {
                map.push(self.cursor, index);
                self.cursor = end.min(limit);
            } else {
                return;
            }
        }
        self.cursor = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::{RangeMap, Span};

    fn span(start: u64, end: u64, value: u32, priority: u32) -> Span {
        Span { start, end, value, priority }
    }

    /// What `find` must answer: the greatest priority among the ranges that cover the address.
    fn brute(spans: &[Span], address: u64) -> Option<u32> {
        spans
            .iter()
            .filter(|span| span.start <= address && address < span.end)
            .max_by_key(|span| span.priority)
            .map(|span| span.value)
    }

    #[test]
    fn agrees_with_a_linear_search_on_random_ranges() {
        let mut random = crate::symbols::tests::Random::new(7);
        for round in 0..400 {
            let count = round % 40;
            let mut spans: Vec<Span> = (0..count)
                .map(|value| {
                    let start = random.below(64);
                    span(start, start + random.below(24), value, 0)
                })
                .collect();
            for (priority, index) in random.shuffled(count as usize).into_iter().enumerate() {
                spans[index].priority = priority as u32;
            }
            let map = RangeMap::new(spans.clone());
            for address in 0..100 {
                let found = map.find(address).map(|span| span.value);
                assert_eq!(found, brute(&spans, address), "{spans:?} at {address}");
            }
        }
    }

    #[test]
    fn ends_of_the_address_space() {
        let map = RangeMap::new(vec![span(0, 1, 1, 0), span(u64::MAX - 1, u64::MAX, 2, 1), span(5, 5, 3, 2)]);
        let value = |address| map.find(address).map(|span| span.value);
        assert_eq!(value(0), Some(1));
        assert_eq!(value(1), None);
        assert_eq!(value(5), None);
        assert_eq!(value(u64::MAX - 1), Some(2));
        assert_eq!(value(u64::MAX), None);
        assert!(RangeMap::new(Vec::new()).find(3).is_none());
    }

    #[test]
    fn deep_nesting_costs_no_more_than_a_search() {
        let depth = 200_000;
        let spans = (0..depth).map(|i| span(i, 2 * depth - i, i as u32, i as u32)).collect();
        let map = RangeMap::new(spans);
        assert!(map.starts.len() <= 2 * depth as usize);
        assert_eq!(map.find(2 * depth - 1).unwrap().value, 0);
        assert_eq!(map.find(depth).unwrap().value, depth as u32 - 1);
    }
}
