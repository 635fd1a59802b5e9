//! Real files beside what binutils say about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::at_offset;
use crate::symbols::demangle;
use crate::symbols::elf::{ElfSymbols, SymbolSource, build_id};
use crate::symbols::tests::run;

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// What readelf and objdump say about a file.
struct Truth {
    /// Functions with a size: (address, size) to names.
    sized: BTreeMap<(u64, u64), BTreeSet<String>>,
    /// Addresses of functions and labels without a size.
    unsized_starts: BTreeSet<u64>,
    /// Stubs that objdump names after a symbol.
    stubs: BTreeMap<u64, String>,
    /// Sections that hold stubs: start, end.
    stub_areas: Vec<(u64, u64)>,
    /// Executable segments: offset, address, size.
    code: Vec<(u64, u64, u64)>,
    source: SymbolSource,
}

impl Truth {
    fn read(path: &str) -> Self {
        let mut truth = Truth {
            sized: BTreeMap::new(),
            unsized_starts: BTreeSet::new(),
            stubs: BTreeMap::new(),
            stub_areas: Vec::new(),
            code: Vec::new(),
            source: SymbolSource::None(""),
        };
        truth.read_segments(path);
        truth.read_symbols(path, "--syms");
        truth.source = SymbolSource::Symtab;
        if truth.sized.is_empty() {
            truth.read_symbols(path, "--dyn-syms");
            truth.source = SymbolSource::Dynsym;
            truth.unsized_starts.clear();
        }
        truth.read_stubs(path);
        truth
    }

    /// `  LOAD           0x001000 0x0000000000401000 0x0000000000401000 0x0001bd 0x0001bd R E 0x1000`
    fn read_segments(&mut self, path: &str) {
        for line in run("readelf", &["--segments", "--wide", path]).lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let ["LOAD", offset, address, _, size, _, flags @ .., _] = &fields[..]
                && flags.concat().contains('E')
            {
                self.code.push((hex(offset), hex(address), hex(size)));
            }
        }
    }

    /// `    26: 0000000000401126    22 FUNC    GLOBAL DEFAULT   14 main`
    fn read_symbols(&mut self, path: &str, table: &str) {
        let listing = run("readelf", &[table, "--wide", path]);
        let mut in_table = false;
        for line in listing.lines() {
            if line.starts_with("Symbol table") {
                in_table = line.contains(".symtab") || table == "--dyn-syms";
            }
            // strip loses the OS/ABI mark by which readelf knows the type.
            let line = line.replace("<OS specific>: 10", "IFUNC");
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, address, size, kind, _, _, section, name, ..] = fields[..] else {
                continue;
            };
            if !in_table || section == "UND" || !matches!(kind, "FUNC" | "IFUNC" | "NOTYPE") {
                continue;
            }
            // Large sizes are hexadecimal.
            let size = match size.strip_prefix("0x") {
                Some(digits) => hex(digits),
                None => size.parse().unwrap_or(0),
            };
            let address = hex(address);
            if size == 0 {
                self.unsized_starts.insert(address);
            } else if self.offset(address).is_some() && (kind != "NOTYPE" || section != "ABS") {
                let name = match table {
                    "--dyn-syms" => name.split('@').next().unwrap(),
                    _ => name,
                };
                let names = self.sized.entry((address, size)).or_default();
                names.insert(name.to_owned());
            }
        }
    }

    /// `0000000000001040 <puts@plt>:`, below `Disassembly of section .plt:`
    fn read_stubs(&mut self, path: &str) {
        for line in run("readelf", &["--sections", "--wide", path]).lines() {
            let Some((_, rest)) = line.split_once("] ") else {
                continue;
            };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            if let [".plt" | ".plt.sec" | ".plt.got", _, address, _, size, ..] = fields[..] {
                self.stub_areas.push((hex(address), hex(address) + hex(size)));
            }
        }
        let listing = ["-d", "-j.plt", "-j.plt.sec", "-j.plt.got", path];
        if self.stub_areas.is_empty() {
            return;
        }
        for line in run("objdump", &listing).lines() {
            let Some((address, name)) = line.split_once(" <") else {
                continue;
            };
            let Some(name) = name.strip_suffix("@plt>:") else {
                continue;
            };
            if !name.contains('*') {
                let name = name.split('@').next().unwrap();
                self.stubs.insert(hex(address), format!("{name}@plt"));
            }
        }
    }

    fn offset(&self, address: u64) -> Option<u64> {
        let inside = |(_, start, size): &&(u64, u64, u64)| address.wrapping_sub(*start) < *size;
        let (offset, start, _) = self.code.iter().find(inside)?;
        Some(address - start + offset)
    }

    fn is_in_stubs(&self, address: u64) -> bool {
        let mut areas = self.stub_areas.iter();
        areas.any(|&(start, end)| start <= address && address < end)
    }
}

/// Every function's first, middle and last byte has one of the names that cover that byte.
fn check_functions(symbols: &ElfSymbols, truth: &Truth) {
    for (&(start, size), names) in &truth.sized {
        for address in [start, start + size / 2, start + size - 1] {
            let offset = truth.offset(address).unwrap();
            let found = at_offset(symbols, offset);
            let found = found.unwrap_or_else(|| panic!("{names:?} has no name at {address:#x}"));
            let key = (found.start, found.size);
            let known = truth.sized.get(&key).is_some_and(|n| n.contains(&*found.name));
            let covers = found.start <= address && address < found.start + found.size;
            assert!(known && covers, "{address:#x} of {names:?}: {found:?}");
        }
    }
}

/// Bytes that no function covers have no name, or that of a label or stub that reaches there.
fn check_holes(symbols: &ElfSymbols, truth: &Truth) -> u64 {
    let mut holes = 0;
    for &(offset, address, size) in &truth.code {
        let mut covered_to = 0;
        let mut sized = truth.sized.range((address, 0)..).peekable();
        for at in address..address + size {
            while let Some(&(&(start, size), _)) = sized.peek()
                && start <= at
            {
                covered_to = covered_to.max(start + size);
                sized.next();
            }
            if at < covered_to || truth.is_in_stubs(at) {
                continue;
            }
            holes += 1;
            let Some(found) = at_offset(symbols, at - address + offset) else {
                continue;
            };
            let start = found.start;
            let is_init = matches!(&*found.name, "_init" | "_fini");
            let is_label = truth.unsized_starts.contains(&start) || is_init;
            assert!(is_label && start >= covered_to, "{at:#x}: {found:?}");
        }
    }
    holes
}

fn check_stubs(symbols: &ElfSymbols, truth: &Truth) {
    for (&address, name) in &truth.stubs {
        let offset = truth.offset(address).unwrap();
        let found = at_offset(symbols, offset);
        let found = found.unwrap_or_else(|| panic!("{name} has no name"));
        assert_eq!((&*found.name, found.start), (name.as_str(), address));
        assert!(at_offset(symbols, offset + found.size - 1) == Some(found));
    }
}

fn check(path: &str) -> Truth {
    let truth = Truth::read(path);
    let file = File::open(path).unwrap();
    let symbols = ElfSymbols::load(&file).unwrap();
    assert_eq!(symbols.source(), truth.source, "{path}");
    assert!(!truth.sized.is_empty(), "{path} has no functions");
    check_functions(&symbols, &truth);
    check_holes(&symbols, &truth);
    check_stubs(&symbols, &truth);
    let notes = run("readelf", &["--notes", path]);
    let id = notes.lines().find_map(|line| line.split_once("Build ID: "));
    let id = id.map(|(_, id)| id.to_owned());
    assert_eq!(symbols.build_id().map(crate::symbols::hex), id, "{path}");
    assert_eq!(build_id(&file).as_deref(), symbols.build_id());
    truth
}

fn first_of(paths: &[&str]) -> String {
    let found = paths.iter().find(|path| Path::new(path).exists());
    let found = found.unwrap_or_else(|| panic!("none of {paths:?} exists"));
    fs::canonicalize(found).unwrap().to_string_lossy().into_owned()
}

/// A library that this test process itself has mapped.
fn mapped(name: &str) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.contains(name).then(|| path.to_owned())
    });
    path.unwrap_or_else(|| panic!("{name} is not mapped"))
}

#[test]
fn a_shell() {
    assert!(check(&first_of(&["/bin/bash", "/bin/sh"])).stubs.len() > 20);
}

#[test]
fn the_c_library() {
    let truth = check(&mapped("/libc.so"));
    assert!(truth.sized.len() > 1000);
}

#[test]
fn python() {
    check(&first_of(&["/usr/bin/python3", "/usr/local/bin/python3", "/bin/ls"]));
}

#[test]
fn the_cpp_library() {
    let path = run("cc", &["-print-file-name=libstdc++.so.6"]);
    let truth = check(&first_of(&[path.trim()]));
    let demangled = truth
        .sized
        .values()
        .flatten()
        .filter(|name| name.starts_with("_Z") && demangle(name) != name.as_str())
        .count();
    assert!(demangled > 1000, "{demangled}");
}

#[test]
fn this_very_program() {
    let path = std::env::current_exe().unwrap();
    assert_eq!(check(path.to_str().unwrap()).source, SymbolSource::Symtab, "tests are not stripped");
}

const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static __attribute__((noinline)) int hidden(int n) { return n * 3 + rand(); }
int strong(int n) { return hidden(n) + 1; }
int alias(int n) __attribute__((weak, alias("strong")));
__attribute__((cold, noinline)) void unlikely(void) { puts("cold"); }
static int fast(void) { return 1; }
static void *choose(void) { return fast; }
int chosen(void) __attribute__((ifunc("choose")));
__asm__(".text\n.globl raw_entry\nraw_entry:\n nop\n nop\nraw_label:\n nop\n ret\n"
        ".balign 64\n.type asm_function,@function\nasm_function:\n nop\n ret\n"
        ".size asm_function, .-asm_function\n.balign 64\n");
int main(int argc, char **argv) {
    if (argc > 100) unlikely();
    printf("%d %zu\n", strong(argc) + chosen(), strlen(argv[0]));
    return atexit(unlikely) + (free == 0);
}
"#;

/// Compiles [`PROGRAM`] in `dir`.
pub fn compile(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let source = dir.join("program.c");
    fs::write(&source, PROGRAM).unwrap();
    let output = dir.join(name);
    let mut arguments = vec!["-x", "c", source.to_str().unwrap()];
    arguments.extend(["-o", output.to_str().unwrap()]);
    arguments.extend(options);
    run("cc", &arguments);
    output
}

#[test]
fn programs_of_every_linking_style() {
    let dir = tempfile::tempdir().unwrap();
    let styles: [&[&str]; 6] = [
        &["-O0"],
        &["-O2", "-ffunction-sections", "-Wl,-z,now"],
        &["-O2", "-no-pie", "-Wl,-z,lazy", "-Wl,--build-id=sha1"],
        &["-O2", "-Wl,-z,lazy", "-Wl,--build-id=none", "-rdynamic"],
        &["-O2", "-s", "-rdynamic", "-Wl,--build-id=0x0123456789abcdef"],
        &["-O2", "-static"],
    ];
    for (index, options) in styles.iter().enumerate() {
        let path = compile(dir.path(), &format!("style{index}"), options);
        let truth = check(path.to_str().unwrap());
        if index < 4 {
            assert_program_symbols(&path, &truth);
        }
    }
    if cfg!(target_arch = "x86_64") {
        for order in ["lazy", "now"] {
            let order = format!("-Wl,-z,{order}");
            let options = ["-O2", "-fcf-protection=full", "-Wl,-z,ibtplt", &order];
            let path = compile(dir.path(), "ibt", &options);
            assert!(!check(path.to_str().unwrap()).stubs.is_empty());
        }
    }
}

fn assert_program_symbols(path: &Path, truth: &Truth) {
    let symbols = ElfSymbols::load(&File::open(path).unwrap()).unwrap();
    let listing = run("nm", &[path.to_str().unwrap()]);
    let address = |name: &str| {
        let line = listing.lines().find(|line| line.ends_with(name));
        hex(line.unwrap().split(' ').next().unwrap())
    };
    let name = |address| {
        let offset = truth.offset(address).unwrap();
        at_offset(&symbols, offset).map(|s| s.name.into_owned())
    };
    let expect = |name: &str| Some(name.to_owned());
    assert_eq!(name(address(" hidden")), expect("hidden"));
    assert_eq!(name(address(" strong")), expect("strong"));
    assert_eq!(name(address(" chosen")), expect("chosen"));
    assert_eq!(name(address(" raw_entry") + 1), expect("raw_entry"));
    assert_eq!(name(address(" raw_label") + 1), expect("raw_label"));
    assert_eq!(name(address(" asm_function")), expect("asm_function"));
    // Only padding follows it.
    assert_eq!(name(address(" asm_function") + 32), None);
}

#[test]
fn the_vdso_image_of_this_process() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let (range, _) = line.expect("a vDSO").split_once(' ').unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let mut image = vec![0; (hex(end) - hex(start)) as usize];
    let mut memory = File::open("/proc/self/mem").unwrap();
    memory.seek(SeekFrom::Start(hex(start))).unwrap();
    memory.read_exact(&mut image).unwrap();
    let symbols = ElfSymbols::from_bytes(&image).unwrap();
    assert_eq!(symbols.source(), SymbolSource::Dynsym);
    assert!(symbols.build_id().is_some());
    let named = (0..image.len() as u64).filter_map(|offset| at_offset(&symbols, offset));
    let names: BTreeSet<String> = named.map(|symbol| symbol.name.into_owned()).collect();
    assert!(
        names.iter().any(|name| name.starts_with("__vdso_") || name.starts_with("__kernel_")),
        "{names:?}"
    );
}
