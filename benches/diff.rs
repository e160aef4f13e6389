//! The comparison of two sides: shape × number of rows. Every answer is checked once, before it is timed.
//!
//! `cargo bench --bench diff`

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rowdelta::diff::{ChangeSet, Entry, Identity, diff};
use rowdelta::fingerprint::{RowFingerprint, TreeFingerprint};

const SIZES: [(&str, u32); 3] = [("10", 10), ("1k", 1_000), ("100k", 100_000)];
/// Rows of one parent: a batch holds many documents with some rows each.
const ROWS_PER_SLOT: u32 = 4;

/// A shape: its name, how the source differs from the stored rows, and the answer that it must have.
type Shape = (&'static str, fn(&mut Vec<Entry<'_>>), fn(&ChangeSet, usize) -> bool);

const SHAPES: [Shape; 4] = [
    ("unchanged", |_| (), all_unchanged),
    (
        "one_row_changed",
        |source| change(&mut source[3]),
        |changes, rows| {
            changes.updated == [(3, 3)] && changes.unchanged.len() == rows - 1 && nothing_else(changes)
        },
    ),
    (
        "all_changed",
        |source| source.iter_mut().for_each(change),
        |changes, rows| {
            changes.updated.len() == rows && changes.unchanged.is_empty() && nothing_else(changes)
        },
    ),
    ("reversed", |source| source.reverse(), all_unchanged),
];

fn all_unchanged(changes: &ChangeSet, rows: usize) -> bool {
    changes.is_empty() && changes.unchanged.len() == rows && nothing_else(changes)
}

fn nothing_else(changes: &ChangeSet) -> bool {
    let others = [&changes.added, &changes.removed].iter().all(|rows| rows.is_empty());
    others && changes.moved.is_empty() && changes.claimed.is_empty()
}

fn change(entry: &mut Entry<'_>) {
    entry.fingerprint.0[0] ^= 1;
    entry.tree.0[0] ^= 1;
}

/// Keys as they are in comparison form: int32 length, then a bigint.
fn keys(rows: u32) -> Vec<Vec<u8>> {
    let key = |row: u32| [&8i32.to_be_bytes()[..], &(600_000 + i64::from(row)).to_be_bytes()].concat();
    (0..rows).map(key).collect()
}

fn entries(keys: &[Vec<u8>]) -> Vec<Entry<'_>> {
    let mut random = fastrand::Rng::with_seed(1);
    let entry = |(index, key)| {
        let index = index as u32;
        let content = random.u128(..).to_be_bytes();
        let (fingerprint, tree) = (RowFingerprint(content), TreeFingerprint(content));
        Entry { slot: index / ROWS_PER_SLOT, key, fingerprint, tree, index }
    };
    keys.iter().map(Vec::as_slice).enumerate().map(entry).collect()
}

fn shapes(criterion: &mut Criterion) {
    for (name, alter, is_right) in SHAPES {
        let mut group = criterion.benchmark_group(format!("diff/{name}"));
        for (size, rows) in SIZES {
            let keys = keys(rows);
            let stored = entries(&keys);
            let mut source = stored.clone();
            alter(&mut source);
            let both = || (stored.clone(), source.clone());
            let compare = |(stored, source)| diff(stored, source, Identity::KeyInParent);
            assert!(is_right(&compare(both()), rows as usize), "diff/{name}/{size} has another answer");
            group.throughput(Throughput::Elements(rows.into()));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_batched(both, |sides| black_box(compare(sides)), BatchSize::LargeInput);
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = shapes
}
criterion_main!(benches);
