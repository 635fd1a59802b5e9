//! Names of kernel code: /proc/kallsyms, and the BPF programs that come and go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::text;

/// No kernel function comes near; beyond it the distance to the next symbol is a hole.
const MAX_FUNCTION_BYTES: u64 = 256 << 10;
const PAGE_BYTES: u64 = 4096;
/// The module name of BPF programs, trampolines and dispatchers.
const BPF: &str = "bpf";

/// A function of the kernel, a kernel module or BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    pub name: Cow<'a, str>,
    pub start: u64,
    /// In bytes, as far as known: up to the next symbol, or to the end of the page at a hole.
    pub size: u64,
    /// The kernel module; `bpf` for BPF programs; None for the kernel itself.
    pub module: Option<&'a str>,
}

/// What kind of code PERF_RECORD_KSYMBOL tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratedCode {
    /// A BPF program, trampoline or dispatcher.
    Bpf,
    /// Pieces of the kernel's own code: ftrace trampolines, slots of kprobes.
    OutOfLine,
}

/// The text symbols of the running kernel.
#[derive(Debug, Default)]
pub struct Kallsyms {
    names: Vec<u8>,
    modules: Vec<String>,
    /// Disjoint, by address.
    symbols: Vec<Entry>,
    /// What PERF_RECORD_KSYMBOL tells, and BPF from /proc/kallsyms, by start address.
    dynamic: BTreeMap<u64, Vec<Dynamic>>,
    longest_dynamic: u64,
    text_start: u64,
    restricted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    end: u64,
    name: u32,
    name_bytes: u16,
    /// Index in `modules`; 0 is the kernel.
    module: u16,
}

/// Code that was registered with the kernel for some time.
#[derive(Debug)]
struct Dynamic {
    end: u64,
    from_ns: u64,
    until_ns: u64,
    kind: GeneratedCode,
    name: String,
}

impl Kallsyms {
    /// Reads /proc/kallsyms of the running kernel.
    ///
    /// # Errors
    /// When it cannot be read.  Addresses hidden from this user are no error: see
    /// [`Self::restricted`].
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/kallsyms")?))
    }

    /// Parses the text of /proc/kallsyms; lines that make no sense are passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut parser = Parser::new();
        for line in bytes.split(|&byte| byte == b'\n') {
            if let Some(line) = Line::parse(line) {
                parser.visit(&line);
            }
        }
        parser.finish()
    }

    /// True when the kernel hid all addresses (kptr_restrict, or no CAP_SYSLOG).
    pub fn restricted(&self) -> bool {
        self.restricted
    }

    /// Address of `_text`, else of `_stext`; 0 when not known.
    pub fn text_start(&self) -> u64 {
        self.text_start
    }

    /// The symbol that covers `address` at the time `at_ns` (CLOCK_MONOTONIC), never a
    /// neighbour across a hole.
    pub fn lookup(&self, address: u64, at_ns: u64) -> Option<KernelSymbol<'_>> {
        self.lookup_dynamic(address, at_ns).or_else(|| self.lookup_static(address))
    }

    /// Notes that code was registered: PERF_RECORD_KSYMBOL.
    ///
    /// `at_ns` 0 means that it was there before anybody looked, as does /proc/kallsyms.  Such code
    /// gets the time and the size of the record that tells more; other code that was registered
    /// at the same address ends.  Records may come in any order of time.
    pub fn insert(&mut self, at_ns: u64, kind: GeneratedCode, address: u64, size: u64, name: &[u8]) {
        let end = address.saturating_add(size);
        let name = text::decode(name).into_owned();
        let lives = self.dynamic.entry(address).or_default();
        let known =
            lives.iter_mut().find(|life| life.name == name && life.from_ns <= at_ns && at_ns < life.until_ns);
        if let Some(life) = known {
            life.end = end;
            if life.from_ns == 0 {
                life.from_ns = at_ns;
            }
        } else {
            let later = lives.iter().map(|life| life.from_ns).filter(|&t| t > at_ns);
            let until_ns = later.min().unwrap_or(u64::MAX);
            for life in lives.iter_mut().filter(|life| life.from_ns <= at_ns) {
                life.until_ns = life.until_ns.min(at_ns);
            }
            lives.push(Dynamic { end, from_ns: at_ns, until_ns, kind, name });
        }
        self.longest_dynamic = self.longest_dynamic.max(end - address);
    }

    /// Notes that the code at `address` was unregistered.
    pub fn remove(&mut self, at_ns: u64, address: u64) {
        let lives = self.dynamic.get_mut(&address).into_iter().flatten();
        for life in lives.filter(|life| life.from_ns <= at_ns) {
            life.until_ns = life.until_ns.min(at_ns);
        }
    }

    fn lookup_static(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let after = self.symbols.partition_point(|e| e.start <= address);
        let entry = self.symbols.get(after.checked_sub(1)?)?;
        if address >= entry.end {
            return None;
        }
        let name = entry.name as usize;
        Some(KernelSymbol {
            name: text::decode(&self.names[name..name + usize::from(entry.name_bytes)]),
            start: entry.start,
            size: entry.end - entry.start,
            module: match entry.module {
                0 => None,
                index => Some(&self.modules[usize::from(index) - 1]),
            },
        })
    }

    fn lookup_dynamic(&self, address: u64, at_ns: u64) -> Option<KernelSymbol<'_>> {
        let first = address.saturating_sub(self.longest_dynamic);
        let covers = |life: &&Dynamic| address < life.end && life.from_ns <= at_ns && at_ns < life.until_ns;
        let mut candidates = self.dynamic.range(first..=address).rev();
        candidates.find_map(|(&start, lives)| {
            let life = lives.iter().find(covers)?;
            Some(KernelSymbol {
                name: Cow::Borrowed(life.name.as_str()),
                start,
                size: life.end - start,
                module: match life.kind {
                    GeneratedCode::Bpf => Some(BPF),
                    GeneratedCode::OutOfLine => None,
                },
            })
        })
    }
}

/// One line of /proc/kallsyms.
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a [u8],
    module: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    /// `ffffffffc0a01000 t bpf_prog_6deef7357e7b4530_sd_fw_ingress<tab>[bpf]`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut address: u64 = 0;
        let mut digits = 0;
        for &byte in line {
            let Some(digit) = (byte as char).to_digit(16) else {
                break;
            };
            address = address << 4 | u64::from(digit);
            digits += 1;
        }
        if digits == 0 || digits > 16 {
            return None;
        }
        let [b' ', kind, b' ', rest @ ..] = &line[digits..] else {
            return None;
        };
        let mut fields = rest.splitn(2, |&byte| byte == b'\t');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let module = fields.next().and_then(|field| {
            let field = field.trim_ascii_end();
            field.strip_prefix(b"[")?.strip_suffix(b"]")
        });
        Some(Line { address, kind: *kind, name, module })
    }

    fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W') && !matches!(self.name, [b'$', ..] | [b'.', b'L', ..])
    }
}

/// What a line tells while it is not yet known where the symbol ends.
#[derive(Clone, Copy)]
struct Raw {
    start: u64,
    /// Which of several names for one address is shown: the greatest.  0: the symbol is no code
    /// and only bounds the one before it.
    rank: u32,
    name: u32,
    name_bytes: u16,
    module: u16,
}

/// Markers of the linker script lose; global before weak before local names, then fewer leading
/// underscores, then longer names, as in perf.
fn rank(line: &Line) -> u32 {
    let bind = match line.kind {
        b'T' => 3,
        b'W' | b'w' => 2,
        _ => 1,
    };
    let underscores = line.name.iter().take_while(|&&byte| byte == b'_').count();
    let is_named = u32::from(!is_section_marker(line.name));
    let plainness = u32::from(u8::MAX) - underscores.min(255) as u32;
    is_named << 26 | bind << 24 | plainness << 16 | line.name.len().min(0xffff) as u32
}

/// `_etext`, `__sched_text_end` and the like: code ends there, they name none.
fn is_end_marker(name: &[u8]) -> bool {
    matches!(name, b"_etext" | b"_einittext" | b"_end") || name.ends_with(b"text_end")
}

/// `_stext`, `__sched_text_start`, `__pi__text`, `__start_rodata` and the like.
fn is_section_marker(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"__pi_").unwrap_or(name);
    matches!(name, b"_text" | b"_stext" | b"_sinittext")
        || name.ends_with(b"text_start")
        || name.starts_with(b"__start_")
        || name.starts_with(b"__stop_")
}

struct Parser {
    names: Vec<u8>,
    modules: Vec<String>,
    raw: Vec<Raw>,
    text: Option<u64>,
    stext: Option<u64>,
}

impl Parser {
    fn new() -> Self {
        Parser { names: Vec::new(), modules: Vec::new(), raw: Vec::new(), text: None, stext: None }
    }

    fn visit(&mut self, line: &Line) {
        match line.name {
            b"_text" => self.text = Some(line.address),
            b"_stext" => self.stext = Some(line.address),
            _ => {}
        }
        let is_code = line.is_text() && !is_end_marker(line.name);
        let name_bytes = u16::try_from(line.name.len());
        let (Ok(name), Ok(name_bytes)) = (u32::try_from(self.names.len()), name_bytes) else {
            return;
        };
        let Some(module) = self.module(line.module) else {
            return;
        };
        if is_code {
            self.names.extend_from_slice(line.name);
        }
        self.raw.push(Raw {
            start: line.address,
            rank: if is_code { rank(line) } else { 0 },
            name,
            name_bytes,
            module,
        });
    }

    /// The index of a module, which is almost always the one of the line before.
    fn module(&mut self, name: Option<&[u8]>) -> Option<u16> {
        let Some(name) = name else { return Some(0) };
        if self.modules.last().is_none_or(|last| last.as_bytes() != name) {
            let name = text::decode(name).into_owned();
            self.modules.push(name);
        }
        u16::try_from(self.modules.len()).ok()
    }

    fn finish(mut self) -> Kallsyms {
        self.raw.sort_by_key(|raw| raw.start);
        let restricted = self.raw.last().is_some_and(|last| last.start == 0);
        let mut kallsyms =
            Kallsyms { restricted, text_start: self.text.or(self.stext).unwrap_or(0), ..Kallsyms::default() };
        if restricted {
            return kallsyms;
        }
        let mut groups = self.raw.chunk_by(|a, b| a.start == b.start).peekable();
        while let Some(group) = groups.next() {
            let next = groups.peek().map(|group| &group[0]);
            // Of equal ones the first of the file.
            let best = group.iter().rev().max_by_key(|raw| raw.rank);
            let Some(best) = best.filter(|raw| raw.rank != 0) else {
                continue;
            };
            let entry = Entry {
                start: best.start,
                end: end_of(best, next),
                name: best.name,
                name_bytes: best.name_bytes,
                module: best.module,
            };
            self.add(&mut kallsyms, entry);
        }
        kallsyms.names = self.names;
        kallsyms.modules = self.modules;
        kallsyms
    }

    fn add(&self, kallsyms: &mut Kallsyms, entry: Entry) {
        let module = usize::from(entry.module).checked_sub(1);
        if module.is_none_or(|index| self.modules[index] != BPF) {
            kallsyms.symbols.push(entry);
            return;
        }
        let name = entry.name as usize;
        let name = &self.names[name..name + usize::from(entry.name_bytes)];
        let size = entry.end - entry.start;
        kallsyms.insert(0, GeneratedCode::Bpf, entry.start, size, name);
    }
}

/// Where a symbol ends, as /proc/kallsyms does not tell it.
fn end_of(symbol: &Raw, next: Option<&Raw>) -> u64 {
    let page_end = (symbol.start | (PAGE_BYTES - 1)).saturating_add(1);
    match next {
        Some(next) if next.module == symbol.module && next.start - symbol.start <= MAX_FUNCTION_BYTES => {
            next.start
        }
        // The last function before a hole or before another module's memory.
        Some(next) => page_end.min(next.start),
        None => page_end,
    }
}

#[cfg(test)]
mod tests;
