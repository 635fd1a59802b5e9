//! Rules in the form that a BPF program can search in a few loads.
//!
//! Code is cut in pages of 1 KiB of the file.  Each page has its rows, `{10 bits: offset in the page, 22
//! bits: rule}`, the first one at offset 0, so that a search never leaves them; equal rules are kept once.

use std::collections::HashMap;

use super::cfi::{CallFrames, read_rules};
use super::rule::Rule;

pub const PAGE_SHIFT: u32 = 10;
const PAGE_LEN: u64 = 1 << PAGE_SHIFT;
pub const RULE_BITS: u32 = 22;
/// A page's count of rows has 8 bits.
pub const MAX_ROWS_IN_PAGE: usize = 255;
/// Of one file: 512 MiB of code, sparse or not.
pub const MAX_PAGES: u64 = 512 << 10;
/// Distinct rules of one file; all files together may have 65536.
pub const MAX_RULES: usize = 1 << 15;

/// A part of a file that is mapped executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeSegment {
    pub offset: u64,
    /// As linked.
    pub address: u64,
    pub len: u64,
}

/// Why a file has no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("it describes no call frames")]
    NoFrames,
    #[error("its code is spread over too much of the file")]
    TooSparse,
}

/// The unwind table of one file.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    /// Rows refer to them by index.
    pub rules: Vec<Rule>,
    /// Number of the first page: its file offset divided by the page's length.
    pub first_page: u32,
    /// Where the rows of each page begin, and the end of the last one's.
    pub starts: Vec<u32>,
    pub rows: Vec<u32>,
    /// What was left out: damaged functions, rows beyond a limit.
    pub refused: u64,
}

impl Table {
    /// # Errors
    /// When there is nothing to make a table of.
    pub fn build(frames: &CallFrames, segments: &[CodeSegment]) -> Result<Self, TableError> {
        let rules = read_rules(frames);
        if rules.rows.is_empty() {
            return Err(TableError::NoFrames);
        }
        let (mut first, mut end) = (u64::MAX, 0);
        for segment in segments.iter().filter(|segment| segment.len > 0) {
            first = first.min(segment.offset >> PAGE_SHIFT);
            end = end.max(segment.offset.saturating_add(segment.len).div_ceil(PAGE_LEN));
        }
        if first >= end || end - first > MAX_PAGES || end > u64::from(u32::MAX) {
            return Err(TableError::TooSparse);
        }
        let mut builder = Builder::new(first, (end - first) as usize);
        let mut segments = segments.to_vec();
        segments.sort_by_key(|segment| segment.offset);
        for segment in &segments {
            builder.add_segment(segment, &rules.rows);
        }
        let mut table = builder.finish();
        table.refused += rules.damaged + u64::from(rules.cut);
        Ok(table)
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The rule that holds at an offset of the file.
    pub fn rule_at(&self, file_offset: u64) -> Option<Rule> {
        let page = (file_offset >> PAGE_SHIFT).checked_sub(u64::from(self.first_page))? as usize;
        let (start, end) = (*self.starts.get(page)?, *self.starts.get(page + 1)?);
        let low = (file_offset % PAGE_LEN) as u32;
        let rows = &self.rows[start as usize..end as usize];
        let at = rows.partition_point(|row| row >> RULE_BITS <= low).checked_sub(1)?;
        Some(self.rules[(rows[at] & ((1 << RULE_BITS) - 1)) as usize])
    }
}

struct Builder {
    table: Table,
    ids: HashMap<Rule, u32, ahash::RandomState>,
    /// Page by page, the rows so far: offset in the page and rule.
    current: Vec<(u32, u32)>,
    page: usize,
    pages: usize,
}

impl Builder {
    fn new(first: u64, pages: usize) -> Self {
        let table = Table { first_page: first as u32, starts: vec![0], ..Table::default() };
        let mut builder = Self { table, ids: HashMap::default(), current: Vec::new(), page: 0, pages };
        builder.id(Rule::NONE);
        builder.id(Rule::UNSUPPORTED);
        builder
    }

    fn id(&mut self, rule: Rule) -> u32 {
        if let Some(&id) = self.ids.get(&rule) {
            return id;
        }
        if self.ids.len() >= MAX_RULES {
            self.table.refused += 1;
            return 1; // unsupported
        }
        let id = self.table.rules.len() as u32;
        self.table.rules.push(rule);
        self.ids.insert(rule, id);
        id
    }

    /// Adds the rules that hold in one segment, in the order of the file.
    fn add_segment(&mut self, segment: &CodeSegment, rows: &[(u64, Rule)]) {
        let end = segment.address.saturating_add(segment.len);
        let mut at = rows.partition_point(|row| row.0 <= segment.address);
        let before = at.checked_sub(1).map_or(Rule::NONE, |at| rows[at].1);
        self.add(segment.offset, before);
        while let Some(&(address, rule)) = rows.get(at).filter(|row| row.0 < end) {
            self.add(segment.offset + (address - segment.address), rule);
            at += 1;
        }
        self.add(segment.offset.saturating_add(segment.len), Rule::NONE);
    }

    fn add(&mut self, offset: u64, rule: Rule) {
        let id = self.id(rule);
        let page = (offset >> PAGE_SHIFT).saturating_sub(u64::from(self.table.first_page)) as usize;
        if page < self.page || page >= self.pages {
            return; // segments that overlap, or the end of the last page
        }
        self.advance(page);
        let low = (offset % PAGE_LEN) as u32;
        match self.current.last_mut() {
            Some(last) if last.0 == low => last.1 = id,
            Some(last) if last.1 == id || last.0 > low => {}
            _ => self.current.push((low, id)),
        }
    }

    /// Closes the pages before `page`; each begins with what held at the end of the one before.
    fn advance(&mut self, page: usize) {
        while self.page < page {
            let last = self.current.last().map_or(0, |row| row.1);
            self.close();
            self.current.push((0, last));
            self.page += 1;
        }
        if self.current.is_empty() {
            self.current.push((0, 0));
        }
    }

    fn close(&mut self) {
        if self.current.len() > MAX_ROWS_IN_PAGE {
            self.table.refused += (self.current.len() - MAX_ROWS_IN_PAGE) as u64;
            self.current.truncate(MAX_ROWS_IN_PAGE);
            self.current[MAX_ROWS_IN_PAGE - 1].1 = 1; // unsupported
        }
        self.table.rows.extend(self.current.drain(..).map(|(low, id)| low << RULE_BITS | id));
        self.table.starts.push(self.table.rows.len() as u32);
    }

    fn finish(mut self) -> Table {
        self.advance(self.pages.saturating_sub(1));
        self.close();
        self.table
    }
}
