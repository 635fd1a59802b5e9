//! Tables of real files, and walks over stacks whose frames are known.

use std::fs::File;
use std::time::Instant;

use super::cfi::read_rules;
use super::rule::SavedFp;
use super::{CallFrames, Cfa, CodeSegment, Frame, Machine, Rule, StackMemory, Stop, Table, TableError};
use crate::symbols;

mod arm64;

const OURSELVES: &str = "/proc/self/exe";

fn frames_of(path: &str) -> (CallFrames, Vec<CodeSegment>) {
    symbols::call_frames(&File::open(path).unwrap()).unwrap()
}

fn table_of(path: &str) -> Result<Table, TableError> {
    let (frames, segments) = frames_of(path);
    Table::build(&frames, &segments)
}

/// A generator of numbers that is the same in each run.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    }
}

#[test]
fn a_table_holds_what_the_file_says() {
    let (frames, segments) = frames_of(OURSELVES);
    let (table, rules) = (Table::build(&frames, &segments).unwrap(), read_rules(&frames));
    assert!(rules.rows.len() > 1000);
    assert_eq!((table.refused, rules.damaged, rules.cut), (0, 0, false));
    let mut random = random(7);
    for segment in &segments {
        for _ in 0..20_000 {
            let skipped = random() % segment.len;
            let at = rules.rows.partition_point(|row| row.0 <= segment.address + skipped);
            let expected = at.checked_sub(1).map_or(Rule::NONE, |at| rules.rows[at].1);
            assert_eq!(table.rule_at(segment.offset + skipped), Some(expected), "{skipped:#x}");
        }
    }
    assert_eq!(table.rule_at(u64::MAX), None);
}

/// Builds tables of a file's call frames with bytes of `damage` in them: nothing may happen but an error.
fn build_damaged(path: &str, seed: u64, damage: impl Fn(&mut dyn FnMut() -> u64) -> u8) {
    let (frames, segments) = frames_of(path);
    let (address, bytes) = frames.eh_frame.clone().unwrap();
    let mut random = random(seed);
    for round in 0..400 {
        let mut damaged = bytes.clone();
        for _ in 0..=round % 30 {
            let at = random() as usize % damaged.len();
            damaged[at] = damage(&mut random);
        }
        damaged.truncate(damaged.len() - random() as usize % 100);
        let debug_frame = (round % 3 == 0).then(|| damaged.clone());
        let frames =
            CallFrames { eh_frame: Some((address, damaged)), debug_frame, special: Vec::new(), ..frames };
        if let Ok(table) = Table::build(&frames, &segments) {
            (0..200).for_each(|_| _ = table.rule_at(random() % (1 << 20)));
        }
    }
}

#[test]
fn damaged_call_frames_do_no_harm() {
    build_damaged("/usr/bin/env", 1, |random| random() as u8);
}

#[test]
fn segments_that_make_no_sense_are_refused() {
    let (frames, _) = frames_of("/usr/bin/env");
    let far = CodeSegment { offset: 1 << 60, address: 0, len: 1 << 62 };
    assert_eq!(Table::build(&frames, &[]), Err(TableError::TooSparse));
    assert_eq!(Table::build(&frames, &[far]), Err(TableError::TooSparse));
    assert_eq!(
        Table::build(&frames, &[CodeSegment { offset: 0, address: 0, len: 4096 }, far]),
        Err(TableError::TooSparse)
    );
    let none = CallFrames { eh_frame: None, debug_frame: None, special: Vec::new(), ..frames };
    assert_eq!(Table::build(&none, &[]), Err(TableError::NoFrames));
}

/// A stack of words from address 0x1000 on.
fn memory(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn leaf() -> Frame {
    Frame { ip: 0x40_0000, sp: 0x1000, fp: 0x1020, is_return: false, bx_at: None, lr: None }
}

#[test]
fn each_rule_finds_the_caller() {
    let bytes = memory(&[0x1111, 0x2222, 0x1030, 0x4444, 0x5555, 0x6666, 0x7777, 0x8888]);
    let memory = StackMemory { start: 0x1000, bytes: &bytes, machine: Machine::X86_64 };
    let caller = |rule: Rule| leaf().caller(rule, &memory);
    let frame = |ip, sp, fp| Ok(Frame { ip, sp, fp, is_return: true, bx_at: None, lr: None });
    let rule = |cfa, fp| Rule { cfa, fp, ..Rule::NONE };
    assert_eq!(caller(rule(Cfa::Sp(8), SavedFp::Same)), frame(0x1111, 0x1008, 0x1020));
    assert_eq!(caller(rule(Cfa::Sp(16), SavedFp::AtCfa(-16))), frame(0x2222, 0x1010, 0x1111));
    assert_eq!(caller(rule(Cfa::Fp(16), SavedFp::AtCfa(-16))), frame(0x6666, 0x1030, 0x5555));
    assert_eq!(caller(rule(Cfa::SpDeref(16, 8), SavedFp::AtFp(0))), frame(0x7777, 0x1038, 0x5555));
    assert_eq!(caller(rule(Cfa::Plt(11), SavedFp::Same)), frame(0x1111, 0x1008, 0x1020));
    let late = Frame { ip: 0x40_000b, ..leaf() };
    assert_eq!(late.caller(rule(Cfa::Plt(11), SavedFp::Same), &memory), frame(0x2222, 0x1010, 0x1020));
    // Popped already, as it is after an epilogue's last pop.
    assert_eq!(caller(rule(Cfa::Sp(8), SavedFp::AtCfa(-16))), frame(0x1111, 0x1008, 0x1020));
    assert_eq!(caller(Rule { cfa: Cfa::Sp(8), bx: -40, ..Rule::NONE }).unwrap().bx_at, None);
    let bx = Rule { cfa: Cfa::Sp(24), bx: -8, ..Rule::NONE };
    assert_eq!(caller(bx).unwrap().bx_at, Some(0x1010));
    let aligned = Frame { bx_at: Some(0x1010), ..leaf() };
    let by_bx = rule(Cfa::Register(Rule::BX, 8), SavedFp::Same);
    assert_eq!(aligned.caller(by_bx, &memory).unwrap().sp, 0x1038);
    assert_eq!(caller(by_bx), Err(Stop::UnsupportedRule));
    let interrupted = caller(rule(Cfa::Signal(48), SavedFp::Same)).unwrap();
    assert_eq!((interrupted.ip, interrupted.sp, interrupted.fp), (0x8888, 0x7777, 0x2222));
    assert!(!interrupted.is_return);
}

#[test]
fn a_walk_ends_where_it_must() {
    let bytes = memory(&[0, 0x2222]);
    let memory = StackMemory { start: 0x1000, bytes: &bytes, machine: Machine::X86_64 };
    let caller = |cfa| leaf().caller(Rule { cfa, ..Rule::NONE }, &memory).unwrap_err();
    assert_eq!(caller(Cfa::Sp(8)), Stop::Entry); // no return address
    assert_eq!(caller(Cfa::End), Stop::Entry);
    assert_eq!(caller(Cfa::None), Stop::NoTable);
    assert_eq!(caller(Cfa::Sp(0)), Stop::BadFrame); // would go on for ever
    assert_eq!(caller(Cfa::Sp(-16)), Stop::BadFrame);
    assert_eq!(caller(Cfa::Sp(4096)), Stop::Unreadable);
    assert_eq!(caller(Cfa::Sp(i32::MAX - 7)), Stop::Unreadable);
    assert_eq!(caller(Cfa::Unsupported), Stop::UnsupportedRule);
}

#[test]
fn a_32_bit_stack_has_words_of_four_bytes() {
    let bytes: Vec<u8> = [0x1018u32, 0x804_8000, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let memory = StackMemory { start: 0x1000, bytes: &bytes, machine: Machine::X86 };
    let frame = Frame { fp: 0x1000, ..leaf() };
    let caller = frame.caller_by_frame_pointer(&memory).unwrap();
    assert_eq!((caller.ip, caller.sp, caller.fp), (0x804_8000, 0x1008, 0x1018));
}

/// Prints what tables cost: `cargo test --release -- --ignored --nocapture table_sizes`, the files in
/// `SBERF_TABLES`, separated by colons.
#[test]
#[ignore = "prints figures"]
fn table_sizes() {
    for path in std::env::var("SBERF_TABLES").unwrap().split(':') {
        let started = Instant::now();
        let table = table_of(path);
        let elapsed = started.elapsed();
        match table {
            Ok(table) => println!(
                "{path}: {} rows, {} rules, {} bytes, {} refused, {elapsed:?}",
                table.rows.len(),
                table.rules.len(),
                4 * (table.rows.len() + table.pages()),
                table.refused,
            ),
            Err(error) => println!("{path}: {error}"),
        }
    }
}
