//! Frames of the kernel: its own code, modules, BPF programs.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use super::code::{Code, ModuleKind, NO_NAME};
use super::survey::Generated;
use crate::symbols::{GeneratedCode, Kallsyms};
use crate::wire::u32_at;

const NT_GNU_BUILD_ID: u32 = 3;
/// The kernel's image is mapped in one piece of at most 1 GiB.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// What is known of the kernel that was recorded.
pub struct Kernel {
    kallsyms: Kallsyms,
    build_id: Option<Vec<u8>>,
    /// `kallsyms`, or why there are no names.
    symbols: String,
    /// The frames that were made, by what was looked up.
    frames: BTreeMap<(u64, bool), u32>,
}

impl Kernel {
    /// Reads the running kernel's symbols, provided that it is the one that was recorded.
    pub fn read(recorded_boot_id: &str) -> Self {
        if recorded_boot_id != boot_id() {
            return Self::without_names("rebooted since the recording");
        }
        let build_id = fs::read("/sys/kernel/notes").ok().and_then(|notes| build_id_of(&notes));
        let (kallsyms, symbols) = match Kallsyms::read() {
            Ok(kallsyms) if kallsyms.restricted() => {
                (Kallsyms::default(), "none: kptr_restrict hides kernel addresses".to_string())
            }
            Ok(kallsyms) => (kallsyms, "kallsyms".to_string()),
            Err(error) => {
                (Kallsyms::default(), format!("none: /proc/kallsyms: {}", crate::error::describe(&error)))
            }
        };
        Self { kallsyms, build_id, symbols, frames: BTreeMap::new() }
    }

    fn without_names(reason: &str) -> Self {
        let kallsyms = Kallsyms::default();
        Self { kallsyms, build_id: None, symbols: format!("none: {reason}"), frames: BTreeMap::new() }
    }

    pub fn add_generated(&mut self, generated: &[Generated]) {
        let mut came = HashSet::new();
        for code in generated {
            let kind = match code.name.starts_with(b"bpf") {
                true => GeneratedCode::Bpf,
                false => GeneratedCode::OutOfLine,
            };
            let len = u64::from(code.len);
            if !code.gone {
                came.insert(code.start);
                self.kallsyms.insert(code.ts_ns, kind, code.start, len, &code.name);
                continue;
            }
            if !came.remove(&code.start) {
                // It was there before anybody looked.
                self.kallsyms.insert(0, kind, code.start, len, &code.name);
            }
            self.kallsyms.remove(code.ts_ns, code.start);
        }
    }

    /// Generated code came or went.  True when addresses that were seen may mean something else now.
    pub fn changed(&mut self, start: u64, len: u32) -> bool {
        let range = (start, false)..=(start.saturating_add(u64::from(len)), true);
        let stale: Vec<(u64, bool)> = self.frames.range(range).map(|(&key, _)| key).collect();
        for key in &stale {
            self.frames.remove(key);
        }
        !stale.is_empty()
    }

    pub fn frame(&mut self, code: &mut Code, ts_ns: u64, address: u64, is_return: bool) -> u32 {
        if let Some(&frame) = self.frames.get(&(address, is_return)) {
            return frame;
        }
        let frame = self.new_frame(code, ts_ns, address, is_return);
        self.frames.insert((address, is_return), frame);
        frame
    }

    fn new_frame(&self, code: &mut Code, ts_ns: u64, address: u64, is_return: bool) -> u32 {
        let offset = address.wrapping_sub(self.kallsyms.text_start());
        let symbol = self.kallsyms.lookup(address.wrapping_sub(u64::from(is_return)), ts_ns);
        let name = symbol.as_ref().map_or(NO_NAME, |symbol| code.names.mangled(&symbol.name));
        match symbol.as_ref().and_then(|symbol| symbol.module) {
            Some("bpf") => {
                let module = code.named_module("[bpf]", ModuleKind::Bpf, "kallsyms");
                code.frame(module, address, is_return, name)
            }
            Some(module) => {
                let module =
                    code.named_module(&format!("[{module}]"), ModuleKind::KernelModule, &self.symbols);
                code.frame(module, address, is_return, name)
            }
            None if symbol.is_some() && offset >= MAX_IMAGE_BYTES => {
                // ftrace trampolines, slots of kprobes.
                let module = code.named_module("[generated]", ModuleKind::KernelModule, &self.symbols);
                code.frame(module, address, is_return, name)
            }
            None => {
                let build_id = self.build_id.clone();
                let module =
                    code.named_module_with_id("[kernel]", build_id, ModuleKind::Kernel, &self.symbols);
                code.frame(module, offset, is_return, name)
            }
        }
    }
}

/// /proc/sys/kernel/random/boot_id
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// Walks ELF notes, `{u32 name_size, desc_size, type; name; desc}`, both padded to 4 bytes.
fn build_id_of(notes: &[u8]) -> Option<Vec<u8>> {
    let mut notes = notes;
    while notes.len() >= 12 {
        let (name_size, desc_size) = (u32_at(notes, 0) as usize, u32_at(notes, 4) as usize);
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        let desc_start = 12 + name_size.next_multiple_of(4);
        let desc = notes.get(desc_start..desc_start.checked_add(desc_size)?)?;
        if u32_at(notes, 8) == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(desc.to_vec());
        }
        notes = notes.get(desc_start + desc_size.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let mut notes = Vec::new();
        for (kind, name, desc) in [(6u32, &b"Linux\0"[..], &[0u8][..]), (3, b"GNU\0", &[1, 2, 3, 4, 5])] {
            notes.extend((name.len() as u32).to_ne_bytes());
            notes.extend((desc.len() as u32).to_ne_bytes());
            notes.extend(kind.to_ne_bytes());
            notes.extend(name);
            notes.resize(notes.len().next_multiple_of(4), 0);
            notes.extend(desc);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id_of(&notes), Some(vec![1, 2, 3, 4, 5]));
        for len in 0..notes.len() - 3 {
            assert_eq!(build_id_of(&notes[..len]), None);
        }
    }

    #[test]
    fn another_boot_has_no_names() {
        let mut kernel = Kernel::read("another");
        let mut code = Code::default();
        let frame = kernel.frame(&mut code, 1, 0xffff_ffff_8100_0010, false);
        let frame = &code.frames[frame as usize];
        assert_eq!((frame.address, frame.name), (0xffff_ffff_8100_0010, NO_NAME));
        assert_eq!(code.modules[0].symbols, "none: rebooted since the recording");
    }
}
