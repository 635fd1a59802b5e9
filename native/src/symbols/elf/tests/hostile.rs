//! Files that were cut, damaged at random, or made to exhaust their reader.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use object::elf;

use super::at_offset;
use super::builder::{Builder, Sym, TEXT_ADDRESS, function, label};
use super::real::compile;
use crate::symbols::elf::{ElfSymbols, SymbolError, build_id};
use crate::symbols::tests::Random;

/// Asks a file for everything that it can answer.
fn exercise(bytes: &[u8], random: &mut Random) {
    let Ok(symbols) = ElfSymbols::from_bytes(bytes) else {
        return;
    };
    let _ = symbols.source().to_string();
    for _ in 0..32 {
        let offset = match random.below(4) {
            0 => random.odd_number(),
            _ => random.below(bytes.len() as u64 + 1),
        };
        if let Some(address) = symbols.address_of(offset)
            && let Some(symbol) = symbols.lookup(address)
        {
            assert!(!symbol.name.is_empty() && symbol.size > 0);
            let end = symbol.start.saturating_add(symbol.size);
            assert!(symbol.start <= address && address < end, "{symbol:?}");
        }
    }
}

/// Overwrites numbers, most of them in the header and the tables.
fn damage(file: &mut Vec<u8>, hot_spots: &[usize], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let size = 1 << random.below(4);
        let at = match random.below(4) {
            0 => random.below(file.len() as u64) as usize,
            1 => random.below(64) as usize,
            _ => {
                let spot = hot_spots[random.below(hot_spots.len() as u64) as usize];
                spot + random.below(16) as usize
            }
        };
        let value = random.odd_number().to_le_bytes();
        if let Some(place) = file.get_mut(at..at + size) {
            place.copy_from_slice(&value[..size]);
        }
    }
    if random.below(16) == 0 {
        file.truncate(random.below(file.len() as u64) as usize);
    }
}

/// Where a file holds more than padding: its headers and tables.
fn hot_spots(file: &[u8]) -> Vec<usize> {
    let blocks = file.chunks(16).enumerate();
    let hot = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != block[0]));
    hot.map(|(index, _)| index * 16).collect()
}

#[test]
fn files_damaged_at_random() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "program", &["-O1", "-Wl,-z,lazy"]);
    let generated = |is_64, big_endian, machine| {
        Builder::new(is_64, big_endian, machine)
            .text(0x40)
            .code(".plt", vec![0xff, 0x25, 0, 0, 0, 0, 0x90, 0x90], 8)
            .symtab(&[function("f", TEXT_ADDRESS, 8), label("g", TEXT_ADDRESS + 16)])
            .dynsym(&[function("h", TEXT_ADDRESS, 8)])
            .notes(4, &[(b"GNU\0", 3, b"0123456789abcdefghij")])
            .build()
    };
    let files = [
        fs::read(program).unwrap(),
        generated(true, false, elf::EM_X86_64),
        generated(true, false, elf::EM_AARCH64),
        generated(true, true, elf::EM_AARCH64),
        generated(false, false, elf::EM_ARM),
        generated(false, true, elf::EM_PPC),
    ];
    let spots = files.each_ref().map(|file| hot_spots(file));
    let mut random = Random::new(11);
    let deadline = Instant::now() + Duration::from_millis(1500);
    let mut rounds = 0;
    while Instant::now() < deadline {
        let pick = random.below(files.len() as u64) as usize;
        let mut file = files[pick].clone();
        damage(&mut file, &spots[pick], &mut random);
        exercise(&file, &mut random);
        rounds += 1;
    }
    assert!(rounds > 100, "only {rounds} rounds");
}

#[test]
fn every_prefix_of_a_file() {
    let file = Builder::x86_64().text(0x40).symtab(&[function("f", TEXT_ADDRESS, 8)]).build();
    let mut random = Random::new(12);
    for length in 0..file.len() {
        exercise(&file[..length], &mut random);
    }
}

#[test]
fn a_file_that_shrinks_is_an_error_not_a_signal() {
    let bytes = Builder::x86_64().text(0x1000).symtab(&[function("f", TEXT_ADDRESS, 8)]).build();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let symbols = ElfSymbols::load(&file).unwrap();
    file.set_len(0x1800).unwrap();
    assert!(at_offset(&symbols, 0x1000).is_some());
    let error = ElfSymbols::load(&file).unwrap_err();
    assert!(matches!(error, SymbolError::OutsideFile(_)), "{error}");
}

#[test]
fn what_is_no_regular_file_is_refused_without_reading() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    for file in [pipe, File::open("/dev/zero").unwrap(), File::open("/").unwrap()] {
        let error = ElfSymbols::load(&file).unwrap_err();
        assert!(matches!(error, SymbolError::NotRegular), "{error}");
        assert_eq!(build_id(&file), None);
    }
}

/// A file of many terabytes, almost all of them a hole, with a table that fills the hole.
#[test]
fn tables_of_any_claimed_size_cost_no_memory() {
    let bytes = Builder::x86_64().text(0x10).symtab(&[function("f", TEXT_ADDRESS, 8)]).build();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path.path()).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.set_len(1 << 40).unwrap();
    // The sizes of .symtab and of .strtab, then the numbers of sections and of segments.
    for section in [2, 3] {
        let size_at = table + section * 64 + 32;
        file.write_all_at(&(1_u64 << 39).to_le_bytes(), size_at).unwrap();
        let error = ElfSymbols::load(&file).unwrap_err();
        assert!(matches!(error, SymbolError::TooLarge(_)), "{error}");
        file.write_all_at(&24_u64.to_le_bytes(), size_at).unwrap();
    }
    file.write_all_at(&[0, 0], 60).unwrap();
    file.write_all_at(&(1_u64 << 32).to_le_bytes(), table + 32).unwrap();
    let error = ElfSymbols::load(&file).unwrap_err();
    assert!(matches!(error, SymbolError::TooLarge(_)), "{error}");
    file.write_all_at(&[0xff, 0xff], 56).unwrap();
    file.write_all_at(&u32::MAX.to_le_bytes(), table + 44).unwrap();
    let error = ElfSymbols::load(&file).unwrap_err();
    assert!(matches!(error, SymbolError::TooLarge(_)), "{error}");
}

#[test]
fn a_hundred_thousand_symbols_on_one_spot() {
    let symbols: Vec<Sym> = (0..100_000)
        .map(|index| match index % 4 {
            0 => function("a_long_name_for_the_very_same_code", TEXT_ADDRESS, 16),
            1 => function("nested", TEXT_ADDRESS + index % 64, 64),
            2 => label("label", TEXT_ADDRESS + index % 128),
            _ => function("endless", TEXT_ADDRESS, u64::MAX - index),
        })
        .collect();
    let file = Builder::x86_64().text(0x100).symtab(&symbols).build();
    let started = Instant::now();
    let mut random = Random::new(13);
    exercise(&file, &mut random);
    assert!(started.elapsed() < Duration::from_secs(5));
}
