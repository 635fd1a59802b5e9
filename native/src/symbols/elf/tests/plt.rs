//! Generated files with procedure linkage tables.

use object::elf;

use super::at_offset;
use super::builder::{Builder, Sym, TEXT_OFFSET, function};
use super::synthetic::{A, load, names};
use crate::symbols::elf::SymbolSource;

/// `jmp *slot(%rip)` at `at`.
fn jump(at: u64, slot: u64) -> Vec<u8> {
    let mut code = vec![0xff, 0x25];
    code.extend((slot.wrapping_sub(at + 6) as u32).to_le_bytes());
    code
}

/// Bytes one after the other, filled up to `size` with nops.
fn stub(parts: &[&[u8]], size: usize) -> Vec<u8> {
    let mut code = parts.concat();
    code.resize(size, 0x90);
    code
}

#[test]
fn stubs_of_x86_64_are_named_after_their_targets() {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    let slots = [0x50_0018, 0x50_0020, 0x50_0028, 0x50_0030];
    let plt = A + 0x10;
    let mut code = stub(&[&[0xff, 0x35, 0, 0, 0, 0]], 16);
    code.extend(stub(&[&jump(plt + 0x10, slots[0])], 16));
    code.extend(stub(&[ENDBR64, &[0x68, 1, 0, 0, 0]], 16));
    let mold = [0x41, 0xbb, 2, 0, 0, 0];
    code.extend(stub(&[ENDBR64, &mold, &jump(plt + 0x3a, slots[2])], 16));
    let second = plt + code.len() as u64;
    let bnd_jump = [&[0xf2], &jump(second + 5, slots[1])[..]].concat();
    let third = second + 16;
    let file = Builder::x86_64()
        .text(0x10)
        .code(".plt", code, 16)
        .code(".plt.sec", stub(&[ENDBR64, &bnd_jump], 16), 16)
        .code(".plt.got", stub(&[&jump(third, slots[3])], 8), 8)
        .dynsym(&[
            function("resolver", A, 0x10),
            Sym { section: 0, ..function("puts", 0, 0) },
            Sym { section: 0, ..function("free", 0, 0) },
        ])
        .rela(".rela.plt", &[(slots[0], 2, 0), (slots[1], 3, 0), (slots[2], 0, A)])
        .rela(".rela.dyn", &[(0x123, 9, 9), (slots[3], 3, 0)])
        .build();
    let symbols = load(&file);
    let found = names(&symbols, &[0x10, 0x20, 0x2f, 0x30, 0x40, 0x50, 0x60, 0x68]);
    let expected = ["-", "puts@plt", "puts@plt", "free@plt", "resolver@plt", "free@plt", "free@plt", "-"];
    assert_eq!(found, expected);
    let puts = at_offset(&symbols, TEXT_OFFSET + 0x25).unwrap();
    assert_eq!((puts.start, puts.size), (A + 0x20, 16));
}

/// `adrp x16, slot; ldr x17, [x16, slot]; add x16, x16, slot; br x17`.
fn arm64_stub(at: u64, slot: u64) -> Vec<u8> {
    let pages = ((slot >> 12).wrapping_sub(at >> 12) & 0x1f_ffff) as u32;
    let low = (slot & 0xfff) as u32;
    let adrp = 0x9000_0010 | (pages & 3) << 29 | (pages >> 2) << 5;
    let ldr = 0xf940_0211 | (low / 8) << 10;
    let add = 0x9100_0210 | low << 10;
    let words = [adrp, ldr, add, 0xd61f_0220];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn stubs_of_arm64_are_named_after_their_targets() {
    const BTI_C: &[u8] = &0xd503_245f_u32.to_le_bytes();
    const NOP: &[u8] = &0xd503_201f_u32.to_le_bytes();
    // One slot lies more than 2^31 bytes behind the code, one before it.
    let slots = [0xf050_0018, 0x10_0fe8, 0x50_0030];
    for big_endian in [false, true] {
        let plt = A + 0x10;
        let mut code = vec![0; 16];
        code.extend(arm64_stub(plt + 16, 0x50_0010));
        code.extend(arm64_stub(plt + 32, slots[0]));
        code.extend(arm64_stub(plt + 48, slots[1]));
        code.extend(BTI_C);
        code.extend(arm64_stub(plt + 68, slots[2]));
        code.extend(NOP);
        let file = Builder::new(true, big_endian, elf::EM_AARCH64)
            .text(0x10)
            .code(".plt", code, 16)
            .symtab(&[function("main", A, 0x10)])
            .dynsym(&[
                Sym { section: 0, ..function("puts", 0, 0) },
                Sym { section: 0, ..function("free", 0, 0) },
            ])
            .rela(".rela.plt", &[(slots[0], 1, 0), (slots[1], 2, 0), (slots[2], 0, A)])
            .build();
        let symbols = load(&file);
        assert_eq!(symbols.source(), SymbolSource::Symtab);
        let found = names(&symbols, &[0x10, 0x20, 0x30, 0x3f, 0x40, 0x4f, 0x50, 0x67]);
        let expected = ["-", "-", "puts@plt", "puts@plt", "free@plt", "free@plt", "main@plt", "main@plt"];
        assert_eq!(found, expected);
    }
}
