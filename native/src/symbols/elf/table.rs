//! Symbol tables: which symbols are code, how far each reaches, which alias is shown.

use std::cmp::{Ordering, Reverse};

use object::elf;

use super::super::range_map::Span;
use super::image::{Image, Section};
use super::input::Input;
use super::{SymbolError, SymbolSource, plt};

/// The largest programs (browsers, with all debug symbols) have less than 2 million.
const MAX_SYMBOLS: usize = 8_000_000;
/// Longer names are cut.
const MAX_NAME_BYTES: usize = 64 << 10;
/// Of longer names only so much is compared, to bound the work for hostile files.
const MAX_COMPARED_BYTES: usize = 512;
const RANK_FUNCTION: u32 = 8;
const RANK_GLOBAL: u32 = 2;
const RANK_WEAK: u32 = 1;

/// The code symbols of a file.
pub struct Table {
    /// By address; the value is an offset in `names`, a later one wins over an earlier one.
    pub spans: Vec<Span>,
    /// NUL-terminated names.
    pub names: Vec<u8>,
    pub source: SymbolSource,
}

/// The NUL-terminated name at `offset`.
pub fn name_at(names: &[u8], offset: u32) -> &[u8] {
    name_up_to(names, offset, MAX_NAME_BYTES)
}

fn name_up_to(names: &[u8], offset: u32, limit: usize) -> &[u8] {
    let rest = names.get(offset as usize..).unwrap_or_default();
    let rest = &rest[..rest.len().min(limit)];
    let end = rest.iter().position(|&byte| byte == 0);
    &rest[..end.unwrap_or(rest.len())]
}

/// Reads `.symtab`, or `.dynsym` when that has no code symbols, and names the PLT stubs.
pub fn read(input: &mut Input, image: &Image) -> Result<Table, SymbolError> {
    let sections = image.read_sections(input)?;
    let symtab = read_table(input, image, &sections, elf::SHT_SYMTAB);
    let mut table = match symtab {
        Ok(Some(table)) => table,
        unusable => match read_table(input, image, &sections, elf::SHT_DYNSYM)? {
            Some(table) => table,
            None => {
                unusable?;
                Table {
                    spans: Vec::new(),
                    names: vec![0],
                    source: SymbolSource::None(reason_for_none(&sections)),
                }
            }
        },
    };
    // Damaged PLT tables cost only the names of the stubs.
    let stubs = plt::read(input, image, &sections, &table).unwrap_or_default();
    table.add_stubs(stubs);
    Ok(table)
}

fn reason_for_none(sections: &[Section]) -> &'static str {
    if sections.is_empty() { "no section headers" } else { "stripped: no function symbols" }
}

impl Table {
    /// The name of the symbol that starts at `address`.
    pub fn name_of_start(&self, address: u64) -> Option<&[u8]> {
        let first = self.spans.partition_point(|span| span.start < address);
        let span = self.spans.get(first)?;
        (span.start == address).then(|| name_at(&self.names, span.value))
    }

    fn add_stubs(&mut self, stubs: Vec<plt::Stub>) {
        if let (SymbolSource::None(_), false) = (self.source, stubs.is_empty()) {
            self.source = SymbolSource::Dynsym;
        }
        for stub in stubs {
            let Ok(value) = u32::try_from(self.names.len()) else {
                return;
            };
            self.names.extend_from_slice(&stub.name);
            self.names.push(0);
            self.spans.push(Span {
                start: stub.start,
                end: stub.end,
                value,
                priority: self.spans.len() as u32,
            });
        }
    }
}

/// Returns None when there is no such table or no code symbol in it.
fn read_table(
    input: &mut Input,
    image: &Image,
    sections: &[Section],
    kind: elf::SectionType,
) -> Result<Option<Table>, SymbolError> {
    let Some(table) = sections.iter().find(|section| section.kind == kind) else {
        return Ok(None);
    };
    let record_size = image.format.pick(16, 24);
    if table.entry_size != 0 && table.entry_size != record_size as u64 {
        return Err(SymbolError::Malformed("the size of a symbol"));
    }
    let strings =
        sections.get(table.link as usize).ok_or(SymbolError::Malformed("the symbols' string table"))?;
    let mut names = input.read(strings.offset, strings.size, "the symbol names")?;
    names.push(0);
    let mut collector = Collector::new(image, sections, names, kind == elf::SHT_DYNSYM);
    let what = "the symbols";
    input.records(table.offset, table.size, record_size, what, |record| collector.visit(record))?;
    let source = match kind {
        elf::SHT_SYMTAB => SymbolSource::Symtab,
        _ => SymbolSource::Dynsym,
    };
    let (spans, names) = collector.finish();
    Ok((!spans.is_empty()).then_some(Table { spans, names, source }))
}

/// One record of a symbol table.
struct Record {
    name: u32,
    kind: elf::SymbolType,
    bind: elf::SymbolBind,
    section: elf::SymbolSection,
    address: u64,
    size: u64,
}

/// Picks the code symbols out of a table.
struct Collector<'a> {
    image: &'a Image,
    sections: &'a [Section],
    /// The sections with code, by address, for symbols that do not name theirs.
    code: Vec<Section>,
    names: Vec<u8>,
    /// A dynamic table lacks static functions, so that nothing bounds a symbol without a size.
    is_partial: bool,
    /// The priority of these spans is still the rank among aliases.
    sized: Vec<Span>,
    /// Symbols without a size; the end is that of the section.
    open: Vec<Span>,
}

impl<'a> Collector<'a> {
    fn new(image: &'a Image, sections: &'a [Section], names: Vec<u8>, is_partial: bool) -> Self {
        let code = sections.iter().filter(|section| section.is_code());
        let mut code: Vec<Section> = code.copied().collect();
        code.sort_by_key(|section| section.address);
        Collector { image, sections, code, names, is_partial, sized: Vec::new(), open: Vec::new() }
    }

    fn visit(&mut self, record: &[u8]) -> Result<(), SymbolError> {
        let symbol = self.parse(record);
        let Some(section_end) = self.code_end(&symbol) else {
            return Ok(());
        };
        if symbol.size == 0 && !self.may_be_open(&symbol) {
            return Ok(());
        }
        let end = symbol.address.saturating_add(symbol.size);
        let list = if symbol.size == 0 { &mut self.open } else { &mut self.sized };
        list.push(Span {
            start: symbol.address,
            end: if symbol.size == 0 { section_end } else { end.min(section_end) },
            value: symbol.name,
            priority: rank(&symbol),
        });
        if self.sized.len() + self.open.len() > MAX_SYMBOLS {
            return Err(SymbolError::TooLarge("the symbols"));
        }
        Ok(())
    }

    fn parse(&self, record: &[u8]) -> Record {
        let format = self.image.format;
        let info = record.get(format.pick(12, 4)).copied().unwrap_or(0);
        let kind = elf::SymbolType(info & 15);
        let mut address = format.word(record, 4, 8);
        if self.image.machine == elf::EM_ARM && kind == elf::STT_FUNC {
            // The lowest bit says that it is Thumb code.
            address &= !1;
        }
        Record {
            name: format.u32(record, 0),
            kind,
            bind: elf::SymbolBind(info >> 4),
            section: elf::SymbolSection(format.u16(record, format.pick(14, 6))),
            address,
            size: format.word(record, 8, 16),
        }
    }

    /// The end of the code section that holds the symbol; None when it is no code symbol.
    fn code_end(&self, symbol: &Record) -> Option<u64> {
        let is_function = matches!(symbol.kind, elf::STT_FUNC | elf::STT_GNU_IFUNC);
        if !is_function && symbol.kind != elf::STT_NOTYPE {
            return None;
        }
        let name = self.names.get(symbol.name as usize..)?;
        if *name.first()? == 0 || (!is_function && is_marker(name)) {
            return None;
        }
        let section = match symbol.section {
            elf::SHN_UNDEF => return None,
            elf::SHN_XINDEX => self.code_section(symbol.address)?,
            elf::SHN_ABS if is_function => self.code_section(symbol.address)?,
            index if index.0 < elf::SHN_LORESERVE => self.sections.get(usize::from(index.0))?,
            _ => return None,
        };
        (section.is_code() && section.contains(symbol.address)).then(|| section.end())
    }

    fn code_section(&self, address: u64) -> Option<&Section> {
        let after = self.code.partition_point(|s| s.address <= address);
        self.code.get(after.checked_sub(1)?)
    }

    fn may_be_open(&self, symbol: &Record) -> bool {
        if !self.is_partial {
            return true;
        }
        let name = name_at(&self.names, symbol.name);
        matches!(name, b"_init" | b"_fini") && self.code.iter().any(|s| s.address == symbol.address)
    }

    /// Settles aliases and ends, and orders so that the innermost symbol wins.
    fn finish(self) -> (Vec<Span>, Vec<u8>) {
        let names = self.names;
        let sized = without_aliases(self.sized, &names);
        let open = without_aliases(self.open, &names);
        let mut spans = sized;
        spans.extend(close(open, &spans));
        spans.sort_by_key(|span| (span.start, Reverse(span.end)));
        for (index, span) in spans.iter_mut().enumerate() {
            span.priority = index as u32;
        }
        (spans, names)
    }
}

fn rank(symbol: &Record) -> u32 {
    let kind = match symbol.kind {
        elf::STT_NOTYPE => 0,
        _ => RANK_FUNCTION,
    };
    kind + match symbol.bind {
        elf::STB_GLOBAL | elf::STB_GNU_UNIQUE => RANK_GLOBAL,
        elf::STB_WEAK => RANK_WEAK,
        _ => 0,
    }
}

/// Names that assemblers and build tools leave inside functions: `$x`, `$d.1`, `.L12`,
/// `.annobin_start.c`.
fn is_marker(name: &[u8]) -> bool {
    matches!(name, [b'$', b'a' | b'd' | b't' | b'x', 0 | b'.', ..])
        || name.starts_with(b".L")
        || name.starts_with(b".annobin")
}

/// Keeps the best name of each range; the result is ordered by start, longer ones first.
fn without_aliases(mut spans: Vec<Span>, names: &[u8]) -> Vec<Span> {
    spans.sort_unstable_by_key(|span| (span.start, Reverse(span.end)));
    spans.dedup_by(|next, kept| {
        let is_alias = (next.start, next.end) == (kept.start, kept.end);
        if is_alias && compare_aliases(next, kept, names) == Ordering::Greater {
            *kept = *next;
        }
        is_alias
    });
    spans
}

/// The order of perf: functions before labels, global before weak before local names, fewer
/// leading underscores, longer names.
fn compare_aliases(a: &Span, b: &Span, names: &[u8]) -> Ordering {
    let key = |span: &Span| {
        let name = name_up_to(names, span.value, MAX_COMPARED_BYTES);
        let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
        (span.priority, Reverse(underscores), name.len(), name)
    };
    key(a).cmp(&key(b))
}

/// Ends each symbol without a size at the next symbol; drops those inside a sized one.
fn close(mut open: Vec<Span>, sized: &[Span]) -> Vec<Span> {
    let mut covered_to = 0;
    let mut passed = 0;
    for i in 0..open.len() {
        let start = open[i].start;
        while let Some(span) = sized.get(passed).filter(|span| span.start <= start) {
            covered_to = covered_to.max(span.end);
            passed += 1;
        }
        let limits = [sized.get(passed), open.get(i + 1)];
        let next = limits.into_iter().flatten().map(|span| span.start).min();
        open[i].end = match next {
            _ if covered_to > start => start,
            Some(next) => open[i].end.min(next),
            None => open[i].end,
        };
    }
    open.retain(|span| span.start < span.end);
    open
}
