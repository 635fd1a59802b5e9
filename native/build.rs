//! Compiles the BPF programs and generates their typed skeletons.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

/// Version 3 of the instruction set has the atomic operations that return the old value.
const FLAGS: [&str; 4] = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror"];
const PROGRAMS: [&str; 1] = ["cpu"];

fn main() {
    let bpf = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // libbpf-sys exports the headers of the libbpf that it built.
    let headers = PathBuf::from(env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys sets it"));
    for program in PROGRAMS {
        let source = bpf.join(format!("{program}.bpf.c"));
        let mut builder = SkeletonBuilder::new();
        let mut arguments: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
        arguments.extend(["-I".into(), headers.clone().into_os_string()]);
        builder.source(&source).clang_args(arguments);
        if let Some(clang) = env::var_os("CLANG") {
            builder.clang(clang);
        }
        if let Err(error) = builder.build_and_generate(out.join(format!("{program}.skel.rs"))) {
            panic!("{}: {error:#}", source.display());
        }
    }
    // For the test that compiles them for the other architecture.
    println!("cargo:rustc-env=BPF_FLAGS={} -I {}", FLAGS.join(" "), headers.display());
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
}
