//! Modules and frames: what an address means, independent of where it was mapped.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::symbols;

type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// Index into [`Names`] of frames that have no name (yet).
pub const NO_NAME: u32 = u32::MAX;

/// What sort of code a module holds; the names are those of the `modules` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    Kernel,
    KernelModule,
    Bpf,
    Elf,
    Vdso,
    Jit,
    Anon,
    Unknown,
}

impl ModuleKind {
    const ALL: [Self; 8] = [
        Self::Kernel,
        Self::KernelModule,
        Self::Bpf,
        Self::Elf,
        Self::Vdso,
        Self::Jit,
        Self::Anon,
        Self::Unknown,
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::KernelModule => "kernel_module",
            Self::Bpf => "bpf",
            Self::Elf => "elf",
            Self::Vdso => "vdso",
            Self::Jit => "jit",
            Self::Anon => "anon",
            Self::Unknown => "unknown",
        }
    }
}

/// A row of the `modules` table.
pub struct Module {
    pub path: String,
    pub build_id: Option<Vec<u8>>,
    pub kind: ModuleKind,
    pub symbols: String,
    /// Where symbols that the file itself lacks, inlined calls and lines came from.
    pub debug_file: Option<String>,
    /// The mapped file, for modules whose frames get their names at the end.
    pub file: Option<u32>,
    /// Equal on every host for the same code.
    identity: u64,
}

/// One address in a module.
pub struct Frame {
    pub module: u32,
    pub address: u64,
    /// The address lies after a call: the name is that of the byte before it.
    pub is_return: bool,
    /// Index into [`Code::names`].
    pub name: u32,
    /// The address as linked, where it is known.
    pub linked: Option<u64>,
    pub source: Source,
    /// Equal on every host for the same place in the same code.
    pub identity: u64,
}

/// A place in a source file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Code::source_files`].
    pub file: u32,
    /// 0: not known.
    pub line: u32,
}

impl Source {
    pub const UNKNOWN: Self = Self { file: NO_NAME, line: 0 };
}

/// A call that the compiler inlined at the address of a frame.
pub struct InlinedCall {
    pub frame: u32,
    pub name: u32,
    pub source: Source,
}

/// Names, each kept once.
#[derive(Default)]
pub struct Names {
    names: Vec<Name>,
    ids: FastMap<Box<str>, u32>,
}

struct Name {
    symbol: Box<str>,
    /// None: the same as the symbol.
    function: Option<Box<str>>,
}

impl Names {
    /// A name that stands for itself.
    pub fn plain(&mut self, symbol: &str) -> u32 {
        self.add(symbol, |_| None)
    }

    /// A name as in a symbol table.
    pub fn mangled(&mut self, symbol: &str) -> u32 {
        self.add(symbol, |symbol| {
            let function = symbols::demangle(symbol);
            (function != symbol).then(|| function.into_owned().into_boxed_str())
        })
    }

    /// A name as in a symbol table, with its readable form.
    pub fn pair(&mut self, symbol: &str, function: &str) -> u32 {
        self.add(symbol, |symbol| (function != symbol).then(|| function.into()))
    }

    pub fn symbol(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(|name| &*name.symbol)
    }

    pub fn function(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(|name| name.function.as_deref().unwrap_or(&name.symbol))
    }

    /// Adds all of `other`; returns the ID that each has here, by the one that it has there.
    pub fn merge(&mut self, other: &Names) -> Vec<u32> {
        let readable = |name: &Name| name.function.clone();
        other.names.iter().map(|name| self.add(&name.symbol, |_| readable(name))).collect()
    }

    /// Their ids are those below.
    pub fn len(&self) -> u32 {
        self.names.len() as u32
    }

    fn add(&mut self, symbol: &str, function: impl FnOnce(&str) -> Option<Box<str>>) -> u32 {
        if let Some(&id) = self.ids.get(symbol) {
            return id;
        }
        let id = self.names.len() as u32;
        self.names.push(Name { symbol: symbol.into(), function: function(symbol) });
        self.ids.insert(symbol.into(), id);
        id
    }
}

/// All modules, frames and names that samples refer to.
#[derive(Default)]
pub struct Code {
    pub modules: Vec<Module>,
    pub frames: Vec<Frame>,
    /// By frame; of one frame, that which the function itself called comes first.
    pub inlined: Vec<InlinedCall>,
    pub names: Names,
    pub source_files: Names,
    modules_by_name: FastMap<(String, ModuleKind), u32>,
    identities: FastMap<u64, ()>,
    frames_by_place: FastMap<(u32, u64, bool, u32), u32>,
}

impl Code {
    /// The module of this name that no file backs; `symbols` counts when it is new.
    pub fn named_module(&mut self, path: &str, kind: ModuleKind, symbols: &str) -> u32 {
        self.named_module_with_id(path, None, kind, symbols)
    }

    pub fn named_module_with_id(
        &mut self,
        path: &str,
        build_id: Option<Vec<u8>>,
        kind: ModuleKind,
        symbols: &str,
    ) -> u32 {
        let key = (path.to_string(), kind);
        if let Some(&module) = self.modules_by_name.get(&key) {
            return module;
        }
        let module = self.add_module(path.to_string(), build_id, kind, symbols.to_string(), None);
        self.modules_by_name.insert(key, module);
        module
    }

    /// A new module.  `file`: the mapped file that its names come from at the end.
    pub fn add_module(
        &mut self,
        path: String,
        build_id: Option<Vec<u8>>,
        kind: ModuleKind,
        symbols: String,
        file: Option<u32>,
    ) -> u32 {
        let mut identity = xxh3_64(build_id.as_deref().unwrap_or(path.as_bytes()));
        // Files of one name but different content, which no build-id tells apart, must not share
        // stacks: the later ones have identities of this recording only.
        while build_id.is_none() && self.identities.contains_key(&identity) {
            identity = identity.wrapping_add(1);
        }
        self.identities.insert(identity, ());
        self.modules.push(Module { path, build_id, kind, symbols, debug_file: None, file, identity });
        self.modules.len() as u32 - 1
    }

    /// The frame at this place; `name` is [`NO_NAME`] for those that get it at the end.
    pub fn frame(&mut self, module: u32, address: u64, is_return: bool, name: u32) -> u32 {
        let place = (module, address, is_return, name);
        if let Some(&frame) = self.frames_by_place.get(&place) {
            return frame;
        }
        let identity = self.identity(module, address, is_return, name);
        let frame = self.frames.len() as u32;
        self.frames.push(Frame {
            module,
            address,
            is_return,
            name,
            linked: None,
            source: Source::UNKNOWN,
            identity,
        });
        self.frames_by_place.insert(place, frame);
        frame
    }

    /// A frame as the table of a recording has it.
    pub fn add_frame(
        &mut self,
        module: u32,
        address: u64,
        is_return: bool,
        name: u32,
        linked: Option<u64>,
        source: Source,
    ) {
        let identity = self.identity(module, address, is_return, name);
        self.frames.push(Frame { module, address, is_return, name, linked, source, identity });
    }

    fn identity(&self, module: u32, address: u64, is_return: bool, name: u32) -> u64 {
        let module = &self.modules[module as usize];
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&module.identity.to_le_bytes());
        bytes[8..16].copy_from_slice(&address.to_le_bytes());
        bytes[16] = u8::from(is_return);
        // Generated code comes and goes: one address may have had several names.
        if matches!(module.kind, ModuleKind::Bpf | ModuleKind::KernelModule | ModuleKind::Jit) {
            let name = xxh3_64(self.names.symbol(name).unwrap_or_default().as_bytes());
            bytes[17..].copy_from_slice(&name.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}
