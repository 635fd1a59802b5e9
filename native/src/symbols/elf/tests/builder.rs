//! Writes small ELF files of every class, byte order and machine.

use object::elf;

pub const TEXT_OFFSET: u64 = 0x1000;
pub const TEXT_ADDRESS: u64 = 0x40_1000;

/// A symbol to write; `section` is an index in the order of [`Builder::section`], from 1.
#[derive(Clone, Copy)]
pub struct Sym {
    pub name: &'static str,
    pub address: u64,
    pub size: u64,
    pub kind: elf::SymbolType,
    pub bind: elf::SymbolBind,
    pub section: u16,
}

/// A global function in the first section.
pub fn function(name: &'static str, address: u64, size: u64) -> Sym {
    Sym { name, address, size, kind: elf::STT_FUNC, bind: elf::STB_GLOBAL, section: 1 }
}

/// A label in the first section, as assemblers make it: no type, no size.
pub fn label(name: &'static str, address: u64) -> Sym {
    Sym { kind: elf::STT_NOTYPE, ..function(name, address, 0) }
}

struct Part {
    name: String,
    kind: elf::SectionType,
    flags: u64,
    address: u64,
    data: Vec<u8>,
    link: u32,
    entry_size: u64,
}

/// Collects sections and writes them one after the other from [`TEXT_OFFSET`] on, each at the
/// same distance from its address, in one executable segment.
pub struct Builder {
    pub is_64: bool,
    pub big_endian: bool,
    pub machine: elf::Machine,
    parts: Vec<Part>,
    notes: Vec<(u64, Vec<u8>)>,
}

impl Builder {
    pub fn new(is_64: bool, big_endian: bool, machine: elf::Machine) -> Self {
        Builder { is_64, big_endian, machine, parts: Vec::new(), notes: Vec::new() }
    }

    pub fn x86_64() -> Self {
        Self::new(true, false, elf::EM_X86_64)
    }

    /// Adds `.text` with `size` bytes of code at [`TEXT_ADDRESS`].
    pub fn text(self, size: u64) -> Self {
        self.code(".text", vec![0x90; size as usize], 0)
    }

    /// Adds a section of code behind the ones before.
    pub fn code(mut self, name: &str, data: Vec<u8>, entry_size: u64) -> Self {
        let flags = (elf::SHF_ALLOC | elf::SHF_EXECINSTR).0;
        let address = self.next_address();
        self.add(name, elf::SHT_PROGBITS, flags, address, data);
        self.parts.last_mut().unwrap().entry_size = entry_size;
        self
    }

    /// The address of the next section of code.
    pub fn next_address(&self) -> u64 {
        let used: usize = self.parts.iter().map(|part| part.data.len()).sum();
        TEXT_ADDRESS + used as u64
    }

    pub fn symtab(self, symbols: &[Sym]) -> Self {
        self.table(elf::SHT_SYMTAB, ".symtab", symbols)
    }

    pub fn dynsym(self, symbols: &[Sym]) -> Self {
        self.table(elf::SHT_DYNSYM, ".dynsym", symbols)
    }

    fn table(mut self, kind: elf::SectionType, name: &str, symbols: &[Sym]) -> Self {
        let mut names = vec![0];
        let mut data = vec![0; if self.is_64 { 24 } else { 16 }];
        for symbol in symbols {
            let at = names.len() as u32;
            names.extend_from_slice(symbol.name.as_bytes());
            names.push(0);
            self.write_symbol(&mut data, symbol, at);
        }
        self.add(name, kind, 0, 0, data);
        let strings = self.parts.len() as u32 + 1;
        self.parts.last_mut().unwrap().link = strings;
        self.add(".strtab", elf::SHT_STRTAB, 0, 0, names);
        self
    }

    fn write_symbol(&self, out: &mut Vec<u8>, symbol: &Sym, name: u32) {
        let info = symbol.bind.0 << 4 | symbol.kind.0;
        self.put(out, u64::from(name), 4);
        if self.is_64 {
            out.extend([info, 0]);
            self.put(out, u64::from(symbol.section), 2);
            self.put(out, symbol.address, 8);
            self.put(out, symbol.size, 8);
        } else {
            self.put(out, symbol.address, 4);
            self.put(out, symbol.size, 4);
            out.extend([info, 0]);
            self.put(out, u64::from(symbol.section), 2);
        }
    }

    /// Adds relocations: slot, index in `.dynsym`, addend.
    pub fn rela(mut self, name: &str, relocations: &[(u64, u32, u64)]) -> Self {
        let mut data = Vec::new();
        for &(slot, symbol, addend) in relocations {
            self.put(&mut data, slot, 8);
            self.put(&mut data, u64::from(symbol) << 32 | 7, 8);
            self.put(&mut data, addend, 8);
        }
        self.add(name, elf::SHT_RELA, elf::SHF_ALLOC.0, 0, data);
        self
    }

    /// Adds a segment with notes: align, then name, type and descriptor of each.
    pub fn notes(mut self, align: u64, notes: &[(&[u8], u32, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (name, kind, desc) in notes {
            self.put(&mut data, name.len() as u64, 4);
            self.put(&mut data, desc.len() as u64, 4);
            self.put(&mut data, u64::from(*kind), 4);
            for bytes in [name, desc] {
                data.extend_from_slice(bytes);
                data.resize(data.len().next_multiple_of(align as usize), 0);
            }
        }
        self.notes.push((align, data));
        self
    }

    fn add(&mut self, name: &str, kind: elf::SectionType, flags: u64, address: u64, data: Vec<u8>) {
        self.parts.push(Part { name: name.to_owned(), kind, flags, address, data, link: 0, entry_size: 0 });
    }

    fn put(&self, out: &mut Vec<u8>, value: u64, size: usize) {
        let bytes = value.to_be_bytes();
        let bytes = &bytes[8 - size..];
        if self.big_endian {
            out.extend(bytes);
        } else {
            out.extend(bytes.iter().rev());
        }
    }

    fn put_word(&self, out: &mut Vec<u8>, value: u64) {
        self.put(out, value, if self.is_64 { 8 } else { 4 });
    }

    /// Writes the file.
    pub fn build(self) -> Vec<u8> {
        self.build_with_sections(true)
    }

    /// Writes the file, perhaps without a section header table.
    pub fn build_with_sections(mut self, with_sections: bool) -> Vec<u8> {
        let mut names = vec![0];
        let mut name_offsets = Vec::new();
        let name_index = self.parts.len();
        self.add(".shstrtab", elf::SHT_STRTAB, 0, 0, Vec::new());
        for part in &self.parts {
            name_offsets.push(names.len() as u64);
            names.extend_from_slice(part.name.as_bytes());
            names.push(0);
        }
        self.parts[name_index].data = names;
        let mut body = Vec::new();
        let mut offsets = Vec::new();
        for part in &self.parts {
            offsets.push(TEXT_OFFSET + body.len() as u64);
            body.extend_from_slice(&part.data);
        }
        let mut segments = Vec::new();
        self.put_segment(&mut segments, elf::PT_LOAD, TEXT_OFFSET, body.len(), 0x1000);
        for (align, data) in &self.notes {
            let at = TEXT_OFFSET + body.len() as u64;
            self.put_segment(&mut segments, elf::PT_NOTE, at, data.len(), *align);
            body.extend_from_slice(data);
        }
        let table = TEXT_OFFSET + body.len() as u64;
        let mut file = self.header(if with_sections { table } else { 0 });
        file.extend(segments);
        file.resize(TEXT_OFFSET as usize, 0);
        file.extend(body);
        if with_sections {
            file.resize(file.len() + if self.is_64 { 64 } else { 40 }, 0);
            for (index, part) in self.parts.iter().enumerate() {
                self.put_section(&mut file, part, name_offsets[index], offsets[index]);
            }
        }
        file
    }

    fn header(&self, section_table: u64) -> Vec<u8> {
        let mut out = elf::ELFMAG.to_vec();
        out.extend([1 + u8::from(self.is_64), 1 + u8::from(self.big_endian), 1]);
        out.resize(16, 0);
        let sizes = if self.is_64 { [64, 56, 64] } else { [52, 32, 40] };
        self.put(&mut out, u64::from(elf::ET_DYN.0), 2);
        self.put(&mut out, u64::from(self.machine.0), 2);
        self.put(&mut out, 1, 4);
        for address in [0, sizes[0], section_table] {
            self.put_word(&mut out, address);
        }
        self.put(&mut out, 0, 4);
        let count = self.parts.len() as u64 + 1;
        let segments = 1 + self.notes.len() as u64;
        for half in [sizes[0], sizes[1], segments, sizes[2], count, count - 1] {
            self.put(&mut out, half, 2);
        }
        out
    }

    fn put_segment(&self, out: &mut Vec<u8>, kind: elf::ProgramType, offset: u64, size: usize, align: u64) {
        let address = offset - TEXT_OFFSET + TEXT_ADDRESS;
        let size = size as u64;
        self.put(out, u64::from(kind.0), 4);
        if self.is_64 {
            self.put(out, u64::from((elf::PF_R | elf::PF_X).0), 4);
        }
        for word in [offset, address, address, size, size] {
            self.put_word(out, word);
        }
        if !self.is_64 {
            self.put(out, u64::from((elf::PF_R | elf::PF_X).0), 4);
        }
        self.put_word(out, align);
    }

    fn put_section(&self, out: &mut Vec<u8>, part: &Part, name: u64, offset: u64) {
        self.put(out, name, 4);
        self.put(out, u64::from(part.kind.0), 4);
        let size = part.data.len() as u64;
        for word in [part.flags, part.address, offset, size] {
            self.put_word(out, word);
        }
        self.put(out, u64::from(part.link), 4);
        self.put(out, 0, 4);
        self.put_word(out, 0);
        self.put_word(out, part.entry_size);
    }
}
