//! Tests of kernel symbols: written tables and the running kernel's.

use std::time::{Duration, Instant};

use super::*;
use crate::symbols::tests::Random;

const NOW: u64 = 1_000;

const TABLE: &str = "\
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T __pi__text
ffffffff81000100 T __sched_text_start
ffffffff81000100 t __schedule
ffffffff81000200 T __memcpy
ffffffff81000200 W memcpy_alias
ffffffff81000200 T memcpy
ffffffff81000200 T __pi_memcpy
ffffffff81000300 t $x
ffffffff81000300 t last_function
ffffffff81000400 D _etext_data
ffffffff81000400 T _etext
ffffffff81200000 t init_function
ffffffff81200010 T _einittext
ffffffff81200020 t exit_function
ffffffff81200030 d data
0000000000000000 A fixed_percpu_data
ffffffffc0a01000 t first_in_module\t[one]
ffffffffc0a01800 T second_in_module\t[one]
ffffffffc0a02010 d its_data\t[one]
ffffffffc0a05000 t other_module\t[two]
ffffffffc0b00000 t lonely\t[three]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_ingress\t[bpf]
ffffffffc0100040 t bpf_trampoline_6442\t[bpf]
";

fn kallsyms() -> Kallsyms {
    Kallsyms::parse(TABLE.as_bytes())
}

fn name_at(kallsyms: &Kallsyms, address: u64, at_ns: u64) -> String {
    match kallsyms.lookup(address, at_ns) {
        Some(symbol) => match symbol.module {
            Some(module) => format!("{} [{module}]", symbol.name),
            None => symbol.name.into_owned(),
        },
        None => "-".to_owned(),
    }
}

#[test]
fn each_address_has_its_own_name_or_none() {
    let kallsyms = kallsyms();
    let cases = [
        (0, "-"),
        (0xffff_ffff_80ff_ffff, "-"),
        (0xffff_ffff_8100_0000, "srso_alias_untrain_ret"),
        (0xffff_ffff_8100_00ff, "srso_alias_untrain_ret"),
        // A marker of the linker script is no function, however long its name.
        (0xffff_ffff_8100_0100, "__schedule"),
        (0xffff_ffff_8100_0210, "memcpy"),
        (0xffff_ffff_8100_03ff, "last_function"),
        (0xffff_ffff_8100_0400, "-"),
        (0xffff_ffff_8110_0000, "-"),
        (0xffff_ffff_8120_0000, "init_function"),
        (0xffff_ffff_8120_0010, "-"),
        (0xffff_ffff_8120_0020, "exit_function"),
        (0xffff_ffff_8120_0030, "-"),
        (0xffff_ffff_c0a0_17ff, "first_in_module [one]"),
        (0xffff_ffff_c0a0_1800, "second_in_module [one]"),
        (0xffff_ffff_c0a0_200f, "second_in_module [one]"),
        (0xffff_ffff_c0a0_2010, "-"),
        (0xffff_ffff_c0a0_5fff, "other_module [two]"),
        (0xffff_ffff_c0a0_6000, "-"),
        (0xffff_ffff_c0b0_0fff, "lonely [three]"),
        (0xffff_ffff_c0b0_1000, "-"),
        (u64::MAX, "-"),
    ];
    for (address, name) in cases {
        assert_eq!(name_at(&kallsyms, address, NOW), name, "{address:x}");
    }
    let memcpy = kallsyms.lookup(0xffff_ffff_8100_0280, NOW).unwrap();
    assert_eq!((memcpy.start, memcpy.size), (0xffff_ffff_8100_0200, 0x100));
    assert_eq!(kallsyms.text_start(), 0xffff_ffff_8100_0000);
    assert!(!kallsyms.restricted());
}

#[test]
fn the_text_start_without_text_is_stext() {
    let table = b"ffffffc008010000 T _stext\nffffffc008010800 T f\n";
    assert_eq!(Kallsyms::parse(table).text_start(), 0xffff_ffc0_0801_0000);
    let both = b"ffffffc008000000 t _text\nffffffc008010000 T _stext\n";
    assert_eq!(Kallsyms::parse(both).text_start(), 0xffff_ffc0_0800_0000);
    assert_eq!(Kallsyms::parse(b"").text_start(), 0);
}

#[test]
fn hidden_addresses_are_noticed() {
    let table = b"0000000000000000 T _text\n0000000000000000 t f\t[m]\n";
    let kallsyms = Kallsyms::parse(table);
    assert!(kallsyms.restricted());
    assert_eq!(kallsyms.lookup(0, NOW), None);
    assert!(!Kallsyms::parse(b"").restricted());
}

#[test]
fn bpf_programs_come_and_go() {
    const AREA: u64 = 0xffff_ffff_c010_0000;
    let mut kallsyms = kallsyms();
    let ingress = "bpf_prog_6deef7357e7b4530_ingress [bpf]";
    assert_eq!(name_at(&kallsyms, AREA + 0x3f, NOW), ingress);
    let trampoline = "bpf_trampoline_6442 [bpf]";
    assert_eq!(name_at(&kallsyms, AREA + 0xfff, NOW), trampoline);
    assert_eq!(name_at(&kallsyms, AREA + 0x1000, NOW), "-");
    // The size of a program that was there before becomes known.
    let bpf = GeneratedCode::Bpf;
    kallsyms.insert(0, bpf, AREA + 0x40, 0x60, b"bpf_trampoline_6442");
    assert_eq!(name_at(&kallsyms, AREA + 0x9f, 1), trampoline);
    assert_eq!(name_at(&kallsyms, AREA + 0xa0, 1), "-");
    // It goes, and its memory is used again, by one program and then by another.
    kallsyms.remove(NOW + 10, AREA + 0x40);
    kallsyms.insert(NOW + 20, bpf, AREA + 0x40, 0x20, b"bpf_prog_b");
    kallsyms.insert(NOW + 30, bpf, AREA + 0x40, 0x40, b"bpf_prog_c");
    kallsyms.insert(NOW + 5, bpf, AREA + 0x200, 0x40, b"bpf_prog_d");
    let at = |address, ns| name_at(&kallsyms, AREA + address, NOW + ns);
    assert_eq!(at(0x50, 9), trampoline);
    assert_eq!(at(0x50, 10), "-");
    assert_eq!(at(0x50, 20), "bpf_prog_b [bpf]");
    assert_eq!(at(0x60, 29), "-");
    assert_eq!(at(0x60, 30), "bpf_prog_c [bpf]");
    assert_eq!(at(0x60, u64::MAX - NOW - 1), "bpf_prog_c [bpf]");
    assert_eq!(at(0x200, 4), "-");
    assert_eq!(at(0x23f, 5), "bpf_prog_d [bpf]");
    assert_eq!(at(0x3f, 5), ingress);
}

/// /proc/kallsyms, read after a recording, lists programs that came while it ran.
#[test]
fn a_program_does_not_exist_before_it_was_registered() {
    const AREA: u64 = 0xffff_ffff_c010_0000;
    let mut kallsyms = kallsyms();
    let bpf = GeneratedCode::Bpf;
    kallsyms.insert(0, bpf, AREA + 0x20, 0x80, b"bpf_prog_before");
    kallsyms.remove(NOW, AREA + 0x20);
    kallsyms.insert(NOW + 5, bpf, AREA + 0x40, 0x40, b"bpf_trampoline_6442");
    let at = |ns| name_at(&kallsyms, AREA + 0x50, ns);
    assert_eq!(at(NOW - 1), "bpf_prog_before [bpf]");
    assert_ne!(at(NOW + 4), "bpf_trampoline_6442 [bpf]");
    assert_eq!(at(NOW + 5), "bpf_trampoline_6442 [bpf]");
}

#[test]
fn records_out_of_order_give_the_same_names() {
    let mut kallsyms = Kallsyms::default();
    let bpf = GeneratedCode::Bpf;
    kallsyms.insert(30, bpf, 0x1000, 0x40, b"later");
    kallsyms.insert(10, bpf, 0x1000, 0x40, b"earlier");
    kallsyms.insert(50, GeneratedCode::OutOfLine, 0x2000, u64::MAX, b"endless");
    assert_eq!(name_at(&kallsyms, 0x1000, 9), "-");
    assert_eq!(name_at(&kallsyms, 0x1000, 10), "earlier [bpf]");
    assert_eq!(name_at(&kallsyms, 0x1000, 29), "earlier [bpf]");
    assert_eq!(name_at(&kallsyms, 0x103f, 30), "later [bpf]");
    assert_eq!(name_at(&kallsyms, u64::MAX - 1, 50), "endless");
    kallsyms.remove(60, 0x9999);
}

#[test]
fn lines_that_make_no_sense_are_passed_over() {
    let table = b"\n \nzzz T f\nffffffff81000000\nffffffff81000000 T\nffffffff81000000 T \n\
        ffffffff810000001 T too_long\nffffffff81000010 T bad\xff\xfename\n\
        ffffffff81000020 TT g\nffffffff81000020 T h\t[broken\nffffffff81000030 T cut";
    let kallsyms = Kallsyms::parse(table);
    let name = |address| name_at(&kallsyms, address, NOW);
    assert_eq!(name(0xffff_ffff_8100_0000), "-");
    assert_eq!(name(0xffff_ffff_8100_0010), "bad\\xff\\xfename");
    assert_eq!(name(0xffff_ffff_8100_0020), "h");
    assert_eq!(name(0xffff_ffff_8100_0030), "cut");
}

#[test]
fn damaged_tables_never_panic() {
    let mut random = Random::new(21);
    let deadline = Instant::now() + Duration::from_millis(300);
    while Instant::now() < deadline {
        let mut table = TABLE.as_bytes().to_vec();
        random.mutate(&mut table, b"0123456789abcdef \t\n[]TtWD\xff");
        let mut kallsyms = Kallsyms::parse(&table);
        for _ in 0..8 {
            let (at, address) = (random.below(40), random.odd_number());
            kallsyms.insert(at, GeneratedCode::Bpf, address, random.odd_number(), b"x");
            kallsyms.remove(random.below(40), address);
            if let Some(symbol) = kallsyms.lookup(address, at) {
                let end = symbol.start.saturating_add(symbol.size);
                assert!(symbol.start <= address && address < end);
            }
        }
    }
}

/// The running kernel's table: every symbol's first byte has a name of that address.
#[test]
fn the_running_kernel() {
    let kallsyms = Kallsyms::read().unwrap();
    if kallsyms.restricted() {
        // An ordinary user sees no addresses: there is nothing more to compare.
        assert_eq!(kallsyms.lookup(kallsyms.text_start(), NOW), None);
        return;
    }
    let table = fs::read_to_string("/proc/kallsyms").unwrap();
    let mut names = BTreeMap::<u64, Vec<&str>>::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if matches!(fields[1], "t" | "T" | "w" | "W") {
            let address = u64::from_str_radix(fields[0], 16).unwrap();
            names.entry(address).or_default().push(fields[2]);
        }
    }
    assert!(names.len() > 10_000);
    let mut named = 0;
    for (&address, names) in &names {
        let Some(symbol) = kallsyms.lookup(address, NOW) else {
            assert!(names.iter().all(|name| is_end_marker(name.as_bytes())), "{names:?}");
            continue;
        };
        // Programs of BPF may have come or gone between the two reads.
        if symbol.module != Some(BPF) {
            assert_eq!(symbol.start, address);
            assert!(names.contains(&&*symbol.name), "{symbol:?} {names:?}");
            named += 1;
        }
    }
    assert!(named > 10_000);
    assert!(names.contains_key(&kallsyms.text_start()));
}
