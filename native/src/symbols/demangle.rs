//! Readable names of C++ and Rust functions.

use std::borrow::Cow;
use std::fmt::{self, Write};

use cpp_demangle::{BorrowedSymbol, DemangleOptions, ParseOptions};

/// Longer names stay as they are: real ones end far below, and time grows with length.
const MAX_MANGLED_BYTES: usize = 32 << 10;
/// A short mangled name can stand for an endless readable one.
const MAX_READABLE_BYTES: usize = 64 << 10;
/// Enough for all but 4 of 46 000 names in libLLVM and libstdc++.  The parser backtracks, so that its
/// time grows exponentially with the depth allowed: at 96 some names of 350 bytes took 0.7 s.
const RECURSION_LIMIT: u32 = 64;

/// Turns a C++ (Itanium ABI) or Rust (v0, or legacy without its hash) name into what stands in
/// the source; other names stay unchanged.
///
/// What compilers append follows as in c++filt, `foo(int) [clone .cold]`; `@plt` stays; a
/// symbol version (`@@GLIBC_2.2.5`) goes.
pub fn demangle(raw: &str) -> Cow<'_, str> {
    if raw.len() > MAX_MANGLED_BYTES {
        return Cow::Borrowed(raw);
    }
    let (base, stub) = split_at_sign(raw);
    match demangle_base(base) {
        Some(mut readable) => {
            readable.push_str(stub);
            Cow::Owned(readable)
        }
        None if stub.is_empty() => Cow::Borrowed(base),
        None => Cow::Borrowed(raw),
    }
}

/// Splits off `@plt`, and drops a version: `memcpy@@GLIBC_2.14`.
fn split_at_sign(raw: &str) -> (&str, &str) {
    if let Some(base) = raw.strip_suffix("@plt") {
        return (base, "@plt");
    }
    match raw.split_once('@') {
        Some((base, version)) if is_linker_word(base) && is_linker_word(version.trim_start_matches('@')) => {
            (base, "")
        }
        _ => (raw, ""),
    }
}

/// Other names with the sign, as JIT compilers and Objective-C make, have no version.
fn is_linker_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$-+".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

fn demangle_base(name: &str) -> Option<String> {
    if name.starts_with("_R") {
        // A dot begins what LLVM appended: the v0 mangling itself has none.
        let end = name.find('.').unwrap_or(name.len());
        return demangle_rust(name, end);
    }
    if !name.starts_with("_Z") {
        return None;
    }
    match end_of_rust_hash(name) {
        Some(end) => demangle_rust(name, end),
        None => demangle_cpp(name),
    }
}

/// Legacy Rust names are C++ names whose last part is a hash: `_ZN..17h0123456789abcdefE`, then
/// what LLVM appended.
fn end_of_rust_hash(name: &str) -> Option<usize> {
    const HASH_BYTES: usize = "17h0123456789abcdefE".len();
    name.match_indices("17h").find_map(|(at, _)| {
        let end = at + HASH_BYTES;
        let hash = name.as_bytes().get(at + 3..end)?;
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_end = matches!(name.as_bytes().get(end), None | Some(b'.'));
        let (last, digits) = hash.split_last()?;
        (*last == b'E' && is_end && digits.iter().all(is_hex)).then_some(end)
    })
}

fn demangle_rust(name: &str, end: usize) -> Option<String> {
    let (base, suffix) = name.split_at(end);
    let demangled = rustc_demangle::try_demangle(base).ok()?;
    let mut readable = render(|out| write!(out, "{demangled:#}"))?;
    append_clones(&mut readable, suffix);
    Some(readable)
}

/// `.cold.1` becomes ` [clone .cold.1]`, `.isra.0.part.2` two such.
fn append_clones(readable: &mut String, suffix: &str) {
    let mut open = false;
    for part in suffix.split('.').skip(1) {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if open && !is_number {
            readable.push(']');
        }
        if !open || !is_number {
            readable.push_str(" [clone ");
            open = true;
        }
        readable.push('.');
        readable.push_str(part);
    }
    if open {
        readable.push(']');
    }
}

fn demangle_cpp(name: &str) -> Option<String> {
    if let Some((kind, target)) = split_thunk(name) {
        return Some(kind.to_owned() + &demangle_encoding(&format!("_Z{target}"))?);
    }
    demangle_encoding(name)
}

fn demangle_encoding(name: &str) -> Option<String> {
    let options = ParseOptions::default().recursion_limit(RECURSION_LIMIT);
    let symbol = BorrowedSymbol::new_with_options(name.as_bytes(), &options).ok()?;
    let options = DemangleOptions::default().recursion_limit(RECURSION_LIMIT);
    render(|out| symbol.structured_demangle(out, &options)).map(|readable| tidy(&readable))
}

/// `_ZThn16_N3foo3barEv`: what kind of adjusting entry it is, and the encoding of its target.
fn split_thunk(name: &str) -> Option<(&'static str, &str)> {
    let rest = name.strip_prefix("_ZT")?;
    match rest.as_bytes().first()? {
        b'h' => Some(("non-virtual thunk to ", skip_call_offset(rest)?)),
        b'v' => Some(("virtual thunk to ", skip_call_offset(rest)?)),
        b'c' => {
            let target = skip_call_offset(skip_call_offset(&rest[1..])?)?;
            Some(("covariant return thunk to ", target))
        }
        _ => None,
    }
}

/// `hn16_` or `v0_n24_`.
fn skip_call_offset(text: &str) -> Option<&str> {
    if let Some(number) = text.strip_prefix('h') {
        return skip_number(number);
    }
    skip_number(skip_number(text.strip_prefix('v')?)?)
}

/// `n16_`: a negative number.
fn skip_number(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('n').unwrap_or(text);
    digits.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('_')
}

/// Writes empty argument packs and integer literals as c++filt does: `<int, >` is `<int>`,
/// `(unsigned long)8` is `8ul`.
fn tidy(readable: &str) -> String {
    let mut out = String::with_capacity(readable.len());
    let mut rest = readable;
    while let Some(at) = rest.find([',', '(']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((literal, after)) = split_literal(rest) {
            out.push_str(&literal);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(", ") {
            rest = after;
            push_separator(&mut out, rest);
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// Writes the comma between two arguments unless one of them is an empty pack.
fn push_separator(out: &mut String, next: &str) {
    let after_empty = out.ends_with(['<', '(']) && !out.ends_with("operator<");
    if after_empty || next.starts_with([',', ')']) {
        return;
    }
    match next.starts_with('>') {
        true if out.ends_with('>') => out.push(' '),
        true => {}
        false => out.push_str(", "),
    }
}

/// `(unsigned long)8, ..`: the literal `8ul` and the text behind it.
fn split_literal(text: &str) -> Option<(String, &str)> {
    const SUFFIXES: [(&str, &str); 6] = [
        ("(int)", ""),
        ("(unsigned int)", "u"),
        ("(long)", "l"),
        ("(unsigned long)", "ul"),
        ("(long long)", "ll"),
        ("(unsigned long long)", "ull"),
    ];
    let (number, suffix) =
        SUFFIXES.iter().find_map(|(cast, suffix)| Some((text.strip_prefix(cast)?, suffix)))?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    if after.len() == digits.len() {
        return None;
    }
    let literal = &number[..number.len() - after.len()];
    Some((format!("{literal}{suffix}"), after))
}

fn render(write: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
    let mut out = Bounded(String::new());
    write(&mut out).ok()?;
    Some(out.0)
}

/// A string that refuses to grow beyond what a reader could use.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_READABLE_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::tests::Random;
    use std::time::{Duration, Instant};

    const CASES: [(&str, &str); 42] = [
        ("_Z3fooi", "foo(int)"),
        ("_Z3fooi.cold", "foo(int) [clone .cold]"),
        ("_Z3fooi.isra.0.cold", "foo(int) [clone .isra.0] [clone .cold]"),
        ("_Z3fooi.constprop.0", "foo(int) [clone .constprop.0]"),
        ("_Z3fooi.part.12.cold.1", "foo(int) [clone .part.12] [clone .cold.1]"),
        ("_Z3fooi@plt", "foo(int)@plt"),
        ("_Z3fooi@@V1", "foo(int)"),
        ("memcpy@@GLIBC_2.14", "memcpy"),
        ("memcpy@GLIBC_2.2.5", "memcpy"),
        ("malloc@plt", "malloc@plt"),
        ("foo.isra.0", "foo.isra.0"),
        ("main", "main"),
        ("", ""),
        ("@x", "@x"),
        ("x@", "x@"),
        ("py::f:/home/me@host/a.py", "py::f:/home/me@host/a.py"),
        ("_Z", "_Z"),
        ("_R", "_R"),
        ("_ZNot_a_name", "_ZNot_a_name"),
        ("_ZL3foov", "foo()"),
        (
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
        ),
        ("_ZZN3foo3barEvENKUlvE_clEv", "foo::bar()::{lambda()#1}::operator()() const"),
        ("_ZThn16_N3foo3barEv", "non-virtual thunk to foo::bar()"),
        ("_ZTv0_n24_N3foo3barEv", "virtual thunk to foo::bar()"),
        ("_ZTch0_h16_N3foo3barEv", "covariant return thunk to foo::bar()"),
        ("_ZTcv0_n24_v0_n32_N3foo3barEv.cold", "covariant return thunk to foo::bar() [clone .cold]"),
        ("_ZThn16_", "_ZThn16_"),
        ("_ZTW1x", "TLS wrapper function for x"),
        ("_Z12gen_int_mode8poly_intILj1ElE12machine_mode", "gen_int_mode(poly_int<1u, long>, machine_mode)"),
        (
            "_ZN4llvm14AttributorPass3runERNS_6ModuleERNS_15AnalysisManagerIS1_JEEE",
            "llvm::AttributorPass::run(llvm::Module&, llvm::AnalysisManager<llvm::Module>&)",
        ),
        ("_Z1fI1AIiJEEJEEvT_DpT0_", "void f<A<int> >(A<int>)"),
        ("_ZN1AltIiEEbT_", "bool A::operator< <int>(int)"),
        ("_ZN1AcmEi", "A::operator,(int)"),
        // Rust, legacy: without the hash.
        ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
        (
            "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE.llvm.1234",
            "core::fmt::Write::write_fmt [clone .llvm.1234]",
        ),
        (
            "_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Write$GT$9write_str\
             17h0123456789abcdefE.cold",
            "<alloc::string::String as core::fmt::Write>::write_str [clone .cold]",
        ),
        ("_ZN3app17hash_of_something17h0123456789abcdefE", "app::hash_of_something"),
        // C++ that only looks alike.
        ("_ZN3foo17h0123456789abcdefEi", "foo::h0123456789abcdef(int)"),
        // Rust, v0: without crate disambiguators.
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RNvCs1234_7mycrate3foo.cold.1", "mycrate::foo [clone .cold.1]"),
        ("_RNvMs_NtCs1234_5alloc6stringNtB4_6String3new@plt", "<alloc::string::String>::new@plt"),
        ("Ünïcode", "Ünïcode"),
    ];

    #[test]
    fn names_as_readers_know_them() {
        for (raw, readable) in CASES {
            assert_eq!(demangle(raw), readable, "{raw}");
        }
    }

    #[test]
    fn unmangled_names_are_borrowed() {
        for raw in ["main", "memcpy@@GLIBC_2.14", "malloc@plt", "_ZZZZ"] {
            assert!(matches!(demangle(raw), Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn a_short_name_cannot_explode() {
        // Each pair refers twice to the pair before it: 2^n words from 8 n bytes.
        let mut doubling = String::from("_Z1fSt4pairIiiE");
        for level in 0..60 {
            let reference = match level {
                0 => "S_".to_owned(),
                n => format!("S{}_", base_36(n - 1)),
            };
            doubling.push_str(&format!("St4pairI{reference}{reference}E"));
        }
        let deep = format!("_Z1f{}i", "P".repeat(20_000));
        let nested = format!("_Z{}1fv", "N1a".repeat(5_000));
        let long = format!("_Z{}{}v", 40_000, "x".repeat(40_000));
        let started = Instant::now();
        for hostile in [doubling, deep, nested, long] {
            let readable = demangle(&hostile);
            assert!(readable.len() <= MAX_READABLE_BYTES.max(hostile.len()));
        }
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    fn base_36(mut number: usize) -> String {
        let mut digits = Vec::new();
        loop {
            digits.push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number % 36]);
            number /= 36;
            if number == 0 {
                break;
            }
        }
        digits.reverse();
        String::from_utf8(digits).unwrap()
    }

    #[test]
    fn mutated_names_neither_panic_nor_hang() {
        let mut random = Random::new(3);
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut slowest = Duration::ZERO;
        while Instant::now() < deadline {
            let (raw, _) = CASES[random.below(CASES.len() as u64) as usize];
            let mut bytes = raw.as_bytes().to_vec();
            random.mutate(&mut bytes, b"0123456789_SINEPRKXTLDJvihlcstp.@$");
            let text = String::from_utf8_lossy(&bytes);
            let started = Instant::now();
            let readable = demangle(&text);
            slowest = slowest.max(started.elapsed());
            assert!(readable.len() <= MAX_READABLE_BYTES.max(text.len()) + 64);
        }
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }
}
