//! Encoding one value, per type: JSON in, the bytes that PostgreSQL would store out. Every answer is checked once,
//! before it is timed, against bytes that are put together here from PostgreSQL's description of the format.
//!
//! `cargo bench --bench encode`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rowdelta::json::Json;
use rowdelta::value::{Attribute, ColumnType, Element, Encoded, Kind, encode};

const DAY_MICROS: i64 = 86_400_000_000;
/// 2024-02-29, in days since 2000.
const LEAP_DAY: i32 = 8_825;
/// 11:34:56.789, in microseconds.
const TIME_MICROS: i64 = ((11 * 60 + 34) * 60 + 56) * 1_000_000 + 789_000;
const TEXT: &str = "Subvenciones para la formación y el empleo, año 2024";
const INT4_OID: u32 = 23;
const TEXT_OID: u32 = 25;

/// A type, a value of it as JSON, and the value as it is stored.
struct Case {
    name: &'static str,
    kind: Kind,
    json: String,
    stored: Vec<u8>,
}

fn case(name: &'static str, kind: Kind, json: &str, stored: &[u8]) -> Case {
    Case { name, kind, json: json.to_owned(), stored: stored.to_vec() }
}

fn ty(kind: Kind, oid: u32) -> ColumnType {
    // SQL is for the server, which is not there.
    ColumnType { kind, sql: String::new(), oid, array_oid: 0, input: String::new(), send: String::new() }
}

/// A sequence of 16-bit numbers, as `numeric_send` makes it: count of base-10000 digits, weight, sign, scale, digits.
fn shorts(numbers: &[i16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn ints(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn numbers() -> Vec<Case> {
    vec![
        case("boolean", Kind::Bool, "true", &[1]),
        case("smallint", Kind::Int2, "-12345", &(-12_345i16).to_be_bytes()),
        case("integer", Kind::Int4, "712345678", &712_345_678i32.to_be_bytes()),
        case("bigint", Kind::Int8, "95500000000", &95_500_000_000i64.to_be_bytes()),
        case("bigint/string", Kind::Int8, "\"95500000000\"", &95_500_000_000i64.to_be_bytes()),
        case("double", Kind::Float8, "1234567.891", &1_234_567.891f64.to_be_bytes()),
        case("numeric", Kind::Numeric(None), "1234567.891", &shorts(&[3, 1, 0, 3, 123, 4567, 8910])),
        case(
            "numeric(14,2)",
            Kind::Numeric(Some((14, 2))),
            "1234567.895",
            &shorts(&[3, 1, 0, 2, 123, 4567, 9000]),
        ),
    ]
}

fn texts() -> Vec<Case> {
    let quoted = format!("{TEXT:?}");
    vec![
        case("text", Kind::Text, &quoted, TEXT.as_bytes()),
        case("varchar(100)", Kind::Varchar(Some(100)), &quoted, TEXT.as_bytes()),
        case(
            "uuid",
            Kind::Uuid,
            "\"00112233-4455-6677-8899-aabbccddeeff\"",
            &std::array::from_fn::<u8, 16, _>(|at| at as u8 * 0x11),
        ),
        case(
            "enum",
            Kind::Enum(Arc::new(["abierta".to_owned(), "cerrada".to_owned()])),
            "\"cerrada\"",
            b"cerrada",
        ),
        case(
            "jsonb",
            Kind::Jsonb,
            r#"{"orden": 1e2, "a": [true, null], "orden": 1.50}"#,
            b"\x01{\"a\": [true, null], \"orden\": 1.50}",
        ),
    ]
}

fn times() -> Vec<Case> {
    let micros = i64::from(LEAP_DAY) * DAY_MICROS + TIME_MICROS;
    vec![
        case("date", Kind::Date, "\"2024-02-29\"", &LEAP_DAY.to_be_bytes()),
        case("timestamp", Kind::Timestamp(6), "\"2024-02-29T11:34:56.789\"", &micros.to_be_bytes()),
        case("timestamptz", Kind::Timestamptz(6), "\"2024-02-29T12:34:56.789+01:00\"", &micros.to_be_bytes()),
    ]
}

fn composed() -> Vec<Case> {
    let element = Element { ty: ty(Kind::Int4, INT4_OID), delimiter: ',' };
    let mut list = ints(&[1, 0, INT4_OID as i32, 4, 1]);
    (1..=4).for_each(|number| list.extend(ints(&[4, number])));
    let attribute = |name: &str, ty| Attribute { name: name.to_owned(), ty };
    let attributes =
        [attribute("orden", ty(Kind::Int4, INT4_OID)), attribute("texto", ty(Kind::Text, TEXT_OID))];
    let mut record = ints(&[2, INT4_OID as i32, 4, 7, TEXT_OID as i32, 5]);
    record.extend(b"siete");
    vec![
        case("integer[]", Kind::Array(Arc::new(element)), "[1, 2, 3, 4]", &list),
        case(
            "composite",
            Kind::Composite(Arc::new(attributes)),
            r#"{"orden": 7, "texto": "siete"}"#,
            &record,
        ),
    ]
}

fn values(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for Case { name, kind, json, stored } in [numbers(), texts(), times(), composed()].into_iter().flatten() {
        let ty = ty(kind, 0);
        let json = Json::parse(json.as_bytes()).expect("a value is JSON");
        let mut bytes = Vec::new();
        assert_eq!(encode(&json, &ty, None, &mut bytes), Ok(Encoded::Value), "{name}");
        assert_eq!(bytes, stored, "{name}");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                let encoded = encode(black_box(&json), &ty, None, &mut bytes);
                black_box((encoded.is_ok(), bytes.len()))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = values
}
criterion_main!(benches);
