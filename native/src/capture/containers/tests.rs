//! Lines and files as the runtimes write them.

use std::fs;
use std::path::Path;

use super::cgroup::{self, by_name, by_place};
use super::names::Names;
use super::{Containers, Namespaces};

const ID: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
const INNER: &str = "05c48c82caff3be3d7f1e896981dd410e81487538936914f32b624d168de9db0";

/// The ID and the outermost cgroup that a path tells of, to a process in namespaces of its own or not.
fn named(path: &str, apart: bool) -> Option<(String, String)> {
    let found = by_name(path.as_bytes(), apart)?;
    Some((found.id, String::from_utf8(found.root.to_vec()).unwrap()))
}

#[test]
fn ids_of_daemons_need_no_namespace() {
    let pod = "pod82f40de6_1226_4577_ab35_2f378b9f5e49";
    let kubelet = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{pod}.slice");
    for root in [
        format!("/docker/{ID}"),
        format!("/system.slice/docker-{ID}.scope"),
        format!("/machine.slice/libpod-{ID}.scope"),
        format!("/libpod_parent/libpod-{ID}"),
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
        format!("{kubelet}/cri-containerd-{ID}.scope"),
        format!("{kubelet}/crio-{ID}.scope"),
        format!("{kubelet}/docker-{ID}.scope"),
        format!("/kubepods/burstable/pod3e9ee100-e307-4474-8c4c-e97428ebaacd/{ID}"),
        format!("/system.slice/containerd.service/kubepods-{pod}.slice:cri-containerd:{ID}"),
        format!("/k8s.io/{ID}"),
        format!("/ecs/0b69d5c0a2be4c5b8c1f1a0d8e4c2b1a/{ID}"),
        format!("/../docker-{ID}.scope"),
    ] {
        assert_eq!(named(&root, false), Some((ID.to_string(), root.clone())));
        let below = format!("{root}/container/init.scope");
        assert_eq!(named(&below, false), Some((ID.to_string(), root)));
    }
}

#[test]
fn the_innermost_of_nested_containers() {
    for inner in [
        format!("docker/{INNER}"),
        format!("kubelet.slice/kubelet-kubepods.slice/cri-containerd-{INNER}.scope"),
    ] {
        let path = format!("/docker/{ID}/{inner}");
        assert_eq!(named(&path, false), Some((INNER.to_string(), path)));
    }
    let lxc = format!("/lxc.payload.web/system.slice/docker-{ID}.scope");
    assert_eq!(named(&lxc, true), Some((ID.to_string(), lxc)));
}

#[test]
fn monitors_are_outside_of_their_containers() {
    for path in ["machine.slice/libpod-conmon", "system.slice/crio-conmon"] {
        assert_eq!(named(&format!("/{path}-{ID}.scope"), false), None);
    }
    let nested = format!("/docker/{ID}/machine.slice/libpod-conmon-{INNER}.scope");
    assert_eq!(named(&nested, false), Some((ID.to_string(), format!("/docker/{ID}"))));
}

#[test]
fn given_names_need_a_namespace() {
    for (path, name, root) in [
        ("/lxc.payload.web/system.slice/nginx.service", "web", "/lxc.payload.web"),
        ("/lxc.payload/web", "web", "/lxc.payload/web"),
        ("/lxc/web/user.slice", "web", "/lxc/web"),
        (
            "/machine.slice/machine-my\\x2dweb.scope/payload",
            "my-web",
            "/machine.slice/machine-my\\x2dweb.scope",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/payload",
            "web",
            "/machine.slice/systemd-nspawn@web.service",
        ),
        ("/system.slice/runc-web.scope", "web", "/system.slice/runc-web.scope"),
        ("/user.slice/crun-web.scope/container", "web", "/user.slice/crun-web.scope"),
    ] {
        assert_eq!(named(path, true), Some((name.to_string(), root.to_string())));
        assert_eq!(named(path, false), None, "{path}: the monitor, or a virtual machine");
    }
    for path in ["/lxc.monitor.web", "/lxc.payload.", "/user.slice/user-1000.slice/session-3.scope", "/", ""]
    {
        assert_eq!(named(path, true), None, "{path}");
    }
}

#[test]
fn ids_are_64_digits_and_nothing_else() {
    for word in [&ID[1..], &format!("{ID}0"), &ID.replace('4', "g")] {
        assert_eq!(named(&format!("/docker/{word}"), false), None);
    }
}

#[test]
fn by_hand_it_is_the_last_cgroup_that_is_no_unit() {
    let found = |path: &str| {
        let found = by_place(path.as_bytes())?;
        Some((found.id, String::from_utf8(found.root.to_vec()).unwrap()))
    };
    let expected = |id: &str, root: &str| Some((id.to_string(), root.to_string()));
    assert_eq!(found("/web"), expected("web", "/web"));
    assert_eq!(found("/default/web/init.scope"), expected("web", "/default/web"));
    assert_eq!(found("/web/system.slice/nginx.service"), expected("web", "/web"));
    assert_eq!(found("/user.slice/user-0.slice/session-3.scope"), None);
    assert_eq!(found("/system.slice/foo.service/payload"), None);
    assert_eq!(found("/../.."), None);
}

#[test]
fn the_lines_of_all_hierarchies() {
    let text = b"12:name=systemd:/x\n4:cpu,cpuacct:/a:b\n3:memory:/m (deleted)\n0::/v2\nodd\n1:odd\n\n";
    let places = cgroup::memberships(text);
    let lines: Vec<_> = places.iter().map(|place| (place.controllers, place.path)).collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"", b"/v2"), (b"cpu,cpuacct", b"/a:b"), (b"memory", b"/m"), (b"name=systemd", b"/x")];
    assert_eq!(lines, expected);
}

/// A hybrid machine: the daemon's own unit in v2, the container in v1.
#[test]
fn any_hierarchy_may_tell() {
    let text =
        format!("5:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n");
    let containers = Containers::new();
    let container = containers.find(cgroup::memberships(text.as_bytes()), containers.ours).unwrap();
    assert_eq!((&*container.id, &*container.controllers), (ID, &b"memory"[..]));
}

#[test]
fn this_process_is_where_it_is_and_a_namespace_of_ones_own_is_no_container() {
    let mut containers = Containers::new();
    let pid = std::process::id() as i32;
    let ours = containers.of(pid).unwrap();
    assert_eq!(containers.of(pid).unwrap(), ours);
    assert!(containers.of(i32::MAX).is_err());
    // `unshare --mount --pid` in our own cgroups, which hold this process as well.
    let text = fs::read("/proc/self/cgroup").unwrap();
    let elsewhere = Namespaces { mount: Some(1), pid: Some(1) };
    if ours.is_none() {
        assert_eq!(containers.find(cgroup::memberships(&text), elsewhere), None);
    }
}

#[test]
fn hostile_names_of_cgroups() {
    let mut containers = Containers::new();
    let elsewhere = Namespaces { mount: Some(1), pid: Some(1) };
    let long = format!("0::/{}\n", "a/".repeat(1 << 16));
    let many = "7:x:/y\n".repeat(1 << 12);
    let texts: [&[u8]; 8] = [
        b"",
        b"\0\0\n:::\n::\n0::",
        b"0::/\xff\xfe/\xff\n",
        b"0::/machine-\\x2.scope\n",
        b"0::/machine-\\x+f\\xzz.scope\n",
        b"0::/lxc/\x1b[31m\x07\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for text in texts {
        let found = containers.find(cgroup::memberships(text), elsewhere);
        found.map(|container| containers.name(&container).unwrap());
    }
    let bytes = containers.find(cgroup::memberships(b"0::/lxc.payload.\xff\xfeweb\n"), elsewhere).unwrap();
    assert_eq!(bytes.id, "\\xff\\xfeweb");
    let code = containers.find(cgroup::memberships(b"0::/machine-\\x2.scope\n"), elsewhere).unwrap();
    assert_eq!(code.id, "\\x2");
}

/// A directory in the place of `/`.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(&self) -> Names {
        Names::new(self.0.path())
    }

    fn name(&self, owner: Option<u32>) -> Option<String> {
        self.names().of(ID, owner)
    }
}

#[test]
fn names_of_docker() {
    let root = Root::new();
    assert_eq!(root.name(None), None);
    let config = |name: &str| {
        format!(r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":812}},"ID":"{ID}","Name":"{name}"}}"#)
    };
    root.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &config("/web"));
    assert_eq!(root.name(None).as_deref(), Some("web"));
    root.write(
        &format!("var/lib/docker/containers/{ID}/config.v2.json"),
        &config("/k8s_app_web-0_default_82f4_0"),
    );
    assert_eq!(root.name(None).as_deref(), Some("web-0/app"));

    let moved = Root::new();
    moved.write("etc/docker/daemon.json", r#"{"log-driver":"journald","data-root":"/srv/docker"}"#);
    moved.write(&format!("srv/docker/containers/{ID}/config.v2.json"), &config("/db"));
    assert_eq!(moved.name(None).as_deref(), Some("db"));
}

#[test]
fn names_of_podman_and_cri_o() {
    let list = |name: &str| {
        format!(
            r#"[{{"id":"{INNER}","names":["other"],"layer":"x"}},{{"id":"{ID}","names":["{name}"],
                "image":"y","metadata":"{{\"name\":\"{name}\"}}","created":"2026-01-01T00:00:00Z"}}]"#
        )
    };
    for (path, name, expected) in [
        ("var/lib/containers/storage/overlay-containers/containers.json", "web", "web"),
        ("var/lib/containers/storage/vfs-containers/containers.json", "web", "web"),
        ("run/containers/storage/overlay-containers/volatile-containers.json", "once", "once"),
        (
            "var/lib/containers/storage/overlay-containers/containers.json",
            "k8s_app_web-0_default_82f4_0",
            "web-0/app",
        ),
    ] {
        let root = Root::new();
        root.write(path, &list(name));
        assert_eq!(root.name(None).as_deref(), Some(expected));
    }
}

#[test]
fn a_list_that_changes_is_read_again() {
    let root = Root::new();
    let path = "var/lib/containers/storage/overlay-containers/containers.json";
    root.write(path, "[]");
    let mut names = root.names();
    assert_eq!(names.of(ID, None), None);
    root.write(path, &format!(r#"[{{"id":"{ID}","names":["new"]}}]"#));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(root.0.path().join(path)).unwrap().set_modified(later).unwrap();
    assert_eq!(names.of(ID, None).as_deref(), Some("new"));
}

#[test]
fn names_of_rootless_containers_lie_in_their_users_home() {
    // SAFETY: geteuid only reads.
    let uid = unsafe { libc::geteuid() };
    let root = Root::new();
    root.write(
        "etc/passwd",
        &format!("root:x:9999:0::/root:/bin/sh\nann:x:{uid}:{uid}:Ann,,,:/home/ann:/bin/sh\n"),
    );
    let list = "home/ann/.local/share/containers/storage/overlay-containers/containers.json";
    root.write(list, &format!(r#"[{{"id":"{ID}","names":["mine"]}}]"#));
    assert_eq!(root.name(Some(uid)).as_deref(), Some("mine"));
    assert_eq!(root.name(None), None);
    let path = format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-{ID}.scope");
    assert_eq!(cgroup::owner(path.as_bytes()), Some(uid));
}

#[test]
fn names_of_containerd() {
    for (annotations, expected) in [
        (
            r#"{"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web-0"}"#,
            Some("web-0/app"),
        ),
        (
            r#"{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"web-0"}"#,
            Some("web-0/POD"),
        ),
        (r#"{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0"}"#, Some("web-0/app")),
        (r#"{"nerdctl/name":"web","nerdctl/namespace":"default"}"#, Some("web")),
        (r#"{"org.example":"x"}"#, None),
    ] {
        for state in ["run/containerd", "run/k3s/containerd"] {
            let root = Root::new();
            root.write(
                &format!("{state}/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"),
                &format!(
                    r#"{{"ociVersion":"1.1.0","process":{{"args":["x"]}},"annotations":{annotations}}}"#
                ),
            );
            assert_eq!(root.name(None).as_deref(), expected);
        }
    }
}

#[test]
fn containers_of_crun_and_runc() {
    let root = Root::new();
    let manual = |path: &str, directory: &str| {
        let found = root.names().manual(path.as_bytes(), Some(Path::new(directory)))?;
        Some((found.id, path[..found.root_len].to_string()))
    };
    root.write("run/crun/web/status", r#"{"pid":812,"cgroup-path":"/apps/cg-1","systemd-cgroup":false}"#);
    root.write(
        "run/runc/db/state.json",
        r#"{"id":"db","init_process_pid":9,"cgroup_paths":{"memory":"/sys/fs/cgroup/memory/apps/db"}}"#,
    );
    let expected = |id: &str, root: &str| Some((id.to_string(), root.to_string()));
    assert_eq!(manual("/apps/cg-1", "/sys/fs/cgroup/apps/cg-1"), expected("web", "/apps/cg-1"));
    assert_eq!(manual("/apps/cg-1/x", "/sys/fs/cgroup/apps/cg-1/x"), expected("web", "/apps/cg-1"));
    assert_eq!(manual("/apps/cg-10", "/sys/fs/cgroup/apps/cg-10"), None);
    assert_eq!(manual("/apps/db", "/sys/fs/cgroup/memory/apps/db"), expected("db", "/apps/db"));
    assert_eq!(manual("/apps/db/y", "/sys/fs/cgroup/memory/apps/db/y"), expected("db", "/apps/db"));
    assert_eq!(manual("/apps", "/sys/fs/cgroup/memory/apps"), None);
}

#[test]
fn state_files_that_make_no_sense_name_nothing() {
    let deep = "[".repeat(1 << 20);
    let huge = format!(r#"{{"Name":"{}"}}"#, "x".repeat(17 << 20));
    let texts =
        ["", "{", "null", "[1,2]", r#"{"Name":5}"#, r#"{"Name":""}"#, r#"{"Name":"/"}"#, &deep, &huge];
    for text in texts {
        let root = Root::new();
        root.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), text);
        root.write("var/lib/containers/storage/overlay-containers/containers.json", text);
        root.write(&format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"), text);
        root.write("run/crun/x/status", text);
        root.write("run/runc/x/state.json", text);
        assert_eq!(root.name(Some(0)), None);
        assert!(root.names().manual(b"/x", Some(Path::new("/sys/fs/cgroup/x"))).is_none());
    }
    let root = Root::new();
    let long = format!(r#"{{"Name":"/{}"}}"#, "ü".repeat(5000));
    root.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &long);
    assert_eq!(root.name(None).unwrap().chars().count(), 256);
}

#[test]
fn only_files_are_read_and_links_are_not_followed() {
    let root = Root::new();
    let path = format!("var/lib/docker/containers/{ID}/config.v2.json");
    root.write("secret", r#"{"Name":"/secret"}"#);
    root.write(&format!("var/lib/docker/containers/{ID}/x"), "");
    let place = root.0.path().join(&path);
    std::os::unix::fs::symlink(root.0.path().join("secret"), &place).unwrap();
    assert_eq!(root.name(None), None);
    fs::remove_file(&place).unwrap();
    let fifo = std::ffi::CString::new(place.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    assert_eq!(root.name(None), None);
}
