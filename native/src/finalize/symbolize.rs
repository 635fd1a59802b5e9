//! Names the frames of a finished recording once more, with files that were not there before.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::code::{Code, InlinedCall, Module, ModuleKind, NO_NAME, Source};
use super::mapped::open_here;
use super::{naming, tables};
use crate::error::{Error, Kind, Result, describe};
use crate::symbols::{CodeFile, CodeNames, DebugDirs};
use crate::wire::MappedFile;

/// Writes `frames` and `modules` anew; what cannot be named better stays as it is.
///
/// Returns how long the naming took, and, before and after: how many frames there are, how many of
/// them have a name and a source line, and how many calls were inlined.
///
/// # Errors
/// `recording`: a table is damaged.  `capture`: they cannot be written; nothing has changed then.
pub fn symbolize(recording: &Path, debug_dirs: Vec<PathBuf>) -> Result<Value> {
    let mut code = read_code(&recording.join("tables"))?;
    let before = counts(&code);
    let dirs = DebugDirs::usual(debug_dirs);
    let started = Instant::now();
    naming::name_frames(&mut code, |code, module| {
        let module = &code.modules[module as usize];
        module.build_id.as_ref()?;
        names_of(module, &dirs).ok().map(Ok)
    });
    let naming_ns = started.elapsed().as_nanos() as u64;
    write_code(recording, &code)?;
    Ok(json!({ "before": before, "after": counts(&code), "naming_ns": naming_ns }))
}

fn names_of(module: &Module, dirs: &DebugDirs) -> std::result::Result<CodeNames, String> {
    let mapped = MappedFile { path: module.path.clone(), build_id: module.build_id.clone(), inode: None };
    let here = open_here(&mapped);
    let named = || Some(dirs.find_code(module.build_id.as_deref()?)?.file);
    let file = here.or_else(|reason| named().ok_or(reason));
    let file = file.as_ref().map_err(|&reason| reason);
    let code = CodeFile { file, path: Path::new(&module.path), build_id: module.build_id.as_deref() };
    CodeNames::load(&code, dirs)
}

fn counts(code: &Code) -> Value {
    let named = code.frames.iter().filter(|frame| frame.name != NO_NAME).count();
    let with_line = code.frames.iter().filter(|frame| frame.source.line > 0).count();
    json!({
        "frames": code.frames.len(),
        "named": named,
        "with_line": with_line,
        "inlined_calls": code.inlined.len(),
    })
}

/// The new files take the place of the old ones when both are complete.
fn write_code(recording: &Path, code: &Code) -> Result<()> {
    let meta_path = recording.join("meta.json");
    let mut meta: Value = fs::read(&meta_path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| damaged(&meta_path, "it is no JSON"))?;
    let work = recording.join(format!(".symbolize-{}", std::process::id()));
    fs::create_dir(&work).map_err(|e| Error::io(format!("cannot create '{}'", work.display()), &e))?;
    let written = write_files(recording, &work, code, &mut meta);
    // There is nothing left to do about a directory that cannot be removed.
    let _ = fs::remove_dir_all(&work);
    written
}

fn write_files(recording: &Path, work: &Path, code: &Code, meta: &mut Value) -> Result<()> {
    meta["rows"]["frames"] = json!(tables::write_frames(work, code)?);
    meta["rows"]["modules"] = json!(tables::write_modules(work, code)?);
    let text = serde_json::to_vec_pretty(&meta).expect("JSON values become text");
    let failed = |path: &Path, e: &std::io::Error| Error::io(format!("cannot write '{}'", path.display()), e);
    fs::write(work.join("meta.json"), text).map_err(|e| failed(&recording.join("meta.json"), &e))?;
    for name in ["tables/frames.parquet", "tables/modules.parquet", "meta.json"] {
        let to = recording.join(name);
        let from = work.join(to.file_name().expect("a file's path"));
        let owner = fs::metadata(&to).map_err(|e| failed(&to, &e))?;
        adopt(&from, &owner).and_then(|()| fs::rename(&from, &to)).map_err(|e| failed(&to, &e))?;
    }
    Ok(())
}

/// A recording stays its owner's when root names its frames.
fn adopt(path: &Path, owner: &fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    fs::set_permissions(path, owner.permissions())?;
    let ours = fs::metadata(path)?;
    if (ours.uid(), ours.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn read_code(dir: &Path) -> Result<Code> {
    let mut code = Code::default();
    read_table(&dir.join("modules.parquet"), |batch| read_modules(batch, &mut code))?;
    // Rows of inlined calls follow those that they lie in.
    let mut rows = HashMap::new();
    read_table(&dir.join("frames.parquet"), |batch| read_frames(batch, &mut code, &mut rows))?;
    Ok(code)
}

fn read_table(path: &Path, mut read: impl FnMut(&RecordBatch) -> Option<()>) -> Result<()> {
    let file = File::open(path).map_err(|e| damaged(path, &describe(&e)))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    for batch in reader.map_err(|e| damaged(path, &e.to_string()))? {
        let batch = batch.map_err(|e| damaged(path, &e.to_string()))?;
        read(&batch).ok_or_else(|| damaged(path, "a column is missing or makes no sense"))?;
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Recording, format!("cannot read '{}': {reason}", path.display()))
}

fn read_modules(batch: &RecordBatch, code: &mut Code) -> Option<()> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (paths, build_ids, kinds, symbols) =
        (text("path")?, text("build_id")?, text("kind")?, text("symbols")?);
    let debug_files = text("debug_file");
    for row in 0..batch.num_rows() {
        let build_id = if build_ids.is_valid(row) { Some(from_hex(build_ids.value(row))?) } else { None };
        let kind = ModuleKind::from_name(kinds.value(row))?;
        let id = code.add_module(
            paths.value(row).to_string(),
            build_id,
            kind,
            symbols.value(row).to_string(),
            None,
        );
        let debug_file = debug_files.filter(|column| column.is_valid(row));
        code.modules[id as usize].debug_file = debug_file.map(|column| column.value(row).to_string());
    }
    Some(())
}

/// `rows`: of each inlined call's row, the frame whose address it has.
fn read_frames(batch: &RecordBatch, code: &mut Code, rows: &mut HashMap<u32, u32>) -> Option<()> {
    let column = |name: &str| batch.column_by_name(name);
    let text = |name: &str| column(name)?.as_string_opt::<i32>();
    let number = |name: &str| column(name)?.as_primitive_opt::<UInt32Type>();
    let wide = |name: &str| column(name)?.as_primitive_opt::<UInt64Type>();
    let (ids, modules, addresses) = (number("frame_id")?, number("module_id")?, wide("address")?);
    let (is_return, linked) = (column("is_return").and_then(|c| c.as_boolean_opt()), wide("linked_address"));
    let (functions, symbols, files) = (text("function")?, text("symbol")?, text("file")?);
    let (lines, inlined_in) = (number("line")?, number("inlined_in")?);
    for row in 0..batch.num_rows() {
        let name = match symbols.is_valid(row) && functions.is_valid(row) {
            true => code.names.pair(symbols.value(row), functions.value(row)),
            false => NO_NAME,
        };
        let file = if files.is_valid(row) { code.source_files.plain(files.value(row)) } else { NO_NAME };
        let source = Source { file, line: if lines.is_valid(row) { lines.value(row) } else { 0 } };
        if inlined_in.is_valid(row) {
            let outer = inlined_in.value(row);
            let frame = rows.get(&outer).copied().unwrap_or(outer);
            rows.insert(ids.value(row), frame);
            code.inlined.push(InlinedCall { frame, name, source });
            continue;
        }
        let module = modules.value(row);
        code.modules.get(module as usize)?;
        let is_return = is_return.is_some_and(|column| column.value(row));
        let linked = linked.filter(|column| column.is_valid(row)).map(|column| column.value(row));
        code.add_frame(module, addresses.value(row), is_return, name, linked, source);
    }
    let frames = code.frames.len() as u32;
    code.inlined.iter().all(|call| call.frame < frames).then_some(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}
