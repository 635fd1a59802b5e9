//! Generated files: each rule by itself.

use object::elf;

use super::at_offset;
use super::builder::{Builder, Sym, TEXT_ADDRESS, TEXT_OFFSET, function, label};
use crate::symbols::elf::{ElfSymbols, SymbolError, SymbolSource};

pub const A: u64 = TEXT_ADDRESS;

pub fn load(bytes: &[u8]) -> ElfSymbols {
    ElfSymbols::from_bytes(bytes).unwrap()
}

/// The name at an offset in `.text`, or a dash.
pub fn name(symbols: &ElfSymbols, at: u64) -> String {
    let found = at_offset(symbols, TEXT_OFFSET + at);
    found.map_or("-".to_owned(), |symbol| symbol.name.into_owned())
}

/// The names at several offsets in `.text`.
pub fn names(symbols: &ElfSymbols, offsets: &[u64]) -> Vec<String> {
    offsets.iter().map(|&at| name(symbols, at)).collect()
}

#[test]
fn every_class_and_byte_order() {
    let machines = [elf::EM_X86_64, elf::EM_AARCH64, elf::EM_386, elf::EM_PPC64, elf::EM_S390, elf::EM_RISCV];
    for machine in machines {
        for (is_64, big_endian) in [(true, false), (true, true), (false, false), (false, true)] {
            let file = Builder::new(is_64, big_endian, machine)
                .text(0x100)
                .symtab(&[function("one", A + 0x10, 0x20), function("two", A + 0x40, 8)])
                .notes(4, &[(b"GNU\0", 3, b"0123456789abcdefghij")])
                .build();
            let symbols = load(&file);
            assert_eq!(symbols.source(), SymbolSource::Symtab);
            assert_eq!(symbols.build_id(), Some(&b"0123456789abcdefghij"[..]));
            let found = names(&symbols, &[0, 0xf, 0x10, 0x2f, 0x30, 0x40, 0x47, 0x48]);
            assert_eq!(found, ["-", "-", "one", "one", "-", "two", "two", "-"]);
            let one = at_offset(&symbols, TEXT_OFFSET + 0x1f).unwrap();
            assert_eq!((one.start, one.size), (A + 0x10, 0x20));
        }
    }
}

#[test]
fn offsets_outside_executable_segments_have_no_name() {
    let file = Builder::x86_64().text(0x100).symtab(&[function("one", A, 0x100)]).build();
    let symbols = load(&file);
    assert_eq!(at_offset(&symbols, 0), None);
    assert_eq!(at_offset(&symbols, TEXT_OFFSET - 1), None);
    assert_eq!(at_offset(&symbols, u64::MAX), None);
    assert!(at_offset(&symbols, TEXT_OFFSET).is_some());
}

#[test]
fn the_best_alias_is_shown() {
    let with = |name, kind, bind| Sym { kind, bind, ..function(name, A, 0x10) };
    let (func, global) = (elf::STT_FUNC, elf::STB_GLOBAL);
    let cases: [(&str, &[Sym]); 6] = [
        ("malloc", &[with("__libc_malloc", func, global), with("malloc", func, global)]),
        ("strong", &[with("weak_longer", func, elf::STB_WEAK), with("strong", func, global)]),
        ("weak", &[with("local_longer", func, elf::STB_LOCAL), with("weak", func, elf::STB_WEAK)]),
        ("code", &[with("note_longer", elf::STT_NOTYPE, global), with("code", func, elf::STB_LOCAL)]),
        ("chosen", &[with("chosen", elf::STT_GNU_IFUNC, global), with("_chosen", func, global)]),
        ("longer", &[with("short", func, global), with("longer", func, global)]),
    ];
    for (best, aliases) in cases {
        for aliases in [aliases.to_vec(), aliases.iter().rev().copied().collect()] {
            let file = Builder::x86_64().text(0x10).symtab(&aliases).build();
            assert_eq!(name(&load(&file), 5), best);
        }
    }
}

#[test]
fn the_innermost_of_overlapping_symbols_wins() {
    let file = Builder::x86_64()
        .text(0x100)
        .symtab(&[
            function("outer", A, 0x80),
            function("inner", A + 0x20, 0x10),
            function("overlapping", A + 0x70, 0x20),
            function("short", A, 4),
        ])
        .build();
    let symbols = load(&file);
    let found = names(&symbols, &[0, 3, 4, 0x20, 0x2f, 0x30, 0x70, 0x8f, 0x90]);
    let expected = ["short", "short", "outer", "inner", "inner", "outer", "overlapping", "overlapping", "-"];
    assert_eq!(found, expected);
}

#[test]
fn a_symbol_without_size_ends_at_the_next_or_with_its_section() {
    let file = Builder::x86_64()
        .text(0x100)
        .code(".fini", vec![0x90; 0x20], 0)
        .symtab(&[
            label("_start", A + 0x10),
            function("main", A + 0x40, 0x10),
            label("inside_main", A + 0x44),
            label("after", A + 0x60),
            label("last", A + 0x80),
            Sym { section: 2, ..function("_fini", A + 0x110, 0) },
            // Marks the end of .text: it covers nothing.
            label("etext", A + 0x100),
        ])
        .build();
    let symbols = load(&file);
    let found = names(&symbols, &[0, 0x10, 0x3f, 0x40, 0x44, 0x4f, 0x50, 0x5f]);
    let expected = ["-", "_start", "_start", "main", "main", "main", "-", "-"];
    assert_eq!(found, expected);
    let found = names(&symbols, &[0x60, 0x7f, 0x80, 0xff, 0x100, 0x110, 0x11f]);
    let expected = ["after", "after", "last", "last", "-", "_fini", "_fini"];
    assert_eq!(found, expected);
    let start = at_offset(&symbols, TEXT_OFFSET + 0x20).unwrap();
    assert_eq!((start.start, start.size), (A + 0x10, 0x30));
}

#[test]
fn what_is_no_code_names_nothing() {
    let other = |name, kind, section| Sym { kind, section, ..function(name, A, 0x10) };
    let file = Builder::x86_64()
        .text(0x100)
        .symtab(&[
            other("object", elf::STT_OBJECT, 1),
            other("section", elf::STT_SECTION, 1),
            other("file.c", elf::STT_FILE, elf::SHN_ABS.0),
            other("tls", elf::STT_TLS, 1),
            other("undefined", elf::STT_FUNC, 0),
            other("common", elf::STT_FUNC, elf::SHN_COMMON.0),
            other("absolute_label", elf::STT_NOTYPE, elf::SHN_ABS.0),
            other("no_such_section", elf::STT_FUNC, 77),
            other("in_strtab", elf::STT_FUNC, 3),
            other("", elf::STT_FUNC, 1),
            function("elsewhere", 0x10, 0x10),
            label("$x", A),
            label("$d.12", A + 8),
            label(".Lloop", A + 9),
            label(".annobin_start.c", A + 10),
        ])
        .build();
    let symbols = load(&file);
    assert_eq!(names(&symbols, &[0, 8, 0xf, 0x20]), ["-", "-", "-", "-"]);
    let reason = SymbolSource::None("stripped: no function symbols");
    assert_eq!(symbols.source(), reason);
    assert_eq!(reason.to_string(), "none: stripped: no function symbols");
}

#[test]
fn functions_that_name_no_section_are_found_by_address() {
    let other =
        |name, at, section: elf::SymbolSection| Sym { section: section.0, ..function(name, A + at, 0x10) };
    let file = Builder::x86_64()
        .text(0x100)
        .symtab(&[other("absolute", 0, elf::SHN_ABS), other("far_index", 0x20, elf::SHN_XINDEX)])
        .build();
    assert_eq!(names(&load(&file), &[0, 0x20]), ["absolute", "far_index"]);
}

#[test]
fn thumb_functions_lose_their_low_bit() {
    let file = Builder::new(false, false, elf::EM_ARM)
        .text(0x100)
        .symtab(&[function("thumb", A + 0x11, 0x10)])
        .build();
    let found = names(&load(&file), &[0xf, 0x10, 0x1f, 0x20]);
    assert_eq!(found, ["-", "thumb", "thumb", "-"]);
}

#[test]
fn a_size_beyond_the_section_is_cut() {
    let file = Builder::x86_64()
        .text(0x20)
        .code(".fini", vec![0x90; 0x20], 0)
        .symtab(&[function("huge", A + 1, u64::MAX), function("wraps", A + 0x10, u64::MAX - A)])
        .build();
    let found = names(&load(&file), &[0, 1, 0xf, 0x10, 0x1f, 0x20]);
    assert_eq!(found, ["-", "huge", "huge", "wraps", "wraps", "-"]);
}

#[test]
fn dynamic_symbols_serve_when_there_are_no_others() {
    let dynamic = [
        function("exported", A, 0x10),
        // Static functions, which .dynsym lacks, may follow it.
        function("unsized", A + 0x20, 0),
        Sym { section: 2, ..function("_init", A + 0x100, 0) },
    ];
    let builder = || Builder::x86_64().text(0x100).code(".init", vec![0x90; 0x10], 0);
    let found = |file: Vec<u8>| names(&load(&file), &[0, 0x20, 0x80, 0x100, 0x10f]);
    let stripped = builder().dynsym(&dynamic).build();
    assert_eq!(load(&stripped).source(), SymbolSource::Dynsym);
    assert_eq!(found(stripped), ["exported", "-", "-", "_init", "_init"]);
    let object = Sym { kind: elf::STT_OBJECT, ..function("data", A, 8) };
    let only_data = builder().symtab(&[object]).dynsym(&dynamic).build();
    assert_eq!(load(&only_data).source(), SymbolSource::Dynsym);
    let both = builder().symtab(&[function("full", A, 0x10)]).dynsym(&dynamic).build();
    assert_eq!(load(&both).source(), SymbolSource::Symtab);
    assert_eq!(found(both)[0], "full");
}

#[test]
fn names_that_are_not_utf8_are_escaped() {
    let file = Builder::x86_64().text(0x10).symtab(&[function("br@ken", A, 0x10)]).build();
    let at = file.windows(6).position(|w| w == b"br@ken").unwrap();
    let mut file = file;
    file[at + 2] = 0xff;
    assert_eq!(name(&load(&file), 0), "br\\xffken");
}

#[test]
fn build_ids_need_no_sections() {
    let id: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";
    let property: (&[u8], u32, &[u8]) = (b"GNU\0", 5, b"0123456789abcdef");
    let cases = [
        Builder::x86_64().text(16).notes(4, &[(b"GNU\0", 3, id)]),
        Builder::x86_64()
            .text(16)
            .notes(8, &[property])
            .notes(4, &[(b"Linux\0", 3, b"no"), (b"GNU\0", 3, id)]),
        Builder::x86_64().text(16).notes(8, &[property, (b"GNU\0", 3, id)]),
    ];
    for builder in cases {
        let file = builder.build_with_sections(false);
        let symbols = load(&file);
        assert_eq!(symbols.build_id(), Some(id));
        assert_eq!(symbols.source(), SymbolSource::None("no section headers"));
    }
    let wrong: [(&[u8], u32, &[u8]); 4] =
        [(b"GNU\0", 1, id), (b"GN\0\0", 3, id), (b"GNU\0", 3, b""), (b"GNU\0", 3, &[7; 65])];
    for note in wrong {
        let file = Builder::x86_64().text(16).notes(4, &[note]).build();
        assert_eq!(load(&file).build_id(), None);
    }
}

#[test]
fn damaged_files_say_what_is_wrong() {
    let file = Builder::x86_64().text(0x10).symtab(&[function("f", A, 0x10)]).build();
    let error = |bytes: &[u8]| ElfSymbols::from_bytes(bytes).unwrap_err();
    assert!(matches!(error(b""), SymbolError::NotElf));
    assert!(matches!(error(b"#!/bin/sh\nexit 0\n"), SymbolError::NotElf));
    assert!(matches!(error(&file[..40]), SymbolError::OutsideFile(_)));
    let cut = error(&file[..file.len() - 1]).to_string();
    let expected = "damaged ELF file: the section headers lie outside the file";
    assert_eq!(cut, expected);
    let mut unknown_class = file.clone();
    unknown_class[4] = 3;
    assert!(matches!(error(&unknown_class), SymbolError::Malformed(_)));
}

#[test]
fn a_damaged_symtab_gives_way_to_dynsym() {
    let mut file = Builder::x86_64()
        .text(0x10)
        .symtab(&[function("full", A, 0x10)])
        .dynsym(&[function("exported", A, 0x10)])
        .build();
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    let offset_of_symtab = table + 2 * 64 + 24;
    file[offset_of_symtab + 7] = 0xff;
    let symbols = load(&file);
    assert_eq!(symbols.source(), SymbolSource::Dynsym);
    assert_eq!(name(&symbols, 0), "exported");
}

#[test]
fn counts_beyond_16_bits_are_in_the_first_section_header() {
    let mut file = Builder::x86_64().text(0x10).symtab(&[function("f", A, 0x10)]).build();
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    let segments = file[56];
    let sections = file[60];
    let names = file[62];
    file[56..58].copy_from_slice(&[0xff, 0xff]);
    file[60..64].copy_from_slice(&[0, 0, 0xff, 0xff]);
    file[table + 32] = sections;
    file[table + 40] = names;
    file[table + 44] = segments;
    assert_eq!(name(&load(&file), 0), "f");
}
