//! Writes the tables; sberf/recording/schema.py describes them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::types::{UInt8Type, UInt32Type};
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::code::{Code, InlinedCall, NO_NAME, Names};
use super::processes::{Process, Thread};
use super::stacks::{StackRows, end_name};
use super::survey::Containers;
use crate::error::{Error, Kind, Result, describe};
use crate::symbols;
use crate::wire::STACK_ENDS;

/// Rows of a row group of `samples`: small enough for readers to share a million samples among
/// their threads, large enough for dictionaries to pay.
pub const SAMPLES_IN_GROUP: usize = 1 << 18;
const ZSTD_LEVEL: i32 = 1;
/// A group's distinct stacks must fit, else the column loses its dictionary.
const DICTIONARY_BYTES: usize = 4 << 20;

/// Samples that wait to be written, as columns.
pub struct SampleRows {
    pub ts_ns: Vec<i64>,
    pub cpu: Vec<u16>,
    pub thread_id: Vec<u32>,
    /// Index into the sources.
    pub event: Vec<u8>,
    pub stack_id: Vec<u64>,
    pub weight: Vec<u64>,
}

impl SampleRows {
    pub fn new() -> Self {
        let len = SAMPLES_IN_GROUP;
        Self {
            ts_ns: Vec::with_capacity(len),
            cpu: Vec::with_capacity(len),
            thread_id: Vec::with_capacity(len),
            event: Vec::with_capacity(len),
            stack_id: Vec::with_capacity(len),
            weight: Vec::with_capacity(len),
        }
    }

    pub fn len(&self) -> usize {
        self.ts_ns.len()
    }

    /// Puts the rows in the order of time.
    pub fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|&row| self.ts_ns[row as usize]);
        permute(&mut self.ts_ns, &order);
        permute(&mut self.cpu, &order);
        permute(&mut self.thread_id, &order);
        permute(&mut self.event, &order);
        permute(&mut self.stack_id, &order);
        permute(&mut self.weight, &order);
    }
}

fn permute<T: Copy>(column: &mut Vec<T>, order: &[u32]) {
    *column = order.iter().map(|&row| column[row as usize]).collect();
}

/// What is written while the spool is still being read.
pub enum Rows {
    Samples(SampleRows),
    Stacks(StackRows),
}

/// One table's file.
struct Table {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<File>,
    rows: u64,
}

impl Table {
    fn create(dir: &Path, name: &str, fields: Vec<Field>, properties: WriterProperties) -> Result<Self> {
        let path = dir.join(format!("{name}.parquet"));
        let schema = Arc::new(Schema::new(fields));
        let file = File::create_new(&path).map_err(|e| write_error(&path, &describe(&e)))?;
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options)
            .map_err(|e| write_error(&path, &parquet_reason(e)))?;
        Ok(Self { path, schema, writer, rows: 0 })
    }

    fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("columns follow the schema");
        self.rows += batch.num_rows() as u64;
        self.writer.write(&batch).map_err(|e| write_error(&self.path, &parquet_reason(e)))
    }

    fn finish(self) -> Result<u64> {
        self.writer.close().map_err(|e| write_error(&self.path, &parquet_reason(e)))?;
        Ok(self.rows)
    }
}

fn write_error(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Capture, format!("cannot write '{}': {reason}", path.display()))
}

fn parquet_reason(error: ParquetError) -> String {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => describe(&error),
            Err(other) => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn properties() -> parquet::file::properties::WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("a valid level")))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_created_by(concat!("sberf ", env!("CARGO_PKG_VERSION")).to_string())
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// Writes `samples` and `stacks` as their rows come; returns how many there were of each.
pub fn write_rows(dir: &Path, events: &[String], rows: &Receiver<Rows>) -> Result<(u64, u64)> {
    let mut samples = samples_table(dir)?;
    let mut stacks = stacks_table(dir)?;
    let events: ArrayRef = Arc::new(StringArray::from_iter_values(events));
    for rows in rows {
        match rows {
            Rows::Samples(rows) => samples.write(sample_columns(rows, &events))?,
            Rows::Stacks(rows) => stacks.write(stack_columns(&rows))?,
        }
    }
    Ok((samples.finish()?, stacks.finish()?))
}

fn samples_table(dir: &Path) -> Result<Table> {
    let properties = properties()
        .set_max_row_group_row_count(Some(SAMPLES_IN_GROUP))
        .set_column_encoding(ColumnPath::from("ts_ns"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(ColumnPath::from("ts_ns"), false);
    let event = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
    let fields = vec![
        field("ts_ns", DataType::Int64),
        field("cpu", DataType::UInt16),
        field("thread_id", DataType::UInt32),
        field("event", event),
        field("stack_id", DataType::UInt64),
        field("weight", DataType::UInt64),
    ];
    Table::create(dir, "samples", fields, properties.build())
}

fn sample_columns(rows: SampleRows, events: &ArrayRef) -> Vec<ArrayRef> {
    let keys = UInt8Array::from(rows.event);
    vec![
        Arc::new(Int64Array::from(rows.ts_ns)),
        Arc::new(UInt16Array::from(rows.cpu)),
        Arc::new(UInt32Array::from(rows.thread_id)),
        Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, Arc::clone(events)).expect("keys are sources")),
        Arc::new(UInt64Array::from(rows.stack_id)),
        Arc::new(UInt64Array::from(rows.weight)),
    ]
}

fn stacks_table(dir: &Path) -> Result<Table> {
    let end = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
    let fields = vec![
        field("stack_id", DataType::UInt64),
        field("frame_ids", DataType::List(Arc::new(field("element", DataType::UInt32)))),
        field("end", end),
    ];
    let properties = properties()
        // Each is there once.
        .set_column_dictionary_enabled(ColumnPath::from("stack_id"), false)
        .set_column_encoding(ColumnPath::from("stack_id"), Encoding::PLAIN);
    Table::create(dir, "stacks", fields, properties.build())
}

fn stack_columns(rows: &StackRows) -> Vec<ArrayRef> {
    let values = UInt32Builder::with_capacity(rows.frames.len());
    let mut lists =
        ListBuilder::with_capacity(values, rows.ids.len()).with_field(field("element", DataType::UInt32));
    let mut frames = rows.frames.as_slice();
    for &len in &rows.lens {
        let (stack, rest) = frames.split_at(len as usize);
        lists.values().append_slice(stack);
        lists.append(true);
        frames = rest;
    }
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..=STACK_ENDS.len() as u8).map(end_name)));
    let ends = UInt8Array::from(rows.ends.clone());
    vec![
        Arc::new(UInt64Array::from(rows.ids.clone())),
        Arc::new(lists.finish()),
        Arc::new(DictionaryArray::<UInt8Type>::try_new(ends, names).expect("ends are named")),
    ]
}

/// Writes `processes`: the rows of `kept`, in that order; `keys` gives the key of each.
pub fn write_processes(
    dir: &Path,
    rows: &[Process],
    kept: &[u32],
    keys: &[Option<u32>],
    containers: &Containers,
) -> Result<u64> {
    let text = || DataType::Utf8;
    let fields = vec![
        field("process_id", DataType::UInt32),
        field("pid", DataType::Int32),
        nullable("ns_pid", DataType::Int32),
        nullable("parent_process_id", DataType::UInt32),
        nullable("exec_from_process_id", DataType::UInt32),
        nullable("uid", DataType::UInt32),
        field("comm", text()),
        nullable("exe", text()),
        nullable("cmdline", text()),
        nullable("container", text()),
        nullable("container_name", text()),
        nullable("start_ns", DataType::Int64),
        nullable("end_ns", DataType::Int64),
        nullable("exit_code", DataType::Int32),
    ];
    let mut table = Table::create(dir, "processes", fields, properties().build())?;
    let all = || kept.iter().map(|&row| &rows[row as usize]);
    let key_of = |row: Option<u32>| row.and_then(|row| keys[row as usize]);
    table.write(vec![
        Arc::new(UInt32Array::from_iter_values(0..kept.len() as u32)),
        Arc::new(Int32Array::from_iter_values(all().map(|p| p.pid))),
        Arc::new(Int32Array::from_iter(all().map(|p| p.ns_pid))),
        Arc::new(UInt32Array::from_iter(all().map(|p| key_of(p.parent)))),
        Arc::new(UInt32Array::from_iter(all().map(|p| key_of(p.exec_from)))),
        Arc::new(UInt32Array::from_iter(all().map(|p| p.uid))),
        Arc::new(StringArray::from_iter_values(all().map(|p| comm(&p.comm)))),
        Arc::new(StringArray::from_iter(all().map(|p| p.exe.as_deref()))),
        Arc::new(StringArray::from_iter(all().map(|p| p.cmdline.as_deref()))),
        Arc::new(StringArray::from_iter(all().map(|p| p.container.as_deref()))),
        Arc::new(StringArray::from_iter(all().map(|p| containers.name(p.container.as_deref()?)))),
        Arc::new(Int64Array::from_iter(all().map(|p| p.start_ns))),
        Arc::new(Int64Array::from_iter(all().map(|p| p.end_ns))),
        Arc::new(Int32Array::from_iter(all().map(|p| p.exit_code))),
    ])?;
    table.finish()
}

/// Writes `threads`, in the order of their keys.
pub fn write_threads(dir: &Path, threads: &[&Thread], process_keys: &[Option<u32>]) -> Result<u64> {
    let fields = vec![
        field("thread_id", DataType::UInt32),
        field("process_id", DataType::UInt32),
        field("tid", DataType::Int32),
        field("comm", DataType::Utf8),
        nullable("start_ns", DataType::Int64),
        nullable("end_ns", DataType::Int64),
    ];
    let mut table = Table::create(dir, "threads", fields, properties().build())?;
    let process =
        |thread: &&Thread| process_keys[thread.process as usize].expect("a thread's process is kept");
    table.write(vec![
        Arc::new(UInt32Array::from_iter_values(0..threads.len() as u32)),
        Arc::new(UInt32Array::from_iter_values(threads.iter().map(process))),
        Arc::new(Int32Array::from_iter_values(threads.iter().map(|t| t.tid))),
        Arc::new(StringArray::from_iter_values(threads.iter().map(|t| comm(&t.comm)))),
        Arc::new(Int64Array::from_iter(threads.iter().map(|t| t.start_ns))),
        Arc::new(Int64Array::from_iter(threads.iter().map(|t| t.end_ns))),
    ])?;
    table.finish()
}

/// Nothing was ever learnt of a process without a name.
fn comm(comm: &str) -> &str {
    if comm.is_empty() { "[unknown]" } else { comm }
}

/// Writes `modules`.
pub fn write_modules(dir: &Path, code: &Code) -> Result<u64> {
    let fields = vec![
        field("module_id", DataType::UInt32),
        field("path", DataType::Utf8),
        nullable("build_id", DataType::Utf8),
        field("kind", DataType::Utf8),
        field("symbols", DataType::Utf8),
        nullable("debug_file", DataType::Utf8),
    ];
    let mut table = Table::create(dir, "modules", fields, properties().build())?;
    let hex = |id: &Vec<u8>| symbols::hex(id);
    table.write(vec![
        Arc::new(UInt32Array::from_iter_values(0..code.modules.len() as u32)),
        Arc::new(StringArray::from_iter_values(code.modules.iter().map(|m| &m.path))),
        Arc::new(StringArray::from_iter(code.modules.iter().map(|m| m.build_id.as_ref().map(hex)))),
        Arc::new(StringArray::from_iter_values(code.modules.iter().map(|m| m.kind.name()))),
        Arc::new(StringArray::from_iter_values(code.modules.iter().map(|m| &m.symbols))),
        Arc::new(StringArray::from_iter(code.modules.iter().map(|m| m.debug_file.as_deref()))),
    ])?;
    table.finish()
}

/// Writes `frames`: one for each address, then the inlined calls.
pub fn write_frames(dir: &Path, code: &Code) -> Result<u64> {
    let name = || DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let fields = vec![
        field("frame_id", DataType::UInt32),
        field("module_id", DataType::UInt32),
        field("address", DataType::UInt64),
        field("is_return", DataType::Boolean),
        nullable("linked_address", DataType::UInt64),
        nullable("function", name()),
        nullable("symbol", name()),
        nullable("file", name()),
        nullable("line", DataType::UInt32),
        nullable("inlined_in", DataType::UInt32),
    ];
    let mut table = Table::create(dir, "frames", fields, properties().build())?;
    let (names, files) = (&code.names, &code.source_files);
    let rows = || {
        let frames = code.frames.iter().map(|frame| (frame, frame.name, frame.source));
        let inlined = code.inlined.iter();
        frames.chain(inlined.map(|call| (&code.frames[call.frame as usize], call.name, call.source)))
    };
    table.write(vec![
        Arc::new(UInt32Array::from_iter_values((0..).take(rows().count()))),
        Arc::new(UInt32Array::from_iter_values(rows().map(|(frame, ..)| frame.module))),
        Arc::new(UInt64Array::from_iter_values(rows().map(|(frame, ..)| frame.address))),
        Arc::new(BooleanArray::from_iter(rows().map(|(frame, ..)| Some(frame.is_return)))),
        Arc::new(UInt64Array::from_iter(rows().map(|(frame, ..)| frame.linked))),
        named(rows().map(|(_, name, _)| name), names, Names::function),
        named(rows().map(|(_, name, _)| name), names, Names::symbol),
        named(rows().map(|(.., source)| source.file), files, Names::symbol),
        Arc::new(UInt32Array::from_iter(
            rows().map(|(.., source)| Some(source.line).filter(|&line| line > 0)),
        )),
        Arc::new(UInt32Array::from_iter(inlined_in(code))),
    ])?;
    table.finish()
}

/// A column of names, which is in memory once for each name; there are many rows of some of them.
fn named(ids: impl Iterator<Item = u32>, names: &Names, text: fn(&Names, u32) -> Option<&str>) -> ArrayRef {
    let keys = UInt32Array::from_iter(ids.map(|id| Some(id).filter(|&id| id != NO_NAME)));
    let values =
        StringArray::from_iter_values((0..names.len()).map(|id| text(names, id).unwrap_or_default()));
    Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, Arc::new(values)).expect("keys are names"))
}

/// For each row of `frames` the row that the call lies in: the first inlined call of an address in the
/// function itself, each further one in the one before it.
fn inlined_in(code: &Code) -> impl Iterator<Item = Option<u32>> {
    let first_row = code.frames.len() as u32;
    let lies_in = move |(at, call): (usize, &InlinedCall)| {
        let is_first = at == 0 || code.inlined[at - 1].frame != call.frame;
        Some(if is_first { call.frame } else { first_row + at as u32 - 1 })
    };
    std::iter::repeat_n(None, code.frames.len()).chain(code.inlined.iter().enumerate().map(lies_in))
}
