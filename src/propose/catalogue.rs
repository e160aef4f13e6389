//! Which lists draw on a catalogue.

use super::fields::Field;
use super::node::{Items, Node, Shape};

/// Items that a list must have had before they can be a catalogue, and lists.
const CATALOGUE_MIN: (u64, u64) = (20, 10);
/// How often each item of a catalogue is used, at least, on average.
const CATALOGUE_USES_MIN: u64 = 3;
/// One item in so many, at most, may be the only one like it: as many of those that come will be new.
const CATALOGUE_ONCE: u64 = 8;
/// All columns of a catalogue's key fit into an index entry.
const CATALOGUE_BYTES_MAX: usize = 1_000;

/// Whether the items of a list look like rows of a catalogue: few different ones, all scalars, each used often, and
/// never twice in one list.
pub(super) fn is_catalogue(list: &Node, items: &Items, fields: &[Field<'_>]) -> bool {
    let Some(contents) = items.contents.as_ref().filter(|_| list.singles == 0) else { return false };
    let (items_min, lists_min) = CATALOGUE_MIN;
    let is_used = contents.total >= items_min
        && list.filled >= lists_min
        && contents.different() * CATALOGUE_USES_MIN <= contents.total
        && contents.once() * CATALOGUE_ONCE <= contents.total
        && contents.lists_with_repeats == 0;
    let bytes: usize = fields.iter().map(|field| field.node.bytes_max).sum();
    let has_text = fields.iter().any(|field| field.node.guess.name() == Some("text"));
    is_used && has_text && bytes <= CATALOGUE_BYTES_MAX && fields.iter().all(can_be_in_catalogue)
}

fn can_be_in_catalogue(field: &Field<'_>) -> bool {
    let is_type = matches!(field.node.guess.name(), Some("text" | "bigint" | "uuid" | "boolean" | "date"));
    let is_of_one_kind = field.node.kinds.count_ones() == 1 && !field.node.nul;
    matches!(field.shape, Shape::Scalar) && is_type && is_of_one_kind && field.is_always()
}
