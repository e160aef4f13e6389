//! New rows as the stream that COPY takes. The stream is taken apart again once, before it is timed.
//!
//! `cargo bench --bench copy`

use std::hint::black_box;
use std::marker::PhantomData;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The very file that `postgres::write` has: it is not public.
#[path = "../src/postgres/write/copy.rs"]
mod copy;
#[path = "support/grants.rs"]
mod grants;

use copy::copy_chunks;
use grants::Grants;

const SIZES: [(&str, usize); 3] = [("10", 10), ("1k", 1_000), ("10k", 10_000)];
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: &[u8] = b"\xff\xff";

/// A column and its cell for each row: what `postgres::write` calls so, as far as COPY looks at it.
struct Filled<'c> {
    cells: Vec<Option<Vec<u8>>>,
    named: PhantomData<&'c str>,
}

/// The columns of so many rows of a relation of the example; the same rows again where there are not so many.
fn columns(grants: &Grants, relation: &str, count: usize) -> Vec<Filled<'static>> {
    let found = grants.mapping.relations.iter().position(|other| other.name == relation);
    let ix = found.expect("the example has the relation");
    let sets: Vec<_> = grants.documents.iter().map(|document| grants.rows(document)).collect();
    let tuples = || sets.iter().flat_map(|set| &set.relations[ix].rows).map(|row| &row.tuple);
    let width = grants.schema.tables[ix].columns.len();
    let column = |at| {
        let cells = tuples().cycle().take(count).map(|tuple| tuple.cell(at).bytes().map(<[u8]>::to_vec));
        Filled { cells: cells.collect(), named: PhantomData }
    };
    (0..width).map(column).collect()
}

/// The cells of a stream, row by row.
fn taken_apart(mut stream: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
    stream = stream.strip_prefix(HEADER).expect("a stream begins with its signature");
    let mut rows = Vec::new();
    while stream != END {
        let (count, rest) = stream.split_first_chunk().expect("a row begins with its number of columns");
        stream = rest;
        let mut row = Vec::new();
        for _ in 0..i16::from_be_bytes(*count) {
            let (length, rest) = stream.split_first_chunk().expect("a cell begins with its length");
            let length = i32::from_be_bytes(*length);
            let (cell, rest) = rest.split_at(length.max(0) as usize);
            row.push((length >= 0).then(|| cell.to_vec()));
            stream = rest;
        }
        rows.push(row);
    }
    rows
}

fn rows(criterion: &mut Criterion) {
    let grants = Grants::generate(1_000);
    for (shape, relation) in [("wide", "convocatorias"), ("narrow", "documentos"), ("link", "sectores")] {
        let mut group = criterion.benchmark_group(format!("copy/{shape}"));
        for (size, count) in SIZES {
            let columns = columns(&grants, relation, count);
            let stream: Vec<u8> = copy_chunks(&columns, count).flatten().collect();
            let apart = taken_apart(&stream);
            assert_eq!(apart.len(), count, "copy/{shape}/{size}");
            for (at, column) in columns.iter().enumerate() {
                assert!(apart.iter().map(|row| &row[at]).eq(&column.cells), "copy/{shape}/{size}");
            }
            group.throughput(Throughput::Bytes(stream.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    copy_chunks(black_box(&columns), count).map(|chunk: Bytes| chunk.len()).sum::<usize>()
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = rows
}
criterion_main!(benches);
