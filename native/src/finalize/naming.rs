//! Names the frames in files, at the end: each file is opened and read once.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;

use super::code::{Code, InlinedCall, ModuleKind, NO_NAME, Names, Source};
use super::mapped::address_of_call;
use crate::symbols::{self, CodeNames, KnownCalls, SourceCall};

/// What became of one module.
struct Named {
    module: u32,
    symbols: String,
    debug_file: Option<String>,
    names: Names,
    source_files: Names,
    frames: Vec<NamedFrame>,
}

/// What became of one frame.
struct NamedFrame {
    frame: u32,
    linked: Option<u64>,
    function: Call,
    /// The one that the function itself called comes first.
    inlined: Vec<Call>,
}

/// Indices into the module's own names and files.
#[derive(Default)]
struct Call {
    name: Option<u32>,
    file: Option<u32>,
    line: Option<u32>,
}

/// Names every frame that lies in a file.  `load` gives the names of a module, or why there are none, or
/// None to leave it as it is; they are in memory only while the module's frames are being named.
pub fn name_frames(code: &mut Code, load: impl Fn(&Code, u32) -> Option<Result<CodeNames, String>> + Sync) {
    let mut by_module: HashMap<u32, Vec<u32>> = HashMap::new();
    for (index, frame) in code.frames.iter().enumerate() {
        if code.modules[frame.module as usize].kind == ModuleKind::Elf {
            by_module.entry(frame.module).or_default().push(index as u32);
        }
    }
    let mut work: Vec<(u32, Vec<u32>)> = by_module.into_iter().collect();
    // The largest ones first: the others fit in beside them.
    work.sort_unstable_by_key(|(module, frames)| (std::cmp::Reverse(frames.len()), *module));
    let (whole, known) = (&*code, KnownCalls::open());
    let mut named: Vec<Named> = work
        .into_par_iter()
        .with_max_len(1)
        .filter_map(|(module, frames)| match load(whole, module)? {
            Ok(names) => Some(name_module(whole, module, frames, &names, &known)),
            Err(reason) => Some(Named::none(module, &reason)),
        })
        .collect();
    named.sort_unstable_by_key(|named| named.module);
    named.into_iter().for_each(|named| named.put_into(code));
    code.inlined.sort_by_key(|call| call.frame);
}

fn name_module(
    code: &Code,
    module: u32,
    mut frames: Vec<u32>,
    names: &CodeNames,
    known: &KnownCalls,
) -> Named {
    let mut named = Named::none(module, "");
    named.symbols = names.symbols().to_string();
    named.debug_file = names.debug_file().map(|path| symbols::decode(path_bytes(path)).into_owned());
    let place = |&frame: &u32| -> (u32, Option<u64>, Option<u64>) {
        let frame_row = &code.frames[frame as usize];
        let before = u64::from(frame_row.is_return);
        let of_file = || names.address_of(frame_row.address.checked_sub(before)?)?.checked_add(before);
        let linked = of_file().or(frame_row.linked);
        let symbol_at = |address| names.symbol_at(address);
        (frame, linked, linked.and_then(|linked| address_of_call(linked, frame_row.is_return, symbol_at)))
    };
    // Neighbours in the file share what has to be read for them.
    frames.sort_unstable_by_key(|&frame| code.frames[frame as usize].address);
    let places: Vec<_> = frames.iter().map(place).collect();
    let addresses: Vec<u64> = places.iter().filter_map(|&(.., address)| address).collect();
    let mut calls = names.calls(&addresses, known).into_iter();
    for (frame, linked, address) in places {
        let calls = if address.is_some() { calls.next().unwrap_or_default() } else { Vec::new() };
        let symbol = address.and_then(|address| names.symbol_at(address));
        let symbol = symbol.map(|symbol| symbol.name.into_owned());
        named.add(frame, linked, symbol, calls);
    }
    named
}

impl Named {
    fn none(module: u32, reason: &str) -> Self {
        Self {
            module,
            symbols: format!("none: {reason}"),
            debug_file: None,
            names: Names::default(),
            source_files: Names::default(),
            frames: Vec::new(),
        }
    }

    /// `calls`: innermost first, the function itself last.  The symbol's name goes before that of the
    /// debug information, which does not know parts that the compiler has split off.
    fn add(&mut self, frame: u32, linked: Option<u64>, symbol: Option<String>, mut calls: Vec<SourceCall>) {
        let mut function = self.call(calls.pop().unwrap_or_default());
        if let Some(symbol) = symbol {
            function.name = Some(self.names.mangled(&symbol));
        }
        let inlined = calls.into_iter().rev().map(|call| self.call(call)).collect();
        self.frames.push(NamedFrame { frame, linked, function, inlined });
    }

    fn call(&mut self, call: SourceCall) -> Call {
        let file = call.file.map(|file| self.source_files.plain(&file));
        Call { name: call.function.map(|name| self.names.mangled(&name)), file, line: call.line }
    }

    fn put_into(self, code: &mut Code) {
        let Code { names, source_files, modules, frames, inlined, .. } = code;
        let (name_ids, file_ids) = (names.merge(&self.names), source_files.merge(&self.source_files));
        let resolve = |call: Call| {
            let id_in = |ids: &[u32], id: Option<u32>| id.map_or(NO_NAME, |id| ids[id as usize]);
            let source = Source { file: id_in(&file_ids, call.file), line: call.line.unwrap_or(0) };
            (id_in(&name_ids, call.name), source)
        };
        let renamed: HashSet<u32> =
            self.frames.iter().filter(|f| !f.inlined.is_empty()).map(|f| f.frame).collect();
        inlined.retain(|call| !renamed.contains(&call.frame));
        for named in self.frames {
            let frame = &mut frames[named.frame as usize];
            let (name, source) = resolve(named.function);
            // What was known before is worth more than nothing.
            frame.name = if name == NO_NAME { frame.name } else { name };
            frame.source = if source.line == 0 { frame.source } else { source };
            frame.linked = named.linked;
            inlined.extend(named.inlined.into_iter().map(|call| {
                let (name, source) = resolve(call);
                InlinedCall { frame: named.frame, name, source }
            }));
        }
        let module = &mut modules[self.module as usize];
        (module.symbols, module.debug_file) = (self.symbols, self.debug_file);
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
