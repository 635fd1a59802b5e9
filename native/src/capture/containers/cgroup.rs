//! What /proc/PID/cgroup says of containers: their runtimes name cgroups after them.

use super::unescaped;
use crate::symbols::decode;

/// Hierarchies are few; a line more than this is not looked at.
const MAX_LINES: usize = 64;

/// A process's place in one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Membership<'a> {
    /// Separated by commas; empty in the v2 hierarchy.
    pub controllers: &'a [u8],
    pub path: &'a [u8],
}

/// A container as a path names it, and the part of the path that is its outermost cgroup.
#[derive(Debug, PartialEq)]
pub struct Found<'a> {
    pub id: String,
    pub root: &'a [u8],
}

/// The places of a process, in order.
///
/// `4:memory:/docker/<id>`, `1:name=systemd:/docker/<id>`, `0::/system.slice/docker-<id>.scope`
pub fn memberships(text: &[u8]) -> Vec<Membership<'_>> {
    in_order(text.split(|&b| b == b'\n').filter_map(membership).take(MAX_LINES).collect())
}

/// The v2 hierarchy first, hierarchies without a controller last.
pub fn in_order(mut found: Vec<Membership<'_>>) -> Vec<Membership<'_>> {
    found.sort_by_key(|place| match place.controllers {
        b"" => 0,
        named if named.starts_with(b"name=") => 2,
        _ => 1,
    });
    found
}

fn membership(line: &[u8]) -> Option<Membership<'_>> {
    let mut fields = line.splitn(3, |&b| b == b':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    Some(Membership { controllers, path: path.strip_suffix(b" (deleted)").unwrap_or(path) })
}

/// The innermost container that a runtime's way of naming cgroups tells of.
///
/// `apart`: the process has a mount or PID namespace of its own, as it must for names that are not as
/// certain as an ID of 64 digits.
pub fn by_name(path: &[u8], apart: bool) -> Option<Found<'_>> {
    let parts = components(path);
    (0..parts.len()).rev().find_map(|at| {
        let (end, part) = parts[at];
        let above = at.checked_sub(1).map_or(&b""[..], |above| parts[above].1);
        let id = long_id(part).or_else(|| given_name(part, above).filter(|_| apart))?;
        Some(Found { id: decode(&id).into_owned(), root: &path[..end] })
    })
}

/// The innermost cgroup that is neither a systemd unit nor one that runtimes and systemd make below a
/// container's own: where runtimes that were called by hand put a container.
pub fn by_place(path: &[u8]) -> Option<Found<'_>> {
    let (end, part) = components(path).into_iter().rev().find(|(_, part)| !is_unit(part))?;
    Some(Found { id: decode(part).into_owned(), root: &path[..end] })
}

/// The user below whose slice a path lies: that of a rootless container.
///
/// `/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope`
pub fn owner(path: &[u8]) -> Option<u32> {
    let parts = components(path);
    let uid = |part: &[u8]| {
        let digits = part.strip_prefix(b"user-")?.strip_suffix(b".slice")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    parts.into_iter().find_map(|(_, part)| uid(part))
}

/// Does `path` lie in `root`, or is it the same?
pub fn is_within(path: &[u8], root: &[u8]) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The components of a path, each with the place at which it ends; without what means nothing here:
/// `/../` leads out of our own cgroup namespace.
fn components(path: &[u8]) -> Vec<(usize, &[u8])> {
    let mut end = 0;
    let with_ends = path.split(|&b| b == b'/').map(|part| {
        let at = end + part.len();
        end = at + 1;
        (at, part)
    });
    with_ends.filter(|(_, part)| !part.is_empty() && *part != b"..").collect()
}

/// `docker-<id>.scope`, `libpod-<id>`, `crio-<id>.scope`, `<slice>:cri-containerd:<id>`, `<id>`
fn long_id(part: &[u8]) -> Option<Vec<u8>> {
    // podman's and CRI-O's monitors, outside of the container: `libpod-conmon-<id>.scope`
    if part.windows(6).any(|window| window == b"conmon") {
        return None;
    }
    part.split(|b| !b.is_ascii_alphanumeric()).find(|word| is_long_id(word)).map(<[u8]>::to_vec)
}

/// 64 hexadecimal digits, as all daemons give them.
pub fn is_long_id(id: &[u8]) -> bool {
    id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit)
}

/// `lxc.payload.NAME`, `lxc/NAME`, `machine-NAME.scope` and `systemd-nspawn@NAME.service` of
/// systemd-nspawn, `crun-NAME.scope`, `runc-NAME.scope`
fn given_name(part: &[u8], above: &[u8]) -> Option<Vec<u8>> {
    let between = |prefix: &[u8], suffix: &[u8]| part.strip_prefix(prefix)?.strip_suffix(suffix);
    let name = match above {
        b"lxc" | b"lxc.payload" => Some(part.to_vec()),
        _ => part.strip_prefix(b"lxc.payload.").map(<[u8]>::to_vec),
    };
    let unit = || {
        let machine = between(b"machine-", b".scope").or_else(|| between(b"systemd-nspawn@", b".service"));
        machine.or_else(|| between(b"crun-", b".scope")).or_else(|| between(b"runc-", b".scope"))
    };
    // systemd writes `\x2d` for what would mean something in a unit's name.
    name.or_else(|| Some(unescaped(unit()?, b"\\x", 2, 16))).filter(|name| !name.is_empty())
}

fn is_unit(part: &[u8]) -> bool {
    const SUFFIXES: [&[u8]; 4] = [b".service", b".slice", b".scope", b".mount"];
    const INNER: [&[u8]; 3] = [b"container", b"payload", b"supervisor"];
    SUFFIXES.iter().any(|suffix| part.ends_with(suffix)) || INNER.contains(&part)
}
