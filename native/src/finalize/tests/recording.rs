//! Reads a recording back, as plain values.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    pub parent: Option<u32>,
    pub exec_from: Option<u32>,
    pub comm: String,
    pub exe: Option<String>,
    pub cmdline: Option<String>,
    pub ns_pid: Option<i32>,
    pub container: Option<String>,
    pub container_name: Option<String>,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone)]
pub struct Thread {
    pub process: u32,
    pub tid: i32,
    pub comm: String,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Module {
    pub path: String,
    pub build_id: Option<String>,
    pub kind: String,
    pub symbols: String,
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub module: u32,
    pub address: u64,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Stack {
    pub frames: Vec<u32>,
    pub end: String,
}

#[derive(Debug, Clone)]
pub struct Sample {
    pub ts_ns: i64,
    pub thread: u32,
    pub event: String,
    pub stack_id: u64,
    pub weight: u64,
}

#[derive(Debug)]
pub struct Recording {
    pub meta: Value,
    pub processes: Vec<Process>,
    pub threads: Vec<Thread>,
    pub modules: Vec<Module>,
    pub frames: Vec<Frame>,
    pub stacks: HashMap<u64, Stack>,
    pub samples: Vec<Sample>,
}

impl Recording {
    pub fn read(dir: &Path, meta: Value) -> Self {
        let table = |name: &str| read_table(&dir.join(format!("tables/{name}.parquet")));
        let written: Value = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap();
        assert_eq!(written, meta);
        let mut recording = Self {
            meta,
            processes: Vec::new(),
            threads: Vec::new(),
            modules: Vec::new(),
            frames: Vec::new(),
            stacks: HashMap::new(),
            samples: Vec::new(),
        };
        table("processes").iter().for_each(|batch| recording.add_processes(batch));
        table("threads").iter().for_each(|batch| recording.add_threads(batch));
        table("modules").iter().for_each(|batch| recording.add_modules(batch));
        table("frames").iter().for_each(|batch| recording.add_frames(batch));
        table("stacks").iter().for_each(|batch| recording.add_stacks(batch));
        table("samples").iter().for_each(|batch| recording.add_samples(batch));
        recording.check();
        recording
    }

    /// The sample at this time; there must be one.
    pub fn at(&self, ns: u64) -> &Sample {
        let mut found = self.samples.iter().filter(|sample| sample.ts_ns == ns as i64);
        let sample = found.next().expect("a sample at that time");
        assert!(found.next().is_none());
        sample
    }

    pub fn process_of(&self, sample: &Sample) -> &Process {
        &self.processes[self.threads[sample.thread as usize].process as usize]
    }

    /// The function names of a sample's stack, leaf first; an unnamed one is `module+0xoffset`.
    pub fn names(&self, sample: &Sample) -> Vec<String> {
        let name = |&id: &u32| {
            let frame = &self.frames[id as usize];
            let module = &self.modules[frame.module as usize];
            frame.function.clone().unwrap_or_else(|| format!("{}+{:#x}", module.path, frame.address))
        };
        self.stacks[&sample.stack_id].frames.iter().map(name).collect()
    }

    pub fn end(&self, sample: &Sample) -> &str {
        &self.stacks[&sample.stack_id].end
    }

    pub fn module(&self, path: &str) -> &Module {
        self.modules.iter().find(|module| module.path == path).expect("a module of that path")
    }

    pub fn loss(&self, name: &str) -> u64 {
        self.meta["losses"][name].as_u64().unwrap()
    }

    pub fn warns(&self, words: &str) -> bool {
        let warnings = self.meta["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning.as_str().unwrap().contains(words))
    }

    /// What holds for every recording.
    fn check(&self) {
        assert!(self.samples.is_sorted_by_key(|sample| sample.ts_ns));
        for sample in &self.samples {
            let thread = &self.threads[sample.thread as usize];
            let process = &self.processes[thread.process as usize];
            for (start, end) in [(thread.start_ns, thread.end_ns), (process.start_ns, process.end_ns)] {
                assert!(start.is_none_or(|start| start <= sample.ts_ns), "{thread:?} {sample:?}");
                assert!(end.is_none_or(|end| sample.ts_ns <= end), "{thread:?} {sample:?}");
            }
            assert!(self.stacks.contains_key(&sample.stack_id));
        }
        for stack in self.stacks.values() {
            assert!(stack.frames.iter().all(|&frame| (frame as usize) < self.frames.len()));
        }
        assert!(self.frames.iter().all(|frame| (frame.module as usize) < self.modules.len()));
        let rows = |name: &str| self.meta["rows"][name].as_u64().unwrap() as usize;
        assert_eq!(rows("samples"), self.samples.len());
        assert_eq!(rows("stacks"), self.stacks.len());
        assert_eq!(rows("processes"), self.processes.len());
        assert_eq!(rows("threads"), self.threads.len());
    }

    fn add_processes(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            assert_eq!(u32_at(batch, "process_id", row), Some(self.processes.len() as u32));
            self.processes.push(Process {
                pid: i32_at(batch, "pid", row).unwrap(),
                parent: u32_at(batch, "parent_process_id", row),
                exec_from: u32_at(batch, "exec_from_process_id", row),
                comm: text_at(batch, "comm", row).unwrap(),
                exe: text_at(batch, "exe", row),
                cmdline: text_at(batch, "cmdline", row),
                ns_pid: i32_at(batch, "ns_pid", row),
                container: text_at(batch, "container", row),
                container_name: text_at(batch, "container_name", row),
                start_ns: i64_at(batch, "start_ns", row),
                end_ns: i64_at(batch, "end_ns", row),
                exit_code: i32_at(batch, "exit_code", row),
            });
        }
    }

    fn add_threads(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            assert_eq!(u32_at(batch, "thread_id", row), Some(self.threads.len() as u32));
            self.threads.push(Thread {
                process: u32_at(batch, "process_id", row).unwrap(),
                tid: i32_at(batch, "tid", row).unwrap(),
                comm: text_at(batch, "comm", row).unwrap(),
                start_ns: i64_at(batch, "start_ns", row),
                end_ns: i64_at(batch, "end_ns", row),
            });
        }
    }

    fn add_modules(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            self.modules.push(Module {
                path: text_at(batch, "path", row).unwrap(),
                build_id: text_at(batch, "build_id", row),
                kind: text_at(batch, "kind", row).unwrap(),
                symbols: text_at(batch, "symbols", row).unwrap(),
            });
        }
    }

    fn add_frames(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            assert_eq!(u32_at(batch, "frame_id", row), Some(self.frames.len() as u32));
            self.frames.push(Frame {
                module: u32_at(batch, "module_id", row).unwrap(),
                address: u64_at(batch, "address", row).unwrap(),
                function: text_at(batch, "function", row),
                file: text_at(batch, "file", row),
                line: u32_at(batch, "line", row),
            });
        }
    }

    fn add_stacks(&mut self, batch: &RecordBatch) {
        let lists = batch.column_by_name("frame_ids").unwrap().as_list::<i32>();
        for row in 0..batch.num_rows() {
            let frames = lists.value(row).as_primitive::<UInt32Type>().values().to_vec();
            let end = text_at(batch, "end", row).unwrap();
            let known = self.stacks.insert(u64_at(batch, "stack_id", row).unwrap(), Stack { frames, end });
            assert!(known.is_none(), "a stack_id is a key");
        }
    }

    fn add_samples(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            self.samples.push(Sample {
                ts_ns: i64_at(batch, "ts_ns", row).unwrap(),
                thread: u32_at(batch, "thread_id", row).unwrap(),
                event: text_at(batch, "event", row).unwrap(),
                stack_id: u64_at(batch, "stack_id", row).unwrap(),
                weight: u64_at(batch, "weight", row).unwrap(),
            });
        }
    }
}

pub fn read_table(path: &Path) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    builder.build().unwrap().map(Result::unwrap).collect()
}

macro_rules! reader {
    ($name:ident, $type:ty, $value:ty) => {
        fn $name(batch: &RecordBatch, column: &str, row: usize) -> Option<$value> {
            let values = batch.column_by_name(column).unwrap().as_primitive::<$type>();
            values.is_valid(row).then(|| values.value(row))
        }
    };
}

reader!(u32_at, UInt32Type, u32);
reader!(u64_at, UInt64Type, u64);
reader!(i32_at, Int32Type, i32);
reader!(i64_at, Int64Type, i64);

fn text_at(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let values = batch.column_by_name(column).unwrap().as_string::<i32>();
    values.is_valid(row).then(|| values.value(row).to_string())
}
