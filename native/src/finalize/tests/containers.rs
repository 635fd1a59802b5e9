//! Which container each process is in, over time.

use super::builder::{NO_USER, Spool, at, snapshot};
use super::recording::{Process, Recording};

const WEB: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
const DB: &str = "05c48c82caff3be3d7f1e896981dd410e81487538936914f32b624d168de9db0";
const IN_WEB: u64 = 1;
const ON_HOST: u64 = 2;

fn place(process: &Process) -> (Option<&str>, Option<&str>) {
    (process.container.as_deref(), process.container_name.as_deref())
}

fn at_ms(recording: &Recording, ms: u64) -> &Process {
    recording.process_of(recording.at(at(ms)))
}

/// A runtime on the host forks a child that runs a program in the container; a worker is forked there.
fn started_container() -> Spool {
    let mut spool = Spool::new();
    spool.snapshot(&snapshot(5, 10, "shim", Vec::new()));
    spool.fork(10, 10, 20);
    spool.sample(11, 20, 20, NO_USER);
    spool.exec(12, 20, "nginx");
    spool.program(13, (20, 1), IN_WEB, "nginx\0");
    spool.sample(14, 20, 20, NO_USER);
    spool.fork(15, 20, 21);
    spool.sample(16, 21, 21, NO_USER);
    spool
}

#[test]
fn a_container_begins_with_the_program_that_is_run_in_it() {
    let mut spool = started_container();
    // Found out later than the samples.
    spool.container(Some(IN_WEB), Some(WEB), None);
    spool.container(None, Some(WEB), Some("web"));
    let recording = spool.finalize();
    assert_eq!(place(at_ms(&recording, 11)), (None, None));
    assert_eq!(place(at_ms(&recording, 14)), (Some(WEB), Some("web")));
    assert_eq!(at_ms(&recording, 14).ns_pid, Some(1));
    assert_eq!(place(at_ms(&recording, 16)), (Some(WEB), Some("web")));
    assert_eq!(at_ms(&recording, 16).ns_pid, None);
}

#[test]
fn who_leaves_a_container_is_out_of_it() {
    let mut spool = started_container();
    spool.container(Some(IN_WEB), Some(WEB), None);
    spool.container(Some(ON_HOST), None, None);
    spool.exec(17, 21, "nsenter");
    spool.program(18, (21, 21), ON_HOST, "sh\0");
    spool.sample(19, 21, 21, NO_USER);
    let recording = spool.finalize();
    assert_eq!(place(at_ms(&recording, 16)), (Some(WEB), None));
    assert_eq!(place(at_ms(&recording, 19)), (None, None));
}

#[test]
fn what_nobody_found_out_is_what_the_parent_was() {
    let mut spool = Spool::new();
    let mut parent = snapshot(5, 10, "sh", Vec::new());
    parent.container = Some(DB.to_string());
    spool.snapshot(&parent);
    spool.fork(10, 10, 20);
    spool.exec(11, 20, "true");
    spool.program(12, (20, 7), 99, "true\0");
    spool.sample(13, 20, 20, NO_USER);
    spool.container(None, Some(DB), Some("db"));
    let recording = spool.finalize();
    assert_eq!(place(at_ms(&recording, 13)), (Some(DB), Some("db")));
    assert_eq!(at_ms(&recording, 13).ns_pid, Some(7));
}

#[test]
fn a_program_without_arguments_is_in_its_container() {
    let mut spool = started_container();
    spool.container(Some(IN_WEB), Some(WEB), None);
    spool.exec(17, 21, "bare");
    spool.program(18, (21, 2), IN_WEB, "");
    spool.sample(19, 21, 21, NO_USER);
    let recording = spool.finalize();
    assert_eq!(place(at_ms(&recording, 19)), (Some(WEB), None));
    assert_eq!(at_ms(&recording, 19).cmdline, None);
}
