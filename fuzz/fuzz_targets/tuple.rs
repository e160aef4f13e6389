//! Cells come back from a tuple as they were pushed, all of them and any part of them; tuples of different
//! cells have different bytes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rowdelta::row::{Cell, Tuple};

#[derive(Arbitrary, Debug, PartialEq)]
enum Plain {
    Null,
    Kept,
    Value(Vec<u8>),
}

impl Plain {
    fn cell(&self) -> Cell<'_> {
        match self {
            Plain::Null => Cell::Null,
            Plain::Kept => Cell::Kept,
            Plain::Value(bytes) => Cell::Value(bytes),
        }
    }
}

fuzz_target!(|input: (Vec<Plain>, Vec<Plain>, Vec<u8>)| {
    let (plain, other, positions) = input;
    let tuple = Tuple::of(plain.iter().map(Plain::cell));
    let cells: Vec<Cell<'_>> = tuple.cells().collect();
    assert_eq!(cells, plain.iter().map(Plain::cell).collect::<Vec<_>>());
    assert_eq!(tuple == Tuple::of(other.iter().map(Plain::cell)), plain == other);
    if !plain.is_empty() {
        let positions: Vec<usize> = positions.iter().map(|&at| usize::from(at) % plain.len()).collect();
        let projected = tuple.project(&positions);
        assert!(projected.cells().eq(positions.iter().map(|&at| tuple.cell(at))));
    }
});
