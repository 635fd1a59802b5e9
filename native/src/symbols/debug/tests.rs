//! Debug files in every place, made by the tools that make them for distributions.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use super::known::KnownCalls;
use super::names::{CodeFile, CodeNames};
use super::search::DebugDirs;
use crate::symbols::tests::Random;
use crate::symbols::{build_id, hex};

const SOURCE: &str = r#"
static volatile unsigned long sink;
static inline __attribute__((always_inline)) unsigned long inner(unsigned long n) {
    return n * n ^ sink; /* line 4 */
}
static inline __attribute__((always_inline)) unsigned long middle(unsigned long n) {
    return inner(n) + 1; /* line 7 */
}
__attribute__((noinline)) static unsigned long outer(unsigned long n) {
    sink = middle(n); /* line 10 */
    return sink;
}
int main(int argc, char **argv) { (void)argv; return (int)outer(argc); }
"#;

/// A program in a directory of its own, beside directories in which debug files may lie.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// Compiles the program with `flags` in addition.
    fn new(flags: &[&str]) -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        fs::write(place.path("prog.c"), SOURCE).unwrap();
        place.compile("prog", flags);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn compile(&self, name: &str, flags: &[&str]) {
        let arguments = ["-O2", "-g", "-Wl,--build-id=sha1", "prog.c", "-o", name];
        self.run("gcc", &[&arguments[..], flags].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).current_dir(self.dir.path()).status();
        assert!(status.unwrap_or_else(|e| panic!("{program}: {e}")).success(), "{program} {arguments:?}");
    }

    /// Moves what is not needed to run the program to `debug_file`.
    fn split_off(&self, debug_file: &str) {
        let path = self.path(debug_file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.run("objcopy", &["--only-keep-debug", "prog", debug_file]);
        self.run("strip", &["--strip-all", "prog"]);
    }

    fn build_id_path(&self, dir: &str, suffix: &str) -> String {
        let id = build_id(&File::open(self.path("prog")).unwrap()).unwrap();
        let hex = hex(&id);
        format!("{dir}/.build-id/{}/{}{suffix}", &hex[..2], &hex[2..])
    }

    fn dirs(&self) -> DebugDirs {
        DebugDirs {
            extra: vec![self.path("extra")],
            system: Some(self.path("system")),
            perf_cache: Some(self.path("perf")),
            debuginfod_cache: Some(self.path("debuginfod")),
            ..DebugDirs::default()
        }
    }

    fn names(&self) -> CodeNames {
        let (path, file) = (self.path("prog"), File::open(self.path("prog")).unwrap());
        let id = build_id(&file);
        let code = CodeFile { file: Ok(&file), path: &path, build_id: id.as_deref() };
        CodeNames::load(&code, &self.dirs()).unwrap()
    }
}

/// What is called at any address of the program: `inner:4 middle:7 outer:10`.
fn all_calls(names: &CodeNames, len: u64) -> Vec<String> {
    let addresses: Vec<u64> = (0..len).filter_map(|offset| names.address_of(offset)).collect();
    let cache = tempfile::tempdir().unwrap();
    let cache = KnownCalls::open_in(cache.path());
    let calls = names.calls(&addresses, &cache);
    assert_eq!(names.calls(&addresses, &cache), calls, "the second time they come from the cache");
    let mut all: Vec<String> = calls
        .iter()
        .map(|calls| {
            let call = |call: &super::SourceCall| {
                let (name, line) = (call.function.as_deref().unwrap_or("?"), call.line.unwrap_or(0));
                format!("{name}:{line}")
            };
            calls.iter().map(call).collect::<Vec<_>>().join(" ")
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[track_caller]
fn assert_inlines(place: &Place, debug_file: &str) {
    let names = place.names();
    assert_eq!(names.debug_file(), Some(place.path(debug_file).as_path()));
    assert_eq!(names.symbols(), "symtab");
    let len = fs::metadata(place.path("prog")).unwrap().len();
    let calls = all_calls(&names, len);
    assert!(calls.iter().any(|calls| calls == "inner:4 middle:7 outer:10"), "{calls:?}");
    let has = |name: &str| (0..len).any(|at| names.symbol_at(at).is_some_and(|symbol| symbol.name == name));
    assert!(has("outer"), "the debug file's symbols name what the program does not export");
}

#[test]
fn the_file_itself() {
    assert_inlines(&Place::new(&[]), "prog");
    assert_inlines(&Place::new(&["-gdwarf-4"]), "prog");
    assert_inlines(&Place::new(&["-gz=zlib"]), "prog");
    // A program that has its own looks nowhere else.
    let place = Place::new(&[]);
    let debug_file = place.build_id_path("system", ".debug");
    fs::create_dir_all(place.path(&debug_file).parent().unwrap()).unwrap();
    fs::copy(place.path("prog"), place.path(&debug_file)).unwrap();
    assert_inlines(&place, "prog");
}

#[test]
fn the_debug_link() {
    for debug_file in ["prog.debug", ".debug/prog.debug"] {
        for build_id in ["sha1", "none"] {
            let place = Place::new(&[&format!("-Wl,--build-id={build_id}")]);
            place.split_off(debug_file);
            place.run("objcopy", &[&format!("--add-gnu-debuglink={debug_file}"), "prog"]);
            assert_inlines(&place, debug_file);
        }
    }
}

#[test]
fn the_debug_link_below_the_system_directory() {
    let place = Place::new(&[]);
    let below = place.dir.path().strip_prefix("/").unwrap().to_str().unwrap().to_string();
    let debug_file = format!("system/{below}/prog.debug");
    place.split_off(&debug_file);
    place.run("objcopy", &[&format!("--add-gnu-debuglink={debug_file}"), "prog"]);
    assert_inlines(&place, &debug_file);
}

#[test]
fn build_id_directories_and_caches() {
    let place = Place::new(&[]);
    let by_id = |dir, suffix| place.build_id_path(dir, suffix);
    let hex = by_id("", "").replace("/.build-id/", "").replace('/', "");
    // Each is found when those before it are not there.
    let places = [
        "extra/anything".to_string(),
        by_id("system", ".debug"),
        by_id("perf", "/debug"),
        by_id("perf", "/elf"),
        format!("debuginfod/{hex}/debuginfo"),
    ];
    place.split_off("prog.kept");
    for debug_file in places.iter().rev() {
        fs::create_dir_all(place.path(debug_file).parent().unwrap()).unwrap();
        fs::copy(place.path("prog.kept"), place.path(debug_file)).unwrap();
        assert_inlines(&place, debug_file);
    }
}

#[test]
fn a_debug_file_of_other_code_is_never_used() {
    let place = Place::new(&[]);
    place.compile("other", &["-DOTHER", "-O1"]);
    let debug_file = place.build_id_path("system", ".debug");
    place.split_off("unused");
    fs::create_dir_all(place.path(&debug_file).parent().unwrap()).unwrap();
    fs::copy(place.path("other"), place.path(&debug_file)).unwrap();
    place.run("objcopy", &["--add-gnu-debuglink=other", "prog"]);
    assert_eq!(place.names().debug_file(), None);
    assert_eq!(place.names().symbols(), "dynsym");
    // Without a build-id the link's checksum tells.
    let place = Place::new(&["-Wl,--build-id=none"]);
    place.split_off("prog.debug");
    place.run("objcopy", &["--add-gnu-debuglink=prog.debug", "prog"]);
    let mut damaged = fs::read(place.path("prog.debug")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(place.path("prog.debug"), damaged).unwrap();
    assert_eq!(place.names().debug_file(), None);
}

#[test]
fn symbols_that_the_file_carries_compressed() {
    let place = Place::new(&[]);
    place.run("objcopy", &["--strip-debug", "prog", "mini"]);
    place.run("xz", &["mini"]);
    place.run("strip", &["--strip-all", "prog"]);
    place.run("objcopy", &["--add-section", ".gnu_debugdata=mini.xz", "prog"]);
    let names = place.names();
    assert_eq!((names.symbols(), names.debug_file()), ("gnu_debugdata", None));
    let len = fs::metadata(place.path("prog")).unwrap().len();
    assert!((0..len).any(|at| names.symbol_at(at).is_some_and(|symbol| symbol.name == "outer")));
}

#[test]
fn what_dwz_took_out() {
    let place = Place::new(&[]);
    place.compile("twin", &["-DTWIN"]);
    place.split_off("system/prog.debug");
    place.run("objcopy", &["--only-keep-debug", "twin", "system/twin.debug"]);
    let files = ["system/prog.debug", "system/twin.debug"];
    place.run("dwz", &["-m", "system/common.debug", "-M", "common.debug", files[0], files[1]]);
    let debug_file = place.build_id_path("system", ".debug");
    fs::create_dir_all(place.path(&debug_file).parent().unwrap()).unwrap();
    fs::rename(place.path("system/prog.debug"), place.path(&debug_file)).unwrap();
    // Beside the debug file, where its link points to.
    let beside = place.path(&debug_file).parent().unwrap().join("common.debug");
    fs::rename(place.path("system/common.debug"), beside).unwrap();
    assert_inlines(&place, &debug_file);
}

#[test]
fn split_debug_information() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let place = Place::new(&["-gsplit-dwarf", version]);
        assert_inlines(&place, "prog");
        if version == "-gdwarf-4" {
            // The one version that binutils can pack.
            place.run("dwp", &["-e", "prog", "-o", "prog.dwp"]);
            fs::remove_file(place.path("prog.dwo")).unwrap();
            assert_inlines(&place, "prog");
            fs::remove_file(place.path("prog.dwp")).unwrap();
        } else {
            fs::remove_file(place.path("prog.dwo")).unwrap();
        }
        let calls = all_calls(&place.names(), fs::metadata(place.path("prog")).unwrap().len());
        assert!(!calls.iter().any(|calls| calls.contains("inner")), "{calls:?}");
    }
}

/// Damaged debug information costs names, never more.
#[test]
fn damaged_debug_information() {
    let mut random = Random::new(11);
    for flags in [&["-gdwarf-5"][..], &["-gdwarf-4"], &["-gdwarf-5", "-gz=zlib"]] {
        let place = Place::new(flags);
        let sound = fs::read(place.path("prog")).unwrap();
        let file = File::open(place.path("prog")).unwrap();
        let elf = super::super::elf::ElfFile::read(&file).unwrap();
        let hot: Vec<(u64, u64)> =
            ["info", "abbrev", "line", "rnglists", "ranges", "str", "line_str", "aranges"]
                .iter()
                .filter_map(|name| elf.extent(&format!(".debug_{name}")))
                .map(|extent| (extent.offset, extent.len))
                .collect();
        for _ in 0..400 {
            let mut bytes = sound.clone();
            for _ in 0..=random.below(8) {
                let (offset, len) = hot[random.below(hot.len() as u64) as usize];
                bytes[(offset + random.below(len)) as usize] = random.odd_number() as u8;
            }
            fs::write(place.path("prog"), bytes).unwrap();
            let names = place.names();
            let addresses: Vec<u64> =
                (0..64).filter_map(|_| names.address_of(0x1000 + random.below(0x300))).collect();
            names.calls(&addresses, &KnownCalls::open_in(&place.path("no/cache")));
        }
    }
}
