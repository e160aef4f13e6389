//! How what documents say is written down.

use fastrand::Rng;

use super::feed::Cell;
use super::kinds::Form;
use super::shape::{Col, Place};
use super::value::{Spellings, Ty, quoted};

/// One of the spellings.
pub fn one(spellings: &Spellings, rng: &mut Rng) -> String {
    spellings[rng.usize(..spellings.len())].clone()
}

/// What an item says of a column: nothing, one member, or two.
pub fn cell_members(col: &Col, cell: &Cell, form: Form, rng: &mut Rng) -> Vec<(String, String)> {
    let field = col.field.clone();
    if matches!(col.place, Place::Name | Place::Index | Place::Item | Place::Position(_) | Place::Constant(_))
    {
        return Vec::new();
    }
    // Where a missing field means null, null may be spelled by leaving it out.
    if cell.silent || (cell.null && !col.keep && rng.bool()) {
        let bare = col.place == Place::Nested && rng.bool();
        return if bare { vec![(field, "{}".into())] } else { Vec::new() };
    }
    let names: &[&str] = if col.catalogue.is_some() { &["code", "no"] } else { &["v"] };
    // Of a composite catalogue key the second part is a number.
    let forms = [form, Form::default()];
    let text = |(value, form): (&Spellings, &Form)| match cell.null {
        true => "null".into(),
        false => form.respell(one(value, rng), rng),
    };
    let texts: Vec<String> = cell.values.iter().zip(&forms).map(text).collect();
    match col.place {
        Place::Nested if cell.null && rng.bool() => vec![(field, "null".into())],
        Place::Nested => {
            let members = names.iter().zip(texts).map(|(name, text)| ((*name).to_owned(), text)).collect();
            vec![(field, object(members, rng))]
        }
        Place::Either => {
            let alternative = format!("{field}!");
            match rng.u8(..4) {
                0 => vec![(alternative, texts[0].clone())],
                1 => vec![(field, "null".into()), (alternative, texts[0].clone())],
                // Without a value in the first, the second would count.
                2 if !cell.null => {
                    vec![(field, texts[0].clone()), (alternative, one(&Ty::draw(col.ty, rng, 99), rng))]
                }
                _ => vec![(field, texts[0].clone())],
            }
        }
        _ => vec![(field, texts[0].clone())],
    }
}

pub fn comma(rng: &mut Rng) -> &'static str {
    [",", ", ", " \t,\n "][rng.usize(..3)]
}

pub fn object(mut members: Vec<(String, String)>, rng: &mut Rng) -> String {
    rng.shuffle(&mut members);
    let colon = [":", " : ", ":\n"][rng.usize(..3)];
    let members: Vec<String> =
        members.into_iter().map(|(name, text)| format!("{}{colon}{text}", quoted(&name, false))).collect();
    format!("{{{}}}", members.join(comma(rng)))
}

/// Both lists in one, each in its order.
pub fn merged(one: Vec<String>, other: Vec<String>, rng: &mut Rng) -> Vec<String> {
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    let mut all = Vec::new();
    while one.peek().is_some() || other.peek().is_some() {
        all.extend(if rng.bool() { one.next() } else { other.next() });
    }
    all
}
