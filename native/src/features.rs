//! What bpf() and perf_event_open() can do here, found by trying the smallest thing that needs it.
//!
//! Every probe closes what it opened.  The programs that are attached for a moment do nothing, and hook
//! functions that nobody calls wherever there is a choice.  A probe's error is the errno of the first
//! step that failed: EPERM and EACCES mean that privileges are missing (or a lockdown, a security
//! module or a container's filter forbids it), everything else that the kernel lacks the feature.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::thread;

use libbpf_sys as bpf;
use perf_event_open_sys::bindings as perf;

/// Ok, or the errno.
type Probed<T = ()> = Result<T, i32>;

const PROBE_FREQUENCY_HZ: u64 = 1;
const RING_BYTES: u32 = 64 * 1024;
const CHUNK_BYTES: u32 = 128 * 1024;
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
/// Exists in every kernel with BPF and networking for the kernel's own tests; nothing else calls it.
const UNUSED_FUNCTION: &CStr = c"bpf_fentry_test1";

/// Tries every feature; takes well under 200 ms.  The names are documented in docs/doctor.md.
pub fn probe() -> Vec<(String, Probed)> {
    // Removing a uprobe waits for every CPU; the other probes need not wait with it.
    let uprobe = thread::spawn(uprobe);
    let btf = KernelBtf::load();
    let tracing = |attach_type, kind, name| btf.as_ref().map_err(|e| *e)?.attach(attach_type, kind, name);
    let results: [(&str, Probed); 18] = [
        ("perf_own_process", perf_open(software(perf::PERF_COUNT_SW_CPU_CLOCK), Target::Own).map(drop)),
        ("perf_cpu_clock", perf_open(software(perf::PERF_COUNT_SW_CPU_CLOCK), Target::Cpu).map(drop)),
        ("perf_cycles", perf_open(cycles(), Target::Cpu).map(drop)),
        ("perf_sideband", perf_open(sideband(false), Target::Cpu).map(drop)),
        ("perf_build_id", perf_open(sideband(true), Target::Cpu).map(drop)),
        ("kprobe", perf_probe_pmu("kprobe", UNUSED_FUNCTION)),
        ("ringbuf", map_create(bpf::BPF_MAP_TYPE_RINGBUF, 0, (0, 0), RING_BYTES, None).map(drop)),
        ("ringbuf_array", ringbuf_array()),
        ("perf_event_program", perf_event_program()),
        ("unwind_tables", btf.as_ref().map_err(|e| *e).and_then(unwind_tables)),
        ("bpf_loop", helper(bpf::BPF_FUNC_loop)),
        ("tracepoint_program", load(&Program::of(bpf::BPF_PROG_TYPE_TRACEPOINT)).map(drop)),
        ("raw_tracepoint", raw_tracepoint()),
        ("tp_btf", tracing(bpf::BPF_TRACE_RAW_TP, bpf::BTF_KIND_TYPEDEF, c"btf_trace_sched_switch")),
        ("fentry", tracing(bpf::BPF_TRACE_FENTRY, bpf::BTF_KIND_FUNC, UNUSED_FUNCTION)),
        ("task_iterator", tracing(bpf::BPF_TRACE_ITER, bpf::BTF_KIND_FUNC, c"bpf_iter_task")),
        ("btf", btf.as_ref().map(drop).map_err(|e| *e)),
        ("uprobe", uprobe.join().unwrap_or(Err(libc::EIO))),
    ];
    results.map(|(name, result)| (name.to_string(), result)).into()
}

/// The fd of a libbpf call that gives one or a negative errno.
fn owned(fd: i32) -> Probed<OwnedFd> {
    if fd < 0 {
        return Err(-fd);
    }
    // SAFETY: the call succeeded, so fd is open, and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

// perf_event_open

#[derive(Clone, Copy)]
enum Target {
    /// This process, wherever it runs.
    Own,
    /// Everything on one CPU.
    Cpu,
}

fn software(config: u32) -> perf::perf_event_attr {
    sampling(perf::PERF_TYPE_SOFTWARE, config)
}

fn cycles() -> perf::perf_event_attr {
    sampling(perf::PERF_TYPE_HARDWARE, perf::PERF_COUNT_HW_CPU_CYCLES)
}

fn sampling(kind: u32, config: u32) -> perf::perf_event_attr {
    let mut attr = perf::perf_event_attr { type_: kind, config: config.into(), ..Default::default() };
    attr.__bindgen_anon_1.sample_freq = PROBE_FREQUENCY_HZ;
    attr.set_freq(1);
    attr
}

/// The event that follows address spaces; see capture/.
fn sideband(build_id: bool) -> perf::perf_event_attr {
    let config = perf::PERF_COUNT_SW_DUMMY.into();
    let mut attr = perf::perf_event_attr { type_: perf::PERF_TYPE_SOFTWARE, config, ..Default::default() };
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_task(1);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr.clockid = libc::CLOCK_MONOTONIC;
    attr.set_build_id(build_id.into());
    attr
}

/// Opens the event disabled, so that it never fires.
fn perf_open(mut attr: perf::perf_event_attr, target: Target) -> Probed<OwnedFd> {
    attr.size = size_of_val(&attr) as u32;
    attr.set_disabled(1);
    let (pid, cpu) = match target {
        Target::Own => {
            // Asking for no more than an unprivileged user may see of itself.
            attr.set_exclude_kernel(1);
            (0, -1)
        }
        // SAFETY: sched_getcpu takes no arguments and cannot fail on a kernel with perf events.
        Target::Cpu => (-1, unsafe { libc::sched_getcpu() }),
    };
    let flags = u64::from(perf::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: attr is a valid, sized perf_event_attr that outlives the call.
    let fd = unsafe { perf_event_open_sys::perf_event_open(&mut attr, pid, cpu, -1, flags as _) };
    if fd < 0 {
        return Err(errno(&io::Error::last_os_error()));
    }
    owned(fd)
}

/// Opens a probe at the start of `place` through the dynamic PMU `pmu`; it stays disabled.
fn perf_probe_pmu(pmu: &str, place: &CStr) -> Probed {
    let type_file = format!("/sys/bus/event_source/devices/{pmu}/type");
    let kind = fs::read_to_string(type_file).map_err(|e| errno(&e))?;
    let kind = kind.trim().parse().map_err(|_| libc::EINVAL)?;
    let mut attr = perf::perf_event_attr { type_: kind, ..Default::default() };
    attr.__bindgen_anon_3.uprobe_path = place.as_ptr() as u64; // shares its place with kprobe_func
    perf_open(attr, Target::Cpu).map(drop)
}

/// A uprobe on a file in memory that nobody executes.
fn uprobe() -> Probed {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"sberf-uprobe".as_ptr(), libc::MFD_CLOEXEC) };
    let file = if fd < 0 { Err(errno(&io::Error::last_os_error())) } else { owned(fd) }?;
    let file = fs::File::from(file);
    file.set_len(4096).map_err(|e| errno(&e))?;
    let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    perf_probe_pmu("uprobe", CStr::from_bytes_until_nul(path.as_bytes()).map_err(|_| libc::EINVAL)?)
}

// bpf()

/// `r0 = 0; exit`, perhaps with a helper call before it.
struct Program<'a> {
    kind: bpf::bpf_prog_type,
    attach_type: bpf::bpf_attach_type,
    btf_id: u32,
    helper: Option<u32>,
    log: Option<&'a mut [u8]>,
}

impl Program<'_> {
    fn of(kind: bpf::bpf_prog_type) -> Self {
        Self { kind, attach_type: 0, btf_id: 0, helper: None, log: None }
    }

    fn instructions(&self) -> Vec<bpf::bpf_insn> {
        let plain =
            |code: u32, imm: u32| bpf::bpf_insn { code: code as u8, imm: imm as i32, ..Default::default() };
        let call = self.helper.map(|helper| plain(bpf::BPF_JMP | bpf::BPF_CALL, helper));
        let zero = plain(bpf::BPF_ALU64 | bpf::BPF_MOV | bpf::BPF_K, 0);
        let exit = plain(bpf::BPF_JMP | bpf::BPF_EXIT, 0);
        call.into_iter().chain([zero, exit]).collect()
    }
}

fn load(program: &Program) -> Probed<OwnedFd> {
    let instructions = program.instructions();
    let mut options = bpf::bpf_prog_load_opts {
        sz: size_of::<bpf::bpf_prog_load_opts>() as _,
        expected_attach_type: program.attach_type,
        attach_btf_id: program.btf_id,
        ..Default::default()
    };
    if let Some(log) = &program.log {
        options.log_level = 1;
        options.log_buf = log.as_ptr() as *mut _;
        options.log_size = log.len() as u32;
    }
    // SAFETY: the instructions, the options and the log buffer (which we hold exclusively) outlive the call.
    owned(unsafe {
        bpf::bpf_prog_load(
            program.kind,
            c"sberf_probe".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as _,
            &mut options,
        )
    })
}

/// The pair: the sizes of a key and of a value.
fn map_create(
    kind: bpf::bpf_map_type,
    flags: u32,
    (key, value): (u32, u32),
    entries: u32,
    inner: Option<&OwnedFd>,
) -> Probed<OwnedFd> {
    let options = bpf::bpf_map_create_opts {
        sz: size_of::<bpf::bpf_map_create_opts>() as _,
        map_flags: flags,
        inner_map_fd: inner.map_or(0, |map| map.as_raw_fd() as u32),
        ..Default::default()
    };
    // SAFETY: the name is a C string, the options outlive the call.
    owned(unsafe { bpf::bpf_map_create(kind, c"sberf_probe".as_ptr(), key, value, entries, &options) })
}

fn ringbuf_array() -> Probed {
    let ring = map_create(bpf::BPF_MAP_TYPE_RINGBUF, 0, (0, 0), RING_BYTES, None)?;
    map_create(bpf::BPF_MAP_TYPE_ARRAY_OF_MAPS, 0, (4, 4), 1, Some(&ring)).map(drop)
}

/// What bpf/mapping.bpf.h reads (since 6.1), and what the tables lie in.
fn unwind_tables(btf: &KernelBtf) -> Probed {
    for name in [c"maple_tree", c"maple_range_64", c"maple_arange_64"] {
        btf.find(bpf::BTF_KIND_STRUCT, name)?;
    }
    let chunk = map_create(bpf::BPF_MAP_TYPE_ARRAY, bpf::BPF_F_MMAPABLE, (4, CHUNK_BYTES), 1, None)?;
    map_create(bpf::BPF_MAP_TYPE_ARRAY_OF_MAPS, 0, (4, 4), 1, Some(&chunk)).map(drop)
}

/// A BPF program that runs at each sample, held by a link (5.15).
fn perf_event_program() -> Probed {
    let program = load(&Program::of(bpf::BPF_PROG_TYPE_PERF_EVENT))?;
    let event = perf_open(software(perf::PERF_COUNT_SW_CPU_CLOCK), Target::Cpu)?;
    link(&program, event.as_raw_fd(), bpf::BPF_PERF_EVENT)
}

/// Attaches and detaches.
fn link(program: &OwnedFd, target: i32, attach_type: bpf::bpf_attach_type) -> Probed {
    // SAFETY: both descriptors are open, and no options are passed.
    owned(unsafe { bpf::bpf_link_create(program.as_raw_fd(), target, attach_type, ptr::null()) }).map(drop)
}

/// Whether perf_event programs may call the helper.  The call lacks its arguments, so the verifier always
/// refuses it, but only where the helper does not exist with "invalid func" or "unknown func".
fn helper(helper: u32) -> Probed {
    let mut log = [0u8; 4096];
    let mut program = Program { helper: Some(helper), ..Program::of(bpf::BPF_PROG_TYPE_PERF_EVENT) };
    program.log = Some(&mut log);
    let result = load(&program);
    let text = String::from_utf8_lossy(&log);
    match result {
        Err(error @ (libc::EPERM | libc::EACCES)) if text.starts_with('\0') => Err(error),
        _ if text.contains("invalid func ") || text.contains("unknown func ") => Err(libc::EINVAL),
        _ => Ok(()),
    }
}

fn raw_tracepoint() -> Probed {
    let program = load(&Program::of(bpf::BPF_PROG_TYPE_RAW_TRACEPOINT))?;
    // SAFETY: the name is a C string, the program is open.
    owned(unsafe { bpf::bpf_raw_tracepoint_open(c"sched_process_wait".as_ptr(), program.as_raw_fd()) })
        .map(drop)
}

/// The kernel's own types, parsed.
struct KernelBtf(*mut bpf::btf);

impl KernelBtf {
    fn load() -> Probed<Self> {
        // libbpf would say on stderr that the file is missing.
        fs::File::open(VMLINUX_BTF).map_err(|e| errno(&e))?;
        // SAFETY: takes no arguments; gives null and errno on failure.
        let btf = unsafe { bpf::btf__load_vmlinux_btf() };
        if btf.is_null() { Err(errno(&io::Error::last_os_error())) } else { Ok(Self(btf)) }
    }

    fn find(&self, kind: u32, name: &CStr) -> Probed<u32> {
        // SAFETY: self.0 is a live btf, the name is a C string.
        let id = unsafe { bpf::btf__find_by_name_kind(self.0, name.as_ptr(), kind) };
        u32::try_from(id).map_err(|_| -id)
    }

    /// Loads a tracing program for the named type or function, attaches it and detaches it.
    fn attach(&self, attach_type: bpf::bpf_attach_type, kind: u32, name: &CStr) -> Probed {
        let btf_id = self.find(kind, name)?;
        let program = load(&Program { attach_type, btf_id, ..Program::of(bpf::BPF_PROG_TYPE_TRACING) })?;
        link(&program, 0, attach_type)
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        // SAFETY: self.0 came from btf__load_vmlinux_btf and is freed once.
        unsafe { bpf::btf__free(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_answers_under_a_name_of_its_own() {
        let results = probe();
        let mut names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), results.len());
        for (name, result) in &results {
            assert!(result.is_ok() || result.unwrap_err() > 0, "{name}: {result:?}");
        }
    }

    #[test]
    fn a_helper_that_no_kernel_has_is_missing() {
        let unprivileged = load(&Program::of(bpf::BPF_PROG_TYPE_PERF_EVENT)).is_err();
        let expected = if unprivileged { libc::EPERM } else { libc::EINVAL };
        assert_eq!(helper(1 << 20), Err(expected));
    }

    #[test]
    fn an_unknown_pmu_is_missing() {
        assert_eq!(perf_probe_pmu("no-such-pmu", UNUSED_FUNCTION), Err(libc::ENOENT));
    }
}
