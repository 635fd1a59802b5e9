//! Loads the BPF programs and makes their maps.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType, OpenMapMut, PrintLevel};

use super::options::{Cgroup, Options};
use super::tables::{TableMaps, map_options, new_chunk_map};
use crate::error::{Error, Kind, Result};

#[allow(clippy::all, clippy::undocumented_unsafe_blocks, dead_code, unused_imports)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/cpu.skel.rs"));
}

/// All eight, in their order: `on_sample_programs!(skel.progs, &mut)`.
macro_rules! on_sample_programs {
    ($programs:expr, $($borrow:tt)+) => {
        [
            $($borrow)+ $programs.on_sample_0,
            $($borrow)+ $programs.on_sample_1,
            $($borrow)+ $programs.on_sample_2,
            $($borrow)+ $programs.on_sample_3,
            $($borrow)+ $programs.on_sample_4,
            $($borrow)+ $programs.on_sample_5,
            $($borrow)+ $programs.on_sample_6,
            $($borrow)+ $programs.on_sample_7,
        ]
    };
}

/// A ring is shared by so many CPUs at most, unless that makes it too small.
const CPUS_PER_RING: usize = 8;
const MIN_RING_BYTES: u64 = 1 << 20;
/// As in bpf/cgroup.bpf.h.
const MAX_HIERARCHIES: usize = 4;
const MAX_CHOSEN_CGROUPS: usize = 256;

/// The programs before they are loaded.  The maps that are filled meanwhile are there already.
pub struct OpenPrograms<'a> {
    skel: skeleton::OpenCpuSkel<'a>,
    rings: Vec<MapHandle>,
    ring_bytes: u64,
    cpus_per_ring: usize,
    rings_by_cpus: MapHandle,
}

/// The loaded programs.  The kernel frees them when this value and the perf events are dropped.
pub struct Programs {
    on_sample: Vec<OwnedFd>,
    /// Detaches when it is dropped.
    _on_exec: Link,
    cpu_states: MapHandle,
    pub rings: Vec<MapHandle>,
    pub ring_bytes: u64,
}

/// What libbpf-rs keeps an object in.
pub type Storage = MaybeUninit<libbpf_rs::OpenObject>;

/// `storage` is where the object is kept.
pub fn open<'a>(
    storage: &'a mut Storage,
    options: &Options,
    cpus: &[u16],
) -> Result<(OpenPrograms<'a>, TableMaps)> {
    quiet_libbpf();
    let mut skel = skeleton::CpuSkelBuilder::default().open(storage).map_err(load_error)?;
    let maps = &mut skel.maps;
    let table_maps = TableMaps {
        files: make_now(&mut maps.files, None)?,
        rules: make_now(&mut maps.rules, None)?,
        generation: make_now(&mut maps.files_generation, None)?,
        chunks: make_now(&mut maps.chunks, Some(&new_chunk_map().map_err(load_error)?))?,
    };
    let last_cpu = usize::from(*cpus.iter().max().expect("a machine has a CPU"));
    let (cpus_per_ring, ring_bytes) = ring_layout(last_cpu + 1, options.buffer_bytes);
    let rings = (0..=last_cpu / cpus_per_ring).map(|_| new_ring(ring_bytes)).collect::<Result<Vec<_>>>()?;
    maps.rings.set_max_entries(rings.len() as u32).map_err(load_error)?;
    let rings_by_cpus = make_now(&mut maps.rings, rings.first())?;
    Ok((OpenPrograms { skel, rings, ring_bytes, cpus_per_ring, rings_by_cpus }, table_maps))
}

impl OpenPrograms<'_> {
    pub fn load(mut self, options: &Options) -> Result<Programs> {
        let cgroups = chosen_cgroups(&options.target.cgroups)?;
        self.set_constants(options, &cgroups);
        for (index, program) in on_sample_programs!(self.skel.progs, &mut).into_iter().enumerate() {
            program.set_autoload(index < options.sources.len()); // each one takes the verifier 40 ms
        }
        let _preferred = super::Preferred::begin();
        let Self { skel, rings, ring_bytes, rings_by_cpus, .. } = self;
        let (filled, skel) = std::thread::scope(|scope| {
            let filling = scope.spawn(|| fill(&rings_by_cpus, 0, &rings.iter().collect::<Vec<_>>()));
            let skel = skel.load();
            (filling.join().expect("an update does not panic"), skel)
        });
        let skel = skel.map_err(load_error)?;
        filled.map_err(load_error)?;
        choose_cgroups(&skel.maps.chosen_cgroups, &cgroups).map_err(load_error)?;
        let programs = on_sample_programs!(skel.progs, &);
        let on_sample = programs[..options.sources.len()]
            .iter()
            .map(|program| program.as_fd().try_clone_to_owned())
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| Error::io("cannot keep a BPF program", &e))?;
        let cpu_states = MapHandle::try_from(&skel.maps.cpu_states).map_err(load_error)?;
        let on_exec = skel.progs.on_exec.attach().map_err(load_error)?;
        Ok(Programs { on_sample, _on_exec: on_exec, cpu_states, rings, ring_bytes })
    }

    fn set_constants(&mut self, options: &Options, cgroups: &ChosenCgroups) {
        let rodata = self.skel.maps.rodata_data.as_deref_mut().expect("the object has constants");
        rodata.cpus_per_ring = self.cpus_per_ring as u32;
        rodata.wake_at_bytes = self.ring_bytes / 4;
        rodata.max_user_frames = options.max_user_frames;
        rodata.max_kernel_frames = options.max_kernel_frames;
        rodata.use_tables = options.use_tables;
        rodata.page_shift = crate::memory::page_size().trailing_zeros();
        for (slot, &subsystem) in rodata.hierarchies.iter_mut().zip(cgroups.keys()) {
            *slot = subsystem;
        }
        rodata.chosen_hierarchies = cgroups.len() as u32;
        for (slot, source) in rodata.sources.iter_mut().zip(&options.sources) {
            slot.period = source_period(source.frequency_hz, source.period, &source.unit).unwrap_or(0);
            slot.user = MaybeUninit::new(source.user);
            slot.kernel = MaybeUninit::new(source.kernel);
        }
    }
}

impl Programs {
    pub fn on_sample(&self, source: usize) -> RawFd {
        self.on_sample[source].as_raw_fd()
    }

    /// Records that found no room, by CPU.
    pub fn dropped_by_cpu(&self) -> Vec<u64> {
        let values = self.cpu_states.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY);
        let values = values.ok().flatten().unwrap_or_default();
        values.iter().map(|value| crate::wire::u64_at(value, 0)).collect()
    }

    /// Times that the kernel skipped a program because another one was running there.
    pub fn missed_runs(&self) -> u64 {
        self.on_sample.iter().map(|program| recursion_misses(program.as_raw_fd())).sum()
    }
}

/// What one sample stands for when the kernel does not adapt it: a clock's frequency is a fixed period.
pub fn source_period(frequency_hz: Option<u64>, period: Option<u64>, unit: &str) -> Option<u64> {
    match frequency_hz {
        // perf_swevent_init_hrtimer() makes the same division.
        Some(hz) if unit == "ns" => Some(1_000_000_000 / hz.max(1)),
        Some(_) => None,
        None => period,
    }
}

fn ring_layout(cpus: usize, buffer_bytes: u64) -> (usize, u64) {
    let mut cpus_per_ring = cpus.min(CPUS_PER_RING);
    loop {
        let rings = cpus.div_ceil(cpus_per_ring) as u64;
        let bytes = (buffer_bytes / rings).max(4096);
        let bytes = 1 << bytes.ilog2(); // the kernel wants a power of two
        if bytes >= MIN_RING_BYTES || rings == 1 {
            return (cpus_per_ring, bytes.max(crate::memory::page_size() as u64));
        }
        cpus_per_ring *= 2;
    }
}

/// Makes a map as its definition says, `inner` being one of those that it holds, if it holds maps.
fn make_now(map: &mut OpenMapMut<'_>, inner: Option<&MapHandle>) -> Result<MapHandle> {
    let mut options = map_options(map.map_flags());
    options.inner_map_fd = inner.map_or(0, |inner| inner.as_fd().as_raw_fd() as u32);
    let (kind, key, value, entries) = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
    let made =
        MapHandle::create(kind, Some(map.name()), key, value, entries, &options).map_err(load_error)?;
    map.reuse_fd(made.as_fd()).map_err(load_error)?;
    Ok(made)
}

/// Puts maps into a map of maps, all at once: after each change the kernel waits until no program uses the
/// old map, which takes 20 ms and more.
pub fn fill(map: &MapHandle, first: u32, inner: &[&MapHandle]) -> libbpf_rs::Result<()> {
    let keys: Vec<u8> = (first..).take(inner.len()).flat_map(u32::to_ne_bytes).collect();
    let fds: Vec<u8> = inner.iter().flat_map(|map| map.as_fd().as_raw_fd().to_ne_bytes()).collect();
    map.update_batch(&keys, &fds, inner.len() as u32, MapFlags::ANY, MapFlags::ANY)
}

fn new_ring(bytes: u64) -> Result<MapHandle> {
    let size = u32::try_from(bytes).map_err(|_| Error::new(Kind::Usage, "--buffer is too large"))?;
    MapHandle::create(MapType::RingBuf, Some("sberf_ring"), 0, 0, size, &map_options(0))
        .map_err(|e| Error::new(Kind::Capture, format!("cannot make a ring buffer of {bytes} bytes: {e}")))
}

/// The cgroups' IDs, by hierarchy as bpf/cgroup.bpf.h numbers them.
type ChosenCgroups = BTreeMap<i32, Vec<u64>>;

fn choose_cgroups(map: &impl MapCore, cgroups: &ChosenCgroups) -> libbpf_rs::Result<()> {
    for (subsystem, ids) in cgroups {
        for id in ids {
            // struct cgroup_key
            let key = [&id.to_ne_bytes()[..], &subsystem.to_ne_bytes(), &[0; 4]].concat();
            map.update(&key, &[1], MapFlags::ANY)?;
        }
    }
    Ok(())
}

fn chosen_cgroups(chosen: &[Cgroup]) -> Result<ChosenCgroups> {
    let mut cgroups = ChosenCgroups::new();
    for cgroup in chosen {
        cgroups.entry(v1_subsystem(cgroup)?).or_default().push(cgroup.id);
    }
    if cgroups.len() > MAX_HIERARCHIES || chosen.len() > MAX_CHOSEN_CGROUPS {
        let message = format!(
            "at most {MAX_CHOSEN_CGROUPS} cgroups in {MAX_HIERARCHIES} hierarchies can be recorded at once"
        );
        return Err(Error::new(Kind::Usage, message).hint("record with -a, then use report --container"));
    }
    Ok(cgroups)
}

/// The controller's index on this kernel, from `enum cgroup_subsys_id` in its BTF.
fn v1_subsystem(cgroup: &Cgroup) -> Result<i32> {
    let Some(controller) = &cgroup.v1_controller else { return Ok(-1) };
    let wanted = format!("{controller}_cgrp_id");
    let unknown =
        || Error::new(Kind::Unsupported, format!("this kernel has no cgroup controller '{controller}'"));
    let btf = libbpf_rs::btf::Btf::from_vmlinux().map_err(|_| unknown())?;
    let subsystems: libbpf_rs::btf::types::Enum<'_> =
        btf.type_by_name("cgroup_subsys_id").ok_or_else(unknown)?;
    subsystems
        .iter()
        .find(|member| member.name.is_some_and(|name| name == wanted.as_str()))
        .map(|member| member.value as i32)
        .ok_or_else(unknown)
}

fn recursion_misses(program: RawFd) -> u64 {
    // SAFETY: zero is a valid value of every field.
    let mut info: libbpf_sys::bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is `len` bytes long and the kernel writes no more than that.
    let error = unsafe { libbpf_sys::bpf_obj_get_info_by_fd(program, (&raw mut info).cast(), &mut len) };
    if error == 0 { info.recursion_misses } else { 0 }
}

/// libbpf's own messages, the verifier's log among them; shown only when they were asked for.
fn quiet_libbpf() {
    fn print(_level: PrintLevel, message: String) {
        if std::env::var_os("SBERF_DEBUG").is_some() {
            eprint!("{message}");
        }
    }
    libbpf_rs::set_print(Some((PrintLevel::Info, print)));
}

fn load_error(error: libbpf_rs::Error) -> Error {
    // EPERM is a missing privilege; EACCES is the verifier's answer to a program that it does not like.
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EPERM) => Error::new(Kind::Permission, "may not load BPF programs")
            .hint("run it as root, or give CAP_BPF and CAP_PERFMON; `sberf doctor` shows what is missing"),
        _ => Error::new(Kind::Unsupported, format!("cannot load the BPF programs: {error:#}"))
            .hint("`sberf doctor` shows what this kernel lacks; SBERF_DEBUG=1 shows the kernel's log"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::path::Path;
    use std::process::Command;

    use object::{Object, ObjectSymbol, SymbolKind};

    use super::*;

    #[test]
    fn rings_share_the_buffer() {
        assert_eq!(ring_layout(2, 16 << 20), (2, 16 << 20));
        assert_eq!(ring_layout(192, 48 << 20), (8, 2 << 20));
        assert_eq!(ring_layout(192, 1 << 20).1, 1 << 20);
        assert_eq!(ring_layout(4, 1 << 16), (4, 1 << 16));
    }

    /// What libbpf finds in the programs when they are compiled for an architecture: programs and maps, and
    /// the functions that the verifier checks by themselves.
    fn contents(architecture: &str, dir: &Path) -> (BTreeMap<String, String>, Vec<String>) {
        let object = dir.join(architecture).join("cpu.o");
        std::fs::create_dir(dir.join(architecture)).unwrap();
        let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_string());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bpf/cpu.bpf.c");
        let output = Command::new(clang)
            .args(["-g", "-O2", "-target", "bpf", "-fno-stack-protector"])
            .args(env!("BPF_FLAGS").split(' '))
            .arg(format!("-D__TARGET_ARCH_{architecture}"))
            .args(["-c".as_ref(), source.as_path(), "-o".as_ref(), object.as_path()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let open = libbpf_rs::ObjectBuilder::default().open_file(&object).unwrap();
        let name = |name: &OsStr| name.to_string_lossy().into_owned();
        let programs = open.progs().map(|program| (name(program.name()), name(program.section())));
        let maps = open.maps().map(|map| (name(map.name()), format!("{:?}", map.map_type())));
        let bytes = std::fs::read(&object).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let is_function = |symbol: &object::Symbol| symbol.is_global() && symbol.kind() == SymbolKind::Text;
        let mut functions: Vec<_> =
            file.symbols().filter(is_function).map(|s| s.name().unwrap().into()).collect();
        functions.sort();
        (programs.chain(maps).collect(), functions)
    }

    #[test]
    fn the_programs_are_the_same_for_arm64() {
        let dir = tempfile::tempdir().unwrap();
        let (arm64, functions) = contents("arm64", dir.path());
        assert_eq!(arm64["on_sample_7"], "perf_event");
        assert_eq!(arm64["chunks"], "ArrayOfMaps");
        for function in ["find_row", "find_vma", "leave_frame", "look_up_mapping", "on_sample_0"] {
            assert!(functions.iter().any(|name| name == function), "{function}: {functions:?}");
        }
        assert_eq!((arm64, functions), contents("x86", dir.path()));
    }
}
