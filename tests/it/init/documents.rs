//! Random documents of no mapping: each has an `id`, and below that whatever JSON can hold.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Names of members: some become one name of a column, some are none, some are words of SQL.
const NAMES: [&str; 18] = [
    "a", "A", "b-c", "b_c", "a.b", "a\"b", "", "order", "ctid", "id", "code", "año", "@id", "^", "x\ny",
    "value", "key", "2024",
];

/// What stands at a place, mostly.
enum Form {
    Scalar(u8),
    Object(Vec<(String, Form)>),
    List(Box<Form>),
    /// Names that are data.
    Map(Box<Form>),
}

/// Some documents of one form.
pub fn draw(rng: &mut Rng) -> Vec<String> {
    let form = object(rng, 3);
    let (count, lax) = (rng.u64(1..30), rng.u8(0..3));
    let document = |id: u64, rng: &mut Rng| {
        let mut members = Map::from_iter([("_id".to_owned(), json!(id))]);
        if let Value::Object(more) = value(&form, lax, rng) {
            members.extend(more);
        }
        Value::Object(members).to_string()
    };
    (0..count).map(|id| document(id, rng)).collect()
}

fn object(rng: &mut Rng, depth: u8) -> Form {
    let mut fields: Vec<(String, Form)> = Vec::new();
    for _ in 0..rng.usize(1..6) {
        let name = NAMES[rng.usize(..NAMES.len())];
        if fields.iter().all(|(other, _)| other != name) {
            fields.push((name.to_owned(), form(rng, depth)));
        }
    }
    Form::Object(fields)
}

fn form(rng: &mut Rng, depth: u8) -> Form {
    match rng.u8(..10) {
        kind if depth == 0 || kind < 5 => Form::Scalar(rng.u8(..10)),
        5 => object(rng, depth - 1),
        6 => Form::Map(Box::new(form(rng, depth - 1))),
        7 => Form::List(Box::new(Form::Scalar(rng.u8(..10)))),
        _ => Form::List(Box::new(object(rng, depth - 1))),
    }
}

/// A value of a form; of another one now and then, if it is lax about that.
fn value(form: &Form, lax: u8, rng: &mut Rng) -> Value {
    if rng.u8(..100) < 8 {
        return Value::Null;
    }
    if rng.u8(..100) < 3 * lax {
        let kind = rng.u8(..10);
        return value(&Form::Scalar(kind), 0, rng);
    }
    match form {
        Form::Scalar(kind) => scalar(*kind, rng),
        Form::Object(fields) => {
            let mut members = Map::new();
            for (name, form) in fields {
                if rng.u8(..10) > 0 {
                    members.insert(name.clone(), value(form, lax, rng));
                }
            }
            Value::Object(members)
        }
        Form::List(item) if rng.u8(..100) < 4 * lax => value(item, lax, rng),
        Form::List(item) => (0..rng.usize(..5)).map(|_| value(item, lax, rng)).collect(),
        Form::Map(item) => {
            let name = |rng: &mut Rng| rng.u16(2000..2010).to_string();
            Value::Object((0..rng.usize(..4)).map(|_| (name(rng), value(item, lax, rng))).collect())
        }
    }
}

fn scalar(kind: u8, rng: &mut Rng) -> Value {
    match kind {
        0 => json!(rng.bool()),
        1 => json!(rng.u32(..20)),
        2 => json!(rng.u32(..1000) as f64 / 8.0),
        3 => json!(format!("2024-05-{:02}", rng.u8(1..32))),
        4 => {
            json!(format!("2024-05-01T{:02}:00:00{}", rng.u8(..24), if rng.bool() { "Z" } else { "+02:00" }))
        }
        5 => json!(["red", "green", "blue"][rng.usize(..3)]),
        6 => json!(format!("{}\u{0}", rng.u8(..3))),
        7 => json!("x".repeat(rng.usize(..5000))),
        8 => json!(rng.i64(..)),
        _ => [json!([]), json!({}), json!("x"), json!(1)][rng.usize(..4)].clone(),
    }
}
