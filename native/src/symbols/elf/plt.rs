//! The stubs of the procedure linkage table, named after the functions to which they jump.
//!
//! No symbol table describes them.  The jump in each stub is decoded to find its slot in the
//! global offset table, and the relocation of that slot names the function: this holds for the
//! layouts of all linkers, while counting stubs does not.

use std::collections::HashMap;

use object::elf;

use super::SymbolError;
use super::image::{Format, Image, Section};
use super::input::Input;
use super::table::{Table, name_at};

const RELA_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;
const MAX_PLT_BYTES: u64 = 16 << 20;
const MAX_NAME_BYTES: usize = 64 << 20;
const X86_STUB_BYTES: u64 = 16;
const ARM64_MAX_STUB_BYTES: u64 = 24;

/// One named stub, `start..end` by address.
#[derive(Debug, PartialEq, Eq)]
pub struct Stub {
    pub start: u64,
    pub end: u64,
    pub name: Vec<u8>,
}

/// What the code of a stub tells about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Target {
    /// It jumps through the slot at this address.
    Slot(u64),
    /// It asks the dynamic linker for this relocation of `.rela.plt`.
    Relocation(u32),
}

#[derive(Debug, PartialEq, Eq)]
struct RawStub {
    start: u64,
    end: u64,
    target: Target,
}

/// A relocation of a slot; `symbol` 0: the addend is the address of an IFUNC resolver.
#[derive(Clone, Copy)]
struct Relocation {
    symbol: u32,
    addend: u64,
}

/// Names the stubs of x86-64 and arm64 files; none for other machines.
pub fn read(
    input: &mut Input,
    image: &Image,
    sections: &[Section],
    table: &Table,
) -> Result<Vec<Stub>, SymbolError> {
    let decode = match image.machine {
        elf::EM_X86_64 if image.format.is_64 => decode_x86_64,
        elf::EM_AARCH64 if image.format.is_64 => decode_arm64,
        _ => return Ok(Vec::new()),
    };
    let names = Names::read(input, image, sections)?;
    let mut raw = Vec::new();
    for section in sections.iter().filter(|s| s.is_code()) {
        let name = names.of_section(section);
        if matches!(name, b".plt" | b".plt.sec" | b".plt.got" | b".iplt") {
            if section.size > MAX_PLT_BYTES {
                return Err(SymbolError::TooLarge("the PLT stubs"));
            }
            let code = input.read(section.offset, section.size, "the PLT stubs")?;
            raw.extend(decode(&code, section));
        }
    }
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let relocations = read_relocations(input, image.format, sections, &names, &raw)?;
    let symbols = DynamicNames::read(input, image.format, sections)?;
    let mut stubs = Vec::new();
    let mut name_bytes = 0;
    for stub in raw {
        let target = relocations.get(&stub.target).and_then(|relocation| match relocation.symbol {
            0 => table.name_of_start(relocation.addend),
            index => symbols.name(index),
        });
        let Some(target) = target else { continue };
        name_bytes += target.len();
        if name_bytes > MAX_NAME_BYTES {
            return Err(SymbolError::TooLarge("the names of PLT stubs"));
        }
        stubs.push(Stub { start: stub.start, end: stub.end, name: [target, b"@plt"].concat() });
    }
    Ok(stubs)
}

/// The section names.
struct Names(Vec<u8>);

impl Names {
    fn read(input: &mut Input, image: &Image, sections: &[Section]) -> Result<Self, SymbolError> {
        let Some(section) = image.section_names(sections) else {
            return Ok(Names(Vec::new()));
        };
        Ok(Names(input.read(section.offset, section.size, "the section names")?))
    }

    fn of_section(&self, section: &Section) -> &[u8] {
        name_at(&self.0, section.name)
    }
}

/// The relocations that the stubs ask for.
fn read_relocations(
    input: &mut Input,
    format: Format,
    sections: &[Section],
    names: &Names,
    stubs: &[RawStub],
) -> Result<HashMap<Target, Relocation>, SymbolError> {
    let mut wanted: Vec<Target> = stubs.iter().map(|stub| stub.target).collect();
    wanted.sort_unstable();
    let mut found = HashMap::new();
    let tables = sections.iter().filter(|s| s.kind == elf::SHT_RELA);
    for table in tables.filter(|s| s.is_loaded()) {
        let is_plt = names.of_section(table) == b".rela.plt";
        let mut index = 0;
        let what = "the relocations";
        input.records(table.offset, table.size, RELA_BYTES, what, |record| {
            let relocation =
                Relocation { symbol: (format.u64(record, 8) >> 32) as u32, addend: format.u64(record, 16) };
            let by_slot = Target::Slot(format.u64(record, 0));
            let by_index = is_plt.then_some(Target::Relocation(index));
            for target in [Some(by_slot), by_index].into_iter().flatten() {
                if wanted.binary_search(&target).is_ok() {
                    found.insert(target, relocation);
                }
            }
            index = index.wrapping_add(1);
            Ok(())
        })?;
    }
    Ok(found)
}

/// The names of `.dynsym` by index.
struct DynamicNames {
    format: Format,
    symbols: Vec<u8>,
    names: Vec<u8>,
}

impl DynamicNames {
    fn read(input: &mut Input, format: Format, sections: &[Section]) -> Result<Self, SymbolError> {
        let mut dynamic = DynamicNames { format, symbols: Vec::new(), names: Vec::new() };
        let table = sections.iter().find(|s| s.kind == elf::SHT_DYNSYM);
        let strings = table.and_then(|table| sections.get(table.link as usize));
        if let (Some(table), Some(strings)) = (table, strings) {
            dynamic.symbols = input.read(table.offset, table.size, "the symbols")?;
            dynamic.names = input.read(strings.offset, strings.size, "the symbol names")?;
        }
        Ok(dynamic)
    }

    fn name(&self, index: u32) -> Option<&[u8]> {
        let at = index as usize * SYMBOL_BYTES;
        let record = self.symbols.get(at..at + SYMBOL_BYTES)?;
        let name = name_at(&self.names, self.format.u32(record, 0));
        (!name.is_empty()).then_some(name)
    }
}

/// Stubs of 16 bytes, or of 8 in an old `.plt.got`: [endbr64] [bnd] jmp *slot(%rip), or
/// [endbr64] push $relocation where a second table, `.plt.sec`, holds the jumps.
fn decode_x86_64(code: &[u8], section: &Section) -> Vec<RawStub> {
    let stride = match section.entry_size {
        8 => 8,
        _ => X86_STUB_BYTES,
    };
    let stubs = code.chunks_exact(stride as usize).enumerate();
    stubs
        .filter_map(|(index, stub)| {
            let start = section.address.checked_add(index as u64 * stride)?;
            Some(RawStub { start, end: start.checked_add(stride)?, target: target_x86_64(stub, start)? })
        })
        .collect()
}

fn target_x86_64(stub: &[u8], start: u64) -> Option<Target> {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const BND: &[u8] = &[0xf2];
    let mut rest = stub.strip_prefix(ENDBR64).unwrap_or(stub);
    // mold passes the relocation's index in r11: mov $relocation,%r11d
    if let [0x41, 0xbb, _, _, _, _, jump @ ..] = rest {
        rest = jump;
    }
    rest = rest.strip_prefix(BND).unwrap_or(rest);
    let (opcode, operand) = match *rest {
        [0xff, 0x25, a, b, c, d, ..] => (0xff, [a, b, c, d]),
        [0x68, a, b, c, d, ..] => (0x68, [a, b, c, d]),
        _ => return None,
    };
    if opcode == 0x68 {
        return Some(Target::Relocation(u32::from_le_bytes(operand)));
    }
    let next_instruction = start.wrapping_add((stub.len() - rest.len()) as u64 + 6);
    let distance = i64::from(i32::from_le_bytes(operand));
    Some(Target::Slot(next_instruction.wrapping_add_signed(distance)))
}

/// Stubs of 16 or 24 bytes: [bti c]; adrp x16, slot; ldr x17, [x16, slot]; add; [autia]; br x17.
fn decode_arm64(code: &[u8], section: &Section) -> Vec<RawStub> {
    const BTI_C: u32 = 0xd503_245f;
    let mut stubs: Vec<RawStub> = Vec::new();
    // Instructions are little-endian whatever the byte order of data.
    let words: Vec<u32> =
        code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    for (index, pair) in words.windows(2).enumerate() {
        let at = section.address.wrapping_add(index as u64 * 4);
        let Some(slot) = slot_arm64(pair[0], pair[1], at) else {
            continue;
        };
        let has_landing_pad = index > 0 && words[index - 1] == BTI_C;
        let start = if has_landing_pad { at.wrapping_sub(4) } else { at };
        if let Some(previous) = stubs.last_mut() {
            previous.end = previous.end.min(start);
        }
        stubs.push(RawStub {
            start,
            end: start.saturating_add(ARM64_MAX_STUB_BYTES).min(section.end()),
            target: Target::Slot(slot),
        });
    }
    stubs
}

/// The address that `adrp x16, page` and `ldr x17, [x16, offset]` load from.
fn slot_arm64(adrp: u32, ldr: u32, at: u64) -> Option<u64> {
    if adrp & 0x9f00_001f != 0x9000_0010 || ldr & 0xffc0_03ff != 0xf940_0211 {
        return None;
    }
    let pages = (adrp >> 5 & 0x7_ffff) << 2 | adrp >> 29 & 3;
    // 21 bits, signed, counted in pages of 4 KiB.
    let distance = i64::from((pages << 11) as i32 >> 11) << 12;
    let page = (at & !0xfff).wrapping_add_signed(distance);
    Some(page.wrapping_add(u64::from(ldr >> 10 & 0xfff) * 8))
}
