//! Tables of arm64 code beside what readelf says of its call frames, and walks over arm64 stacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{build_damaged, frames_of, memory};
use crate::symbols;
use crate::symbols::tests::run;
use crate::unwind::rule::SavedFp;
use crate::unwind::{Cfa, CodeSegment, Frame, Machine, Rule, StackMemory, Stop, Table};

/// What Debian's compilers make of real programs.
const LIBRARIES: [&str; 3] = ["libc.so.6", "ld-linux-aarch64.so.1", "libm.so.6"];
const LIBRARY_DIR: &str = "/usr/aarch64-linux-gnu/lib";

/// Frames of each kind: leaves, calls, alloca, a frame of 70 kB, saved vector registers, calls of another file.
const PROGRAM: &str = r#"
extern int far_away(int);
#define OWN __attribute__((noinline))
OWN int leaf(int x) { return x * x + 1; }
OWN int spills(int x) { volatile int a[40]; for (int i = 0; i < 40; i++) a[i] = leaf(i + x); return a[x & 31]; }
OWN int deep(int x) { return x < 2 ? x : deep(x - 1) + leaf(x); }
OWN int dynamic(int x) { char *p = __builtin_alloca(x + 16); p[x] = deep(x); return spills(p[x]) + p[0]; }
OWN int large(int x) { volatile char b[70000]; b[x] = 1; return deep(b[x + 1]); }
OWN int aligned(int x) { _Alignas(64) volatile char b[128]; b[x] = 1; return leaf(b[x + 1]); }
OWN double floats(double x, int n) { double y = x * n; for (int i = 0; i < n; i++) y += deep(i) * x; return y; }
OWN int outward(int x) { return far_away(x) + far_away(x + 1); }
int sum(int x) {
    return leaf(x) + spills(x) + deep(x) + dynamic(x) + large(x) + aligned(x) + (int)floats(x, 3) + outward(x);
}
"#;

/// A shared object for arm64; the BPF programs' compiler can do that too.
fn build(dir: &Path, file: &str, source: &str, options: &[&str]) -> PathBuf {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_string());
    let (source_path, output) = (dir.join(file), dir.join("arm64.so"));
    fs::write(&source_path, source).unwrap();
    let mut arguments = vec!["--target=aarch64-linux-gnu", "-O2", "-ffreestanding", "-nostdlib", "-shared"];
    arguments.extend([
        "-fPIC",
        "-fuse-ld=lld",
        "-o",
        output.to_str().unwrap(),
        source_path.to_str().unwrap(),
    ]);
    arguments.extend(options);
    run(&clang, &arguments);
    output
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

/// A row of readelf's table: where the frame is, where x29 and the return address are saved.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    cfa: String,
    fp: String,
    ra: String,
}

/// A function's begin and end, and from where on each of its rows holds.
type Function = (u64, u64, Vec<(u64, Row)>);

/// What readelf says of a file.
struct Described {
    functions: Vec<Function>,
    /// From where on a function has no caller: readelf shows that as if it said nothing.
    outermost: BTreeMap<u64, u64>,
}

impl Described {
    fn read(path: &str) -> Self {
        let text = run("readelf", &["--debug-dump=frames-interp", path]);
        let raw = run("readelf", &["--debug-dump=frames", path]);
        Self { functions: functions_of(&text), outermost: outermost_of(&raw) }
    }
}

/// `00000014 0000000000000024 00000018 FDE cie=00000000 pc=00000000000103c4..00000000000103dc`
fn range_of(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(" pc=")?.1.split_once("..")?;
    Some((hex(start), hex(end)))
}

/// ```text
///    LOC           CFA      x29   ra
/// 00000000000103cc x29+16   c-16  c-8
/// ```
fn functions_of(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let (mut columns, mut is_function): (Vec<&str>, _) = (Vec::new(), false);
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if line.contains(" CIE ") {
            is_function = false;
        } else if let Some((start, end)) = range_of(line) {
            is_function = true;
            // A function without rows of its own has the row that all begin with.
            let first = Row { cfa: "sp+0".into(), fp: "u".into(), ra: "u".into() };
            functions.push((start, end, vec![(start, first)]));
        } else if fields.first() == Some(&"LOC") {
            columns = fields;
        } else if let (Some(function), true) = (functions.last_mut(), is_function)
            && fields.first().is_some_and(|location| location.len() == 16)
        {
            let column = |name| columns.iter().position(|column| *column == name);
            let cell = |name| column(name).map_or("u", |at| fields[at]).to_string();
            function.2.push((hex(fields[0]), Row { cfa: cell("CFA"), fp: cell("x29"), ra: cell("ra") }));
        }
    }
    functions
}

/// `  DW_CFA_advance_loc: 4 to 0000000000027704` and `  DW_CFA_undefined: r30 (x30)`
fn outermost_of(raw: &str) -> BTreeMap<u64, u64> {
    let (mut outermost, mut function, mut location) = (BTreeMap::new(), 0, 0);
    for line in raw.lines() {
        if let Some((start, _)) = range_of(line) {
            (function, location) = (start, start);
        } else if let (Some((_, to)), true) = (line.rsplit_once(" to "), line.contains("advance_loc")) {
            location = hex(to.trim());
        } else if line.contains("DW_CFA_undefined: r30") {
            outermost.insert(function, location);
        }
    }
    outermost
}

/// `c-16`: saved at CFA - 16.
fn saved_at(cell: &str) -> Option<i16> {
    cell.strip_prefix('c')?.parse().ok()
}

/// The rule that a row asks for; None: one that no rule can say.
fn expected(row: &Row) -> Option<Rule> {
    let (register, offset) = row.cfa.split_at(row.cfa.find(['+', '-'])?);
    let offset: i32 = offset.parse().ok()?;
    let cfa = match register {
        "sp" => Cfa::Sp(offset),
        "x29" => Cfa::Fp(offset),
        other => Cfa::Register(other.strip_prefix('x')?.parse().ok()?, offset),
    };
    let fp = match row.fp.as_str() {
        "u" | "s" => SavedFp::Same,
        cell => SavedFp::AtCfa(saved_at(cell)?),
    };
    let lr = match row.ra.as_str() {
        "u" | "s" => 0,
        cell => saved_at(cell).filter(|offset| *offset < 0)?,
    };
    Some(Rule { cfa, fp, bx: 0, lr })
}

#[derive(Debug, Default)]
struct Counts {
    instructions: usize,
    unsupported: usize,
    outermost: usize,
    /// The return address is saved, but not beside the frame pointer.
    alone: usize,
}

fn offset_in_file(segments: &[CodeSegment], address: u64) -> u64 {
    let holds = |segment: &&CodeSegment| address.wrapping_sub(segment.address) < segment.len;
    let segment = segments.iter().find(holds).unwrap();
    segment.offset + (address - segment.address)
}

/// Compares the rule at each instruction that is described with readelf's row.
fn check(path: &str) -> Counts {
    let (frames, segments) = frames_of(path);
    let table = Table::build(&frames, &segments).unwrap();
    assert_eq!(table.refused, 0, "{path}");
    let described = Described::read(path);
    let mut counts = Counts::default();
    for (start, end, rows) in &described.functions {
        let outermost = described.outermost.get(start).copied().unwrap_or(u64::MAX);
        for address in (*start..*end).step_by(4) {
            let row = &rows.iter().rev().find(|row| row.0 <= address).unwrap().1;
            let rule = table.rule_at(offset_in_file(&segments, address)).unwrap();
            let expected = match expected(row) {
                _ if address >= outermost && row.ra == "u" => Rule::END,
                Some(rule) => rule,
                None => Rule::UNSUPPORTED,
            };
            assert_eq!(rule, expected, "{path}: {address:#x}, {row:?}");
            counts.instructions += 1;
            counts.unsupported += usize::from(rule == Rule::UNSUPPORTED);
            counts.outermost += usize::from(rule == Rule::END);
            counts.alone += usize::from(rule.lr != 0 && rule.fp == SavedFp::Same);
        }
    }
    counts
}

#[test]
fn tables_of_distributed_libraries_are_what_readelf_says() {
    for name in LIBRARIES {
        let counts = check(&format!("{LIBRARY_DIR}/{name}"));
        assert!(counts.instructions > 25_000, "{name}: {counts:?}");
        // What saves or restores all registers, a frame of more than 32 KiB, the lazy binding of symbols.
        assert!(counts.unsupported * 500 < counts.instructions, "{name}: {counts:?}");
        let has_begin = name != "libm.so.6";
        assert_eq!(counts.outermost > 0, has_begin, "{name}: {counts:?}");
    }
}

#[test]
fn tables_of_each_kind_of_frame_are_what_readelf_says() {
    const EH_FRAME: &str = "-fasynchronous-unwind-tables";
    const SIGNED: &str = "-mbranch-protection=standard";
    let dir = tempfile::tempdir().unwrap();
    for frame_pointer in ["-fno-omit-frame-pointer", "-fomit-frame-pointer"] {
        for options in [&[EH_FRAME][..], &[EH_FRAME, SIGNED], &["-fno-asynchronous-unwind-tables", "-g"]] {
            let options = [options, &[frame_pointer]].concat();
            let path = build(dir.path(), "program.c", PROGRAM, &options);
            let counts = check(path.to_str().unwrap());
            assert!(counts.instructions > 150, "{options:?}: {counts:?}");
            assert_eq!(counts.unsupported, 0, "{options:?}: {counts:?}");
            let is_alone = frame_pointer == "-fomit-frame-pointer";
            assert_eq!(counts.alone > 0, is_alone, "{options:?}: {counts:?}");
            let raw = run("readelf", &["--debug-dump=frames", path.to_str().unwrap()]);
            assert_eq!(raw.contains("negate_ra_state"), options.contains(&SIGNED), "{options:?}");
        }
    }
}

/// The address of each symbol: `     1: 0000000000010344     4 FUNC    GLOBAL DEFAULT    6 name`
fn addresses_of(path: &Path) -> BTreeMap<String, u64> {
    let listing = run("readelf", &["--syms", "--wide", path.to_str().unwrap()]);
    let fields = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let symbols = fields.filter(|fields| fields.len() == 8 && fields[3] == "FUNC");
    symbols.map(|fields| (fields[7].to_string(), hex(fields[1]))).collect()
}

/// Functions of four instructions; the second row, if there is one, holds from the second instruction on.
fn assembly(functions: &[(&str, &str)]) -> String {
    let mut source = String::from(".text\n");
    for (name, directives) in functions {
        source.push_str(&format!(
            ".globl {name}\n.type {name},%function\n{name}:\n.cfi_startproc\nnop\n{directives}\nnop\nnop\nret\n\
             .cfi_endproc\n.size {name}, .-{name}\n"
        ));
    }
    source
}

#[test]
fn what_a_rule_cannot_say_is_unsupported() {
    const UNSUPPORTED: [(&str, &str); 9] = [
        ("in_another_register", ".cfi_register x30, x19"),
        ("above_the_frame", ".cfi_offset x30, 8"),
        ("far_below", ".cfi_def_cfa_offset 70000\n.cfi_offset x29, -70000\n.cfi_offset x30, -69992"),
        ("fp_far_below", ".cfi_def_cfa_offset 70000\n.cfi_offset x29, -70000\n.cfi_offset x30, -8"),
        ("fp_in_another_register", ".cfi_register x29, x19"),
        ("by_expression", ".cfi_escape 0x0f, 3, 0x8f, 0, 0x23"), // cut short
        ("by_sum", ".cfi_escape 0x0f, 5, 0x8f, 16, 0x92, 46, 0"), // as frames of SVE begin
        ("ra_by_expression", ".cfi_escape 0x10, 30, 2, 0x8f, 8"),
        ("by_vector_register", ".cfi_def_cfa 64, 16"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = build(dir.path(), "rows.s", &assembly(&UNSUPPORTED), &[]);
    let (frames, segments) = frames_of(path.to_str().unwrap());
    let (table, addresses) = (Table::build(&frames, &segments).unwrap(), addresses_of(&path));
    let leaf = Rule { cfa: Cfa::Sp(0), ..Rule::NONE };
    for (name, _) in UNSUPPORTED {
        let rule = |skipped| table.rule_at(offset_in_file(&segments, addresses[name] + skipped));
        assert_eq!((rule(0), rule(3)), (Some(leaf), Some(leaf)), "{name}");
        assert_eq!((rule(4), rule(15)), (Some(Rule::UNSUPPORTED), Some(Rule::UNSUPPORTED)), "{name}");
    }
}

#[test]
fn marks_of_keys_and_damage_cost_no_other_function() {
    let functions = [
        ("other_key", ".cfi_b_key_frame\n.cfi_negate_ra_state\n.cfi_def_cfa_offset 16"),
        ("tagged", ".cfi_mte_tagged_frame\n.cfi_def_cfa_offset 48"),
        ("with_pc", ".cfi_def_cfa_offset 16\n.cfi_escape 0x2c"), // signed with the address of the code
        ("good", ".cfi_def_cfa_offset 32\n.cfi_offset x30, -8"),
        ("outermost", ".cfi_undefined x30"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for sections in [".eh_frame", ".debug_frame"] {
        let source = format!(".cfi_sections {sections}\n{}", assembly(&functions));
        let path = build(dir.path(), "rows.s", &source, &[]);
        let (frames, segments) = frames_of(path.to_str().unwrap());
        assert_eq!(frames.debug_frame.is_some(), sections == ".debug_frame");
        let (table, addresses) = (Table::build(&frames, &segments).unwrap(), addresses_of(&path));
        assert_eq!(table.refused, 1);
        let second = |name: &str| table.rule_at(offset_in_file(&segments, addresses[name] + 4)).unwrap();
        let sp = |offset| Rule { cfa: Cfa::Sp(offset), ..Rule::NONE };
        let is = ["other_key", "tagged", "with_pc", "good", "outermost"].map(second);
        assert_eq!(
            is,
            [sp(16), sp(48), Rule::UNSUPPORTED, Rule { lr: -8, ..sp(32) }, Rule::END],
            "{sections}"
        );
    }
}

#[test]
fn damaged_call_frames_of_arm64_do_no_harm() {
    build_damaged(&format!("{LIBRARY_DIR}/ld-linux-aarch64.so.1"), 5, |random| match random() % 8 {
        kind @ 0..4 => b"BG\0\xff"[kind as usize],
        _ => random() as u8,
    });
}

#[test]
fn stubs_leave_the_return_address_in_its_register() {
    let dir = tempfile::tempdir().unwrap();
    let path = build(dir.path(), "program.c", PROGRAM, &["-fasynchronous-unwind-tables"]);
    let (frames, segments) = frames_of(path.to_str().unwrap());
    let table = Table::build(&frames, &segments).unwrap();
    let sections = run("readelf", &["--sections", "--wide", path.to_str().unwrap()]);
    // `  [ 7] .plt              PROGBITS        0000000000010770 000770 0000b0 00  AX  0   0 16`
    let plt = sections.lines().find_map(|line| line.split_once(" .plt ")).unwrap().1;
    let fields: Vec<&str> = plt.split_whitespace().collect();
    let (offset, size) = (hex(fields[2]), hex(fields[3]));
    assert!(size >= 48);
    for skipped in 0..size {
        let expected = if skipped < 32 { Cfa::None } else { Cfa::Sp(0) };
        assert_eq!(table.rule_at(offset + skipped), Some(Rule { cfa: expected, ..Rule::NONE }), "{skipped}");
    }
}

/// As the kernel's is: no call frames, a nop before the code that a signal's handler returns to.
#[test]
fn the_vdso_tells_a_signals_frame() {
    let source = ".text\n.globl clock\n.type clock,%function\nclock: ret\n.size clock, .-clock\nnop\n\
                  .globl __kernel_rt_sigreturn\n.type __kernel_rt_sigreturn,%function\n\
                  __kernel_rt_sigreturn: mov x8, #139\nsvc #0\n\
                  .size __kernel_rt_sigreturn, .-__kernel_rt_sigreturn\nnop\n";
    let dir = tempfile::tempdir().unwrap();
    let path = build(dir.path(), "vdso.s", source, &[]);
    let (frames, segments) = symbols::call_frames_of_bytes(&fs::read(&path).unwrap()).unwrap();
    let table = Table::build(&frames, &segments).unwrap();
    let start = offset_in_file(&segments, addresses_of(&path)["__kernel_rt_sigreturn"]);
    let signal = Rule { cfa: Cfa::Signal(560), ..Rule::NONE };
    for (offset, expected) in [(start - 2, Rule::NONE), (start - 1, signal), (start + 7, signal)] {
        assert_eq!(table.rule_at(offset), Some(expected));
    }
    assert_eq!(table.rule_at(start + 8), Some(Rule::NONE));
}

const ADDRESS_BITS: u8 = 48;
/// A signature in bits 48 to 54, and a tag above it.
const SIGNATURE: u64 = 0xab55 << 48;

fn stack(bytes: &[u8]) -> StackMemory<'_> {
    StackMemory { start: 0x1000, bytes, machine: Machine::Arm64 { address_bits: ADDRESS_BITS } }
}

fn leaf(lr: u64) -> Frame {
    Frame { ip: 0x40_0000, sp: 0x1000, fp: 0x1020, is_return: false, bx_at: None, lr: Some(lr) }
}

fn caller(ip: u64, sp: u64, fp: u64) -> Result<Frame, Stop> {
    Ok(Frame { ip, sp, fp, is_return: true, bx_at: None, lr: None })
}

#[test]
fn each_rule_finds_the_caller_on_arm64() {
    let bytes = memory(&[0x1111, 0x2222, 0x3333, 0x4444, 0x1060, 0x6666, 0x7777, 0x8888]);
    let memory = stack(&bytes);
    let go = |rule| leaf(0x50_0000).caller(rule, &memory);
    let rule = |cfa, fp, lr| Rule { cfa, fp, lr, ..Rule::NONE };
    // Before the prologue, and in a leaf, everything is still in registers.
    assert_eq!(go(rule(Cfa::Sp(0), SavedFp::Same, 0)), caller(0x50_0000, 0x1000, 0x1020));
    assert_eq!(go(rule(Cfa::Sp(16), SavedFp::Same, 0)), caller(0x50_0000, 0x1010, 0x1020));
    // A pair at the frame's begin, as gcc has it, and at its end.
    assert_eq!(go(rule(Cfa::Sp(48), SavedFp::AtCfa(-48), -40)), caller(0x2222, 0x1030, 0x1111));
    assert_eq!(go(rule(Cfa::Fp(16), SavedFp::AtCfa(-16), -8)), caller(0x6666, 0x1030, 0x1060));
    // The return address alone, and beside another register.
    assert_eq!(go(rule(Cfa::Sp(16), SavedFp::Same, -16)), caller(0x1111, 0x1010, 0x1020));
    assert_eq!(go(rule(Cfa::Sp(32), SavedFp::AtCfa(-32), -8)), caller(0x4444, 0x1020, 0x1111));
    // Code that has no table.
    assert_eq!(leaf(0).caller_by_frame_pointer(&memory), caller(0x6666, 0x1030, 0x1060));
}

#[test]
fn signatures_are_stripped_from_return_addresses() {
    let bytes = memory(&[0x1020, SIGNATURE | 0x7fff_1234_5678]);
    let memory = stack(&bytes);
    let saved = Rule { cfa: Cfa::Sp(16), fp: SavedFp::AtCfa(-16), lr: -8, ..Rule::NONE };
    assert_eq!(leaf(0).caller(saved, &memory), caller(0x7fff_1234_5678, 0x1010, 0x1020));
    // Between the signing and the prologue.
    let own = Rule { cfa: Cfa::Sp(0), ..Rule::NONE };
    let signed = leaf(SIGNATURE | 0xffff_8765_4321);
    assert_eq!(signed.caller(own, &memory), caller(0xffff_8765_4321, 0x1000, 0x1020));
    // How many bits an address has depends on the kernel's configuration.
    for (bits, expected) in [(39, 0x0012_3456_7890), (52, 0x5_0012_3456_7890), (0, 0xab55_0012_3456_7890)] {
        let memory = StackMemory { machine: Machine::Arm64 { address_bits: bits }, ..memory };
        assert_eq!(leaf(0xab55_0012_3456_7890).caller(own, &memory), caller(expected, 0x1000, 0x1020));
    }
    let strange = StackMemory { machine: Machine::Arm64 { address_bits: 255 }, ..memory };
    assert_eq!(leaf(0x1234).caller(own, &strange), caller(0x1234, 0x1000, 0x1020));
}

#[test]
fn a_walk_over_arm64_frames_ends_where_it_must() {
    let bytes = memory(&[0, SIGNATURE]);
    let memory = stack(&bytes);
    let own = Rule { cfa: Cfa::Sp(0), ..Rule::NONE };
    let pair = Rule { cfa: Cfa::Sp(16), fp: SavedFp::AtCfa(-16), lr: -8, ..Rule::NONE };
    assert_eq!(leaf(0).caller(own, &memory), Err(Stop::Entry)); // a program's first instruction
    assert_eq!(leaf(0).caller(pair, &memory), Err(Stop::Entry));
    assert_eq!(leaf(0).caller(Rule::END, &memory), Err(Stop::Entry));
    let above = leaf(0x50_0000).caller(own, &memory).unwrap();
    assert_eq!(above.caller(own, &memory), Err(Stop::BadFrame)); // would go on for ever
    let bigger = Rule { cfa: Cfa::Sp(16), ..Rule::NONE };
    assert_eq!(above.caller(bigger, &memory), Err(Stop::UnsupportedRule)); // lr is overwritten
    let lower = Rule { cfa: Cfa::Sp(-16), ..Rule::NONE };
    assert_eq!(leaf(0x50_0000).caller(lower, &memory), Err(Stop::BadFrame));
    let beyond = Rule { cfa: Cfa::Sp(4096), lr: -8, ..Rule::NONE };
    assert_eq!(leaf(0).caller(beyond, &memory), Err(Stop::Unreadable));
}

/// `struct rt_sigframe {siginfo, ucontext}`: sigcontext's regs[31], sp and pc lie 312 bytes above sp.
#[test]
fn a_signals_frame_gives_back_all_registers() {
    const REGS: usize = 312 / 8;
    let mut words = [0; 80];
    words[REGS + 29] = 0x1300;
    words[REGS + 30] = SIGNATURE | 0x50_0000;
    words[REGS + 31] = 0x1290;
    words[REGS + 32] = 0x60_0000;
    let bytes = memory(&words);
    let handler = Frame { is_return: true, lr: None, ..leaf(0) };
    let interrupted = handler.caller(Rule { cfa: Cfa::Signal(560), ..Rule::NONE }, &stack(&bytes)).unwrap();
    let lr = Some(SIGNATURE | 0x50_0000);
    assert_eq!(
        interrupted,
        Frame { ip: 0x60_0000, sp: 0x1290, fp: 0x1300, is_return: false, bx_at: None, lr }
    );
    // The interrupted code may be a leaf.
    let own = Rule { cfa: Cfa::Sp(0), ..Rule::NONE };
    assert_eq!(interrupted.caller(own, &stack(&bytes)), caller(0x50_0000, 0x1290, 0x1300));
}

#[test]
fn the_wire_form_tells_where_the_return_address_is() {
    let rule = Rule { cfa: Cfa::Sp(48), fp: SavedFp::AtCfa(-48), bx: 0, lr: -40 };
    let bytes: Vec<u8> = rule.to_wire().iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes, [48, 0, 0, 0, 0xd0, 0xff, 3, 1, 0, 0, 0xd8, 0xff, 0, 0, 0, 0]);
}
