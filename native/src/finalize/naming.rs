//! Names the frames in files, at the end: each file is opened and read once.

use std::collections::HashMap;

use rayon::prelude::*;

use super::FileStore;
use super::address_space::Files;
use super::code::{Code, Frame};
use super::mapped::{function_at, open_file};
use crate::symbols::{self, ElfSymbols};

/// What became of one module.
struct Named {
    module: u32,
    symbols: String,
    /// Symbol and readable name.
    names: Vec<(String, String)>,
    /// Frame, and index in `names`.
    frames: Vec<(u32, u32)>,
}

/// Looks up every frame that lies in a file.  A symbol table is in memory only while its module is
/// being named.
pub fn name_frames(code: &mut Code, files: &Files, store: &dyn FileStore) {
    let mut by_module: HashMap<u32, Vec<u32>> = HashMap::new();
    for (index, frame) in code.frames.iter().enumerate() {
        if code.modules[frame.module as usize].file.is_some() {
            by_module.entry(frame.module).or_default().push(index as u32);
        }
    }
    let mut work: Vec<(u32, Vec<u32>)> = by_module.into_iter().collect();
    work.sort_unstable_by_key(|(module, _)| *module);
    let named: Vec<Named> = work
        .into_par_iter()
        .map(|(module, frames)| name_module(code, files, store, module, &frames))
        .collect();
    for module in named {
        let ids: Vec<u32> =
            module.names.iter().map(|(symbol, function)| code.names.pair(symbol, function)).collect();
        for (frame, name) in module.frames {
            code.frames[frame as usize].name = ids[name as usize];
        }
        code.modules[module.module as usize].symbols = module.symbols;
    }
}

fn name_module(code: &Code, files: &Files, store: &dyn FileStore, module: u32, frames: &[u32]) -> Named {
    let mut named = Named { module, symbols: String::new(), names: Vec::new(), frames: Vec::new() };
    let symbols = match load(code, files, store, module) {
        Ok(symbols) => symbols,
        Err(reason) => {
            named.symbols = format!("none: {reason}");
            return named;
        }
    };
    named.symbols = symbols.source().to_string();
    let mut ids: HashMap<String, u32> = HashMap::new();
    for &index in frames {
        let Frame { address, is_return, .. } = code.frames[index as usize];
        let Some(symbol) = function_at(&symbols, address, is_return) else { continue };
        let name = *ids.entry(symbol).or_insert_with_key(|symbol| {
            named.names.push((symbol.clone(), symbols::demangle(symbol).into_owned()));
            named.names.len() as u32 - 1
        });
        named.frames.push((index, name));
    }
    named
}

fn load(code: &Code, files: &Files, store: &dyn FileStore, module: u32) -> Result<ElfSymbols, String> {
    let module = &code.modules[module as usize];
    let file = files.get(module.file.ok_or("file is gone")?);
    let symbols = ElfSymbols::load(&open_file(store, file)?).map_err(|error| error.to_string())?;
    if module.build_id.as_deref() != symbols.build_id() {
        return Err("file changed".to_string());
    }
    Ok(symbols)
}
