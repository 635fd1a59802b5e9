//! Tables of real files.

use std::fs::File;
use std::time::Instant;

use super::{Table, TableError};
use crate::symbols;

fn table_of(path: &str) -> Result<Table, TableError> {
    let (frames, segments) = symbols::call_frames(&File::open(path).unwrap()).unwrap();
    Table::build(&frames, &segments)
}

/// Prints what tables cost: `cargo test --release -- --ignored --nocapture table_sizes`, the files in
/// `SBERF_TABLES`, separated by colons.
#[test]
#[ignore = "prints figures"]
fn table_sizes() {
    for path in std::env::var("SBERF_TABLES").unwrap().split(':') {
        let started = Instant::now();
        match table_of(path) {
            Ok(table) => {
                let elapsed = started.elapsed();
                let bytes = 4 * (table.rows.len() + table.pages());
                let mut kinds = [0u64; 40];
                for row in &table.rows {
                    let rule = table.rules[(row & 0x3f_ffff) as usize];
                    kinds[(rule.to_wire()[0] >> 48 & 0xff) as usize] += 1;
                }
                let kinds: Vec<_> = kinds.iter().enumerate().filter(|k| *k.1 > 0).collect();
                println!(
                    "{path}: {} rows, {} pages, {} rules, {bytes} bytes, refused {}, {elapsed:?} {kinds:?}",
                    table.rows.len(),
                    table.pages(),
                    table.rules.len(),
                    table.refused
                );
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
}
