//! A table as the cache holds it.
//!
//! `{u64 refused, u32 first_page, u32 rules, u32 pages, u32 rows}`, the rules as `to_wire` makes them, each
//! page's number of rows as a byte, the rows.  A table is taken only when it is one that the builder could
//! have made.

use super::cfi::MAX_ROWS;
use super::rule::Rule;
use super::table::{MAX_PAGES, MAX_ROWS_IN_PAGE, MAX_RULES, RULE_BITS, Table};

const HEADER_LEN: usize = 24;
const RULE_LEN: usize = 16;
/// Each page begins with a row of its own, whatever the descriptions say.
const MAX_STORED_ROWS: usize = MAX_ROWS + MAX_PAGES as usize;

/// Of the largest table.
pub const MAX_LEN: usize = HEADER_LEN + MAX_RULES * RULE_LEN + MAX_PAGES as usize + 4 * MAX_STORED_ROWS;

pub fn encode(table: &Table) -> Vec<u8> {
    let (rules, pages, rows) = (&table.rules, table.pages(), &table.rows);
    let mut out = Vec::with_capacity(HEADER_LEN + RULE_LEN * rules.len() + pages + 4 * rows.len());
    out.extend(table.refused.to_le_bytes());
    for number in [table.first_page, rules.len() as u32, pages as u32, rows.len() as u32] {
        out.extend(number.to_le_bytes());
    }
    out.extend(rules.iter().flat_map(|rule| rule.to_wire()).flat_map(u64::to_le_bytes));
    out.extend(table.starts.windows(2).map(|range| (range[1] - range[0]) as u8));
    out.extend(rows.iter().flat_map(|row| row.to_le_bytes()));
    out
}

/// None when the bytes are no table.
pub fn decode(bytes: &[u8]) -> Option<Table> {
    let mut from = Source(bytes);
    let refused = from.u64()?;
    let [first_page, rules, pages, rows] = [from.u32()?, from.u32()?, from.u32()?, from.u32()?];
    let [rules, pages, rows] = [rules, pages, rows].map(|count| count as usize);
    if rules > MAX_RULES || pages > MAX_PAGES as usize || rows > MAX_STORED_ROWS {
        return None;
    }
    let rules = from.slice(rules * RULE_LEN)?.chunks_exact(RULE_LEN).map(rule).collect::<Option<_>>()?;
    let starts = starts(from.slice(pages)?);
    let words = from.slice(4 * rows)?.chunks_exact(4);
    let rows = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    let table = Table { rules, first_page, starts, rows, refused };
    (from.0.is_empty() && is_sound(&table)).then_some(table)
}

fn rule(bytes: &[u8]) -> Option<Rule> {
    let (first, second) = bytes.split_first_chunk()?;
    Rule::from_wire([u64::from_le_bytes(*first), u64::from_le_bytes(second.try_into().ok()?)])
}

fn starts(counts: &[u8]) -> Vec<u32> {
    let mut end = 0;
    let ends = counts.iter().map(|&count| {
        end += u32::from(count);
        end
    });
    std::iter::once(0).chain(ends).collect()
}

/// What bpf/table.bpf.h relies on: each page has rows, in order, the first at its begin.
fn is_sound(table: &Table) -> bool {
    let (offset_of, rule_of) = (|row: u32| row >> RULE_BITS, |row: u32| row & ((1 << RULE_BITS) - 1));
    let is_page = |range: &[u32]| {
        let Some(rows) = table.rows.get(range[0] as usize..range[1] as usize) else { return false };
        (1..=MAX_ROWS_IN_PAGE).contains(&rows.len())
            && offset_of(rows[0]) == 0
            && rows.is_sorted_by(|a, b| offset_of(*a) < offset_of(*b))
    };
    table.pages() > 0
        && table.starts.last() == Some(&(table.rows.len() as u32))
        && table.starts.windows(2).all(is_page)
        && table.rows.iter().all(|&row| (rule_of(row) as usize) < table.rules.len())
}

struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::symbols;

    fn table_of(path: &str) -> Table {
        let (frames, segments) = symbols::call_frames(&File::open(path).unwrap()).unwrap();
        Table::build(&frames, &segments).unwrap()
    }

    #[test]
    fn tables_come_back_as_they_were() {
        for path in ["/proc/self/exe", "/usr/bin/env", "/usr/bin/gcc"] {
            let table = table_of(path);
            let bytes = encode(&table);
            assert!(bytes.len() <= MAX_LEN);
            assert!(decode(&bytes) == Some(table));
        }
        assert_eq!(decode(&encode(&Table::default())), None);
    }

    #[test]
    fn no_table_is_taken_that_could_not_be_walked() {
        let (table, mut state) = (table_of("/usr/bin/env"), 1u64);
        let whole = encode(&table);
        assert!((0..whole.len()).all(|len| decode(&whole[..len]).is_none()));
        let mut taken = 0;
        for round in 0..20_000 {
            let mut damaged = whole.clone();
            for _ in 0..=round % 3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Half of the time in the header and the first rules.
                let range = if round % 2 == 0 { 200 } else { damaged.len() };
                damaged[(state >> 33) as usize % range] = (state >> 25) as u8;
            }
            let Some(table) = decode(&damaged) else { continue };
            taken += 1;
            let begin = u64::from(table.first_page) << 10;
            for page in 0..table.pages() as u64 {
                assert!(table.rule_at(begin + (page << 10) + 1023).is_some());
            }
            assert!(table.starts.windows(2).all(|range| range[1] - range[0] <= 255 && range[0] < range[1]));
        }
        assert!(taken > 100);
    }

    #[test]
    fn rules_that_no_table_has_are_refused() {
        let first = |offset: u32, fp_offset: u16, cfa: u64, fp: u64| {
            [u64::from(offset) | u64::from(fp_offset) << 32 | cfa << 48 | fp << 56, 0]
        };
        assert_eq!(Rule::from_wire(first(0, 0, 0, 0)), Some(Rule::NONE));
        for (register, known) in [(19, true), (30, true), (31, false), (239, false)] {
            assert_eq!(Rule::from_wire(first(8, 0, 16 + register, 0)).is_some(), known);
            assert_eq!(Rule::from_wire(first(8, register as u16, 9, 0)).is_some(), known);
        }
        let bad = [first(0, 0, 10, 0), first(0, 0, 11, 0), first(0, 0, 3, 3), first(300, 0, 7, 0)];
        let more = [first(1, 0, 2, 0), first(0, 1, 3, 0), [0, 1 << 32]];
        assert!(bad.iter().chain(&more).all(|wire| Rule::from_wire(*wire).is_none()));
    }
}
