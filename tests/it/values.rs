//! The encoders against the server: random and awkward values of every type, encoded here and there.
//!
//! The server assigns the text of each value to a variable of the column's type and sends what came out; a
//! value it refuses comes back as NULL. Our bytes must be its bytes, our refusals its refusals. Where we are
//! stricter on purpose (a date that is not ISO, blanks beyond a `varchar`) a sample says so beforehand.

use fastrand::Rng;
use rowdelta::json::Json;
use rowdelta::value::{
    Attribute, ColumnType, Element, Encoded, Kind, ValueError, comparison_form, comparison_sql, encode,
};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Values in one query.
const CHUNK: u32 = 500;

/// A type under test.
pub struct Subject {
    /// The encoder.
    pub kind: Kind,
    /// The type's name in SQL.
    pub sql: &'static str,
    send: &'static str,
    sample: fn(&mut Rng) -> Sample,
}

impl Subject {
    fn is_nested(&self) -> bool {
        matches!(self.kind, Kind::Array(_) | Kind::Composite(_))
    }
}

/// How the samples of one type went.
#[derive(Debug, Default)]
pub struct Counts {
    /// Encoded here and there to the same bytes.
    pub equal: u32,
    /// Refused here and there.
    pub refused: u32,
    /// Left to the server.
    pub asked: u32,
    /// Refused here on purpose, though the server would take them.
    pub stricter: u32,
    /// What should not be: the first few, in words.
    pub differences: Vec<String>,
}

/// A value, and what may become of it.
struct Sample {
    json: String,
    /// What the server is given.
    text: String,
    /// It is spelled as a JSON number.
    number: bool,
    /// It may be refused here though the server takes it.
    stricter: bool,
    /// It may be left to the server.
    asks: bool,
}

impl Sample {
    fn number(text: String) -> Self {
        Sample { json: text.clone(), text, number: true, stricter: false, asks: false }
    }

    /// A part of a document that is its own text.
    fn literal(json: String) -> Self {
        Sample { number: false, ..Sample::number(json) }
    }

    fn string(text: String) -> Self {
        let json = serde_json::to_string(&text).unwrap();
        Sample { json, text, number: false, stricter: false, asks: false }
    }

    fn may_ask(self) -> Self {
        Sample { asks: true, ..self }
    }

    fn may_be_stricter(self) -> Self {
        Sample { stricter: true, ..self }
    }
}

/// Every type with an encoder of its own, modifiers included.
pub fn subjects() -> Vec<Subject> {
    let subject = |kind, sql, send, sample| Subject { kind, sql, send, sample };
    let numeric = |precision, scale, sql| {
        subject(
            Kind::Numeric(Some((precision, scale))),
            sql,
            "numeric_send",
            numeric_sample as fn(&mut Rng) -> _,
        )
    };
    let labels = LABELS.map(str::to_owned);
    vec![
        subject(Kind::Bool, "boolean", "boolsend", bool_sample),
        subject(Kind::Int2, "smallint", "int2send", integer_sample),
        subject(Kind::Int4, "integer", "int4send", integer_sample),
        subject(Kind::Int8, "bigint", "int8send", integer_sample),
        subject(Kind::Float8, "double precision", "float8send", float_sample),
        subject(Kind::Numeric(None), "numeric", "numeric_send", numeric_sample),
        numeric(10, 2, "numeric(10,2)"),
        numeric(5, 0, "numeric(5,0)"),
        numeric(3, -2, "numeric(3,-2)"),
        numeric(2, 5, "numeric(2,5)"),
        numeric(1000, 500, "numeric(1000,500)"),
        subject(Kind::Text, "text", "textsend", text_sample),
        subject(Kind::Varchar(None), "varchar", "varcharsend", text_sample),
        subject(Kind::Varchar(Some(5)), "varchar(5)", "varcharsend", text_sample),
        subject(Kind::Date, "date", "date_send", time_sample),
        subject(Kind::Timestamp(6), "timestamp", "timestamp_send", time_sample),
        subject(Kind::Timestamp(3), "timestamp(3)", "timestamp_send", time_sample),
        subject(Kind::Timestamp(0), "timestamp(0)", "timestamp_send", time_sample),
        subject(Kind::Timestamptz(6), "timestamptz", "timestamptz_send", time_sample),
        subject(Kind::Timestamptz(3), "timestamptz(3)", "timestamptz_send", time_sample),
        subject(Kind::Uuid, "uuid", "uuid_send", uuid_sample),
        subject(Kind::Enum(labels.into()), "pg_temp.sample_enum", "enum_send", enum_sample),
        subject(Kind::Jsonb, "jsonb", "jsonb_send", jsonb_sample),
        list(Kind::Int4, Type::INT4, "integer[]", |random| list_sample(random, integer_sample)),
        list(Kind::Text, Type::TEXT, "text[]", |random| list_sample(random, text_sample)),
        list(Kind::Varchar(Some(5)), Type::VARCHAR, "varchar(5)[]", |random| {
            list_sample(random, text_sample)
        }),
        list(Kind::Numeric(None), Type::NUMERIC, "numeric[]", |random| list_sample(random, numeric_sample)),
        list(Kind::Timestamptz(3), Type::TIMESTAMPTZ, "timestamptz(3)[]", |random| {
            // For elements no zone can be declared.
            let sample = |random: &mut Rng| {
                let sample = time_sample(random);
                Sample { stricter: sample.stricter || sample.asks, ..sample }
            };
            list_sample(random, sample)
        }),
        list(Kind::Jsonb, Type::JSONB, "jsonb[]", |random| list_sample(random, jsonb_sample)),
        list(Kind::Server, Type::INTERVAL, "interval[]", |random| list_sample(random, interval_sample)),
        subject(record(), "pg_temp.sample_row", "record_send", record_sample),
    ]
}

fn list(kind: Kind, element: Type, sql: &'static str, sample: fn(&mut Rng) -> Sample) -> Subject {
    let ty = column_type(kind, element.name(), element.oid());
    let kind = Kind::Array(Element { ty, delimiter: ',' }.into());
    Subject { kind, sql, send: "array_send", sample }
}

fn column_type(kind: Kind, sql: &str, oid: u32) -> ColumnType {
    ColumnType { kind, sql: sql.into(), oid, array_oid: 0, input: String::new(), send: String::new() }
}

fn record() -> Kind {
    let attribute = |name: &str, kind, ty: Type| Attribute {
        name: name.to_owned(),
        ty: column_type(kind, ty.name(), ty.oid()),
    };
    Kind::Composite(
        vec![
            attribute("a", Kind::Int4, Type::INT4),
            attribute("b c", Kind::Text, Type::TEXT),
            attribute("d", Kind::Numeric(None), Type::NUMERIC),
            attribute("e", Kind::Server, Type::INTERVAL),
        ]
        .into(),
    )
}

/// Compares `cases` samples of one type with what the server makes of them.
pub async fn differential(client: &Client, subject: &Subject, cases: u32, seed: u64) -> Counts {
    prepare(client, subject).await;
    let mut random = Rng::with_seed(seed);
    let mut counts = Counts::default();
    for start in (0..cases).step_by(CHUNK as usize) {
        let size = CHUNK.min(cases - start);
        let samples: Vec<_> = (0..size).map(|_| (subject.sample)(&mut random)).collect();
        let numbers: Vec<_> = samples.iter().map(|sample| sample.number).collect();
        let texts = samples.iter().map(|sample| Some(sample.text.as_str())).collect();
        let server = sent(client, texts, &numbers).await;
        let ours: Vec<Ours> = samples.iter().map(|sample| ours(subject, sample)).collect();
        let asked = ours.iter().map(|(encoded, _)| match encoded {
            Ok(Encoded::Ask(text)) => Some(text.as_str()),
            _ => None,
        });
        let answers = sent(client, asked.collect(), &numbers).await;
        for (((sample, ours), server), answer) in samples.iter().zip(&ours).zip(server).zip(answers) {
            judge(subject, sample, ours, server, answer, &mut counts);
        }
    }
    counts
}

/// What the server makes of texts: stored and comparison form, `None` for what it refuses.
async fn sent(
    client: &Client,
    texts: Vec<Option<&str>>,
    numbers: &[bool],
) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
    let query = "SELECT s.sent[1], s.sent[2] FROM unnest($1::text[], $2::bool[]) WITH ORDINALITY AS v(t, n, at), \
                 LATERAL (SELECT pg_temp.sent(t, n)) AS s(sent) ORDER BY at";
    let rows = client.query(query, &[&texts, &numbers]).await.unwrap();
    assert_eq!(rows.len(), texts.len());
    rows.iter().map(|row| row.get::<_, Option<Vec<u8>>>(0).zip(row.get(1))).collect()
}

/// What became of a sample here.
type Ours = (Result<Encoded, ValueError>, Vec<u8>);

fn ours(subject: &Subject, sample: &Sample) -> Ours {
    // In a list, as a value is never a document by itself.
    let document = format!("[{}]", sample.json);
    let items = match Json::parse(document.as_bytes()) {
        Ok(Json::Array(items)) => items,
        other => panic!("{document}: {other:?}"),
    };
    let mut bytes = Vec::new();
    let ty = column_type(subject.kind.clone(), subject.sql, 0);
    let zone = (!subject.is_nested()).then_some("Europe/Madrid");
    let encoded = encode(&items[0], &ty, zone, &mut bytes);
    (encoded, bytes)
}

/// Makes the server's half: text in, stored and comparison form out, NULL for what the type refuses.
async fn prepare(client: &Client, subject: &Subject) {
    let (sql, send) = (subject.sql, subject.send);
    let assign = match subject.kind {
        // What a number stands for in these types is ours to say: its value, not its spelling.
        Kind::Int2 | Kind::Int4 | Kind::Int8 => {
            "IF n THEN d := t::numeric; IF d <> trunc(d) THEN RETURN NULL; END IF; x := d; ELSE x := t; END IF;"
        }
        Kind::Text | Kind::Varchar(_) => "IF n THEN x := trim_scale(t::numeric)::text; ELSE x := t; END IF;",
        _ => "x := t;",
    };
    let compared = match &subject.kind {
        Kind::Jsonb => "pg_temp.trim_numbers(x)".to_owned(),
        Kind::Array(element) if element.ty.kind == Kind::Numeric(None) => {
            // Of one dimension or two, which the samples have.
            "CASE WHEN cardinality(x) = 0 THEN x ELSE (SELECT array_agg(pg_catalog.trim_scale(x[i])) \
                 FROM generate_subscripts(x, 1) AS i) END"
                .to_owned()
        }
        Kind::Array(element) if element.ty.kind == Kind::Jsonb => {
            "CASE WHEN cardinality(x) = 0 THEN x ELSE (SELECT array_agg(pg_temp.trim_numbers(x[i])) \
                 FROM generate_subscripts(x, 1) AS i) END"
                .to_owned()
        }
        Kind::Composite(_) => "ROW(x.a, x.\"b c\", trim_scale(x.d), x.e)::pg_temp.sample_row".to_owned(),
        _ => comparison_sql(&subject.kind, "x"),
    };
    let labels = LABELS.map(|label| format!("'{}'", label.replace('\'', "''"))).join(", ");
    let batch = format!(
        "DROP FUNCTION IF EXISTS pg_temp.sent(text, boolean);
         DROP TYPE IF EXISTS pg_temp.sample_enum;
         CREATE TYPE pg_temp.sample_enum AS ENUM ({labels});
         DROP TYPE IF EXISTS pg_temp.sample_row;
         CREATE TYPE pg_temp.sample_row AS (a integer, \"b c\" text, d numeric, e interval);
         CREATE OR REPLACE FUNCTION pg_temp.trim_numbers(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
             RETURN CASE jsonb_typeof(j)
                 WHEN 'number' THEN to_jsonb(trim_scale((j #>> '{{}}')::numeric))
                 WHEN 'array' THEN coalesce((SELECT jsonb_agg(pg_temp.trim_numbers(v) ORDER BY at)
                                             FROM jsonb_array_elements(j) WITH ORDINALITY AS e(v, at)), '[]')
                 WHEN 'object' THEN coalesce((SELECT jsonb_object_agg(k, pg_temp.trim_numbers(v))
                                              FROM jsonb_each(j) AS e(k, v)), '{{}}')
                 ELSE j END; END $$;
         CREATE FUNCTION pg_temp.sent(t text, n boolean) RETURNS bytea[] LANGUAGE plpgsql AS $$
             DECLARE x {sql}; d numeric;
             BEGIN {assign} RETURN ARRAY[{send}(x), {send}({compared})];
             EXCEPTION WHEN data_exception OR program_limit_exceeded THEN RETURN NULL; END $$;
         SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/St_Johns'"
    );
    client.batch_execute(&batch).await.unwrap();
}

fn judge(
    subject: &Subject,
    sample: &Sample,
    (encoded, bytes): &Ours,
    server: Option<(Vec<u8>, Vec<u8>)>,
    answer: Option<(Vec<u8>, Vec<u8>)>,
    counts: &mut Counts,
) {
    let verdict = match (encoded, &server) {
        (Ok(Encoded::Value), Some((stored, compared))) => (bytes == stored
            && *comparison_form(&subject.kind, bytes) == **compared)
            .then_some(&mut counts.equal),
        (Ok(Encoded::Ask(_)), _) => {
            (sample.asks && answer == server && bytes.is_empty()).then_some(&mut counts.asked)
        }
        (Err(_), None) => Some(&mut counts.refused),
        (Err(_), Some(_)) => sample.stricter.then_some(&mut counts.stricter),
        (Ok(Encoded::Value), None) | (Ok(Encoded::Null), _) => None,
    };
    match verdict {
        Some(count) => *count += 1,
        None if counts.differences.len() >= 20 => {}
        None => counts.differences.push(format!("{}: {encoded:?} {bytes:?}, server {server:?}", sample.json)),
    }
}

fn pick<'a>(random: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

fn digits(random: &mut Rng, count: usize) -> String {
    // Runs of equal digits make carries and zeros to strip.
    let mut digit = '0';
    let mut next = |_| {
        if random.u8(..3) > 0 {
            digit = *random.choice(b"0000123455678999").unwrap() as char;
        }
        digit
    };
    (0..count).map(&mut next).collect()
}

fn length(random: &mut Rng) -> usize {
    match random.u8(..20) {
        0 => random.usize(1..200),
        1..6 => random.usize(1..30),
        _ => random.usize(1..8),
    }
}

fn sign(random: &mut Rng) -> &'static str {
    if random.bool() { "-" } else { "" }
}

/// A number in the grammar of JSON.
fn number(random: &mut Rng, exponent_max: i32) -> String {
    let mut text = sign(random).to_owned();
    let count = length(random);
    let whole = digits(random, count);
    let whole = whole.trim_start_matches('0');
    text += if whole.is_empty() || random.u8(..5) == 0 { "0" } else { whole };
    if random.bool() {
        let count = length(random);
        text = text + "." + &digits(random, count);
    }
    if random.u8(..3) == 0 {
        let exponent = random.i32(-exponent_max..=exponent_max) / random.choice([1, 1, 10]).unwrap();
        let plus = if exponent >= 0 && random.bool() { "+" } else { "" };
        text += &format!("{}{plus}{exponent}", pick(random, &["e", "E"]));
    }
    text
}

/// A string that some type may take for a number.
fn number_like(random: &mut Rng) -> Sample {
    let odd = [
        "NaN",
        "Infinity",
        "-inf",
        " 5 ",
        "+5",
        ".5",
        "00",
        "5.",
        "1_000",
        "0x1F",
        "five",
        "",
        " ",
        "1e",
        "--1",
        "-",
        "1 2",
        "- 1",
        "1e+",
        "007.50",
        "\u{a0}5",
        "٣",
        "1,5",
        "1e5 ",
        "\t-12\n",
        "0b11",
        "99999999999999999999",
        "+0",
        "-0",
    ];
    Sample::string(pick(random, &odd).to_owned()).may_ask()
}

fn bool_sample(random: &mut Rng) -> Sample {
    let word = pick(random, &["true", "false", "t", "f", "yes", "no", "y", "n", "on", "off", "1", "0"]);
    match random.u8(..4) {
        0 => Sample::literal(pick(random, &["true", "false"]).into()),
        1 => Sample::number(pick(random, &["0", "1", "2", "1.0", "-1", "1e0"]).into()).may_ask(),
        2 => Sample::string(word.into()),
        _ => {
            let odd =
                ["TRUE", " true ", "tr", "o", "of", "", "yess", "fals", "True", "2", "01", "null", "\tOFF\n"];
            Sample::string(pick(random, &odd).into()).may_ask()
        }
    }
}

fn integer_sample(random: &mut Rng) -> Sample {
    let limit =
        random.choice([i64::MAX, i64::from(i32::MAX), i64::from(i16::MAX), 1 << 53, 1000, 0]).unwrap();
    let near = i128::from(limit) + random.i128(-3..=3);
    let value = match random.u8(..4) {
        0 => -near,
        1 => near,
        2 => i128::from(random.i64(..) >> random.u32(..64)),
        _ => i128::from(random.i16(..)),
    };
    match random.u8(..10) {
        0 => number_like(random),
        1 => Sample::number(number(random, 25)),
        2 => {
            Sample::string(format!("{}{value}{}", pick(random, &[" ", "", "\n"]), pick(random, &["", "  "])))
        }
        3 => Sample::string(pick(random, &["+", "0", ""]).to_owned() + &value.to_string()).may_ask(),
        4 => Sample::number(value.to_string()),
        _ => Sample::number(respelled(random, value)),
    }
}

/// Another spelling of a whole number.
fn respelled(random: &mut Rng, value: i128) -> String {
    let (sign, digits) = (if value < 0 { "-" } else { "" }, value.unsigned_abs().to_string());
    let zeros = "0".repeat(random.usize(..5));
    match random.u8(..4) {
        0 => format!("{sign}{digits}.0{zeros}"),
        1 => format!("{sign}{}.{}{zeros}0e{}", &digits[..1], &digits[1..], digits.len() - 1),
        2 if value != 0 => format!("{sign}{digits}{zeros}E-{}", zeros.len()),
        2 => "-0e0".to_owned(),
        _ => format!("{sign}0.{zeros}{digits}e+{}", digits.len() + zeros.len()),
    }
}

fn float_sample(random: &mut Rng) -> Sample {
    let edges = [
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e309",
        "-1e400",
        "5e-324",
        "2e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "1e-400",
        "0e-400",
        "-0",
        "-0.0",
        "0.0e5",
        "2.2250738585072011e-308",
        "9007199254740993",
        "0.1",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0e99999999999999999999",
        "1e23",
        "8.5e22",
    ];
    let finite = |random: &mut Rng| {
        Some(f64::from_bits(random.u64(..))).filter(|value| value.is_finite()).unwrap_or(0.5)
    };
    match random.u8(..10) {
        0 => number_like(random),
        1 => Sample::number(pick(random, &edges).into()),
        2 => Sample::string(format!("{:e}", finite(random))),
        3 => Sample::number(format!("{:.*e}", random.usize(10..40), finite(random))),
        // The middle between two neighbours, exactly.
        4 => Sample::number(format!(
            "{}",
            (1u128 << 54 | u128::from(random.u64(..1 << 52)) << 2 | 2) << random.u32(..60)
        )),
        5 => Sample::number(number(random, 320)),
        6 => Sample::number(number(random, 30)),
        _ => Sample::number(format!("{:e}", finite(random))),
    }
}

fn numeric_sample(random: &mut Rng) -> Sample {
    let edges = [
        "99999999.99",
        "99999999.994999999",
        "99999999.995",
        "-99999999.995",
        "0.005",
        "-0.005",
        "0.0049",
        "-0.0",
        "0e5",
        "0.000e-3",
        "0e-20",
        "99949",
        "99950",
        "-99950",
        "49.999",
        "50",
        "0.000994",
        "0.000995",
        "0.0009949999",
        "1e131071",
        "1e131072",
        "1e-16383",
        "1e-16384",
        "0e-16383",
        "0e-16384",
        "0e131072",
        "0e999999",
        "1e1073741822",
        "0e1073741822",
        "0e1073741823",
        "0e-1073741823",
        "1e-1073741822",
        "1e999999999",
        "1e-999999999",
        "99999.5",
        "99999.4",
        "0.5",
        "-0.4",
        "1e99999999999999999999",
        "9.5e499",
        "9.99e499",
        "1e500",
        "5e-501",
        "4.9e-501",
        "12345e-16380",
        "9999e131067",
    ];
    match random.u8(..20) {
        0 => number_like(random),
        1..4 => match pick(random, &edges) {
            // PostgreSQL takes it from 16 on.
            edge @ "0e1073741823" => Sample::number(edge.into()).may_be_stricter(),
            edge => Sample::number(edge.into()),
        },
        4 => Sample::string(number(random, 20)),
        5 => Sample::number(number(random, 600)),
        6..10 => Sample::number(number(random, 12)),
        _ => {
            let (whole, fraction) = (random.usize(1..12), random.usize(1..7));
            let sign = sign(random);
            let whole = digits(random, whole);
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            Sample::number(format!("{sign}{whole}.{}", digits(random, fraction)))
        }
    }
}

/// A text of characters that are awkward somewhere.
fn words(random: &mut Rng, length_max: usize) -> String {
    let characters: Vec<char> =
        "ab Zé ñ€😀\"\\/\u{301}\n\t\r\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028}\u{feff}'{}[],:.0".chars().collect();
    let count = random.usize(..=length_max);
    (0..count).map(|_| *random.choice(&characters).unwrap()).collect()
}

fn text_sample(random: &mut Rng) -> Sample {
    match random.u8(..10) {
        0 => Sample::number(number(random, 40)),
        1 => Sample::number(number(random, 3)),
        2 => Sample::literal(pick(random, &["true", "false"]).into()),
        // The server cuts blanks beyond the length.
        3 => Sample::string(words(random, 4) + &" ".repeat(random.usize(..4))).may_be_stricter(),
        _ => {
            let text = words(random, 8);
            let blank = text.ends_with(' ');
            Sample { stricter: blank, ..Sample::string(text) }
        }
    }
}

fn time_sample(random: &mut Rng) -> Sample {
    let odd = [
        "infinity",
        "-infinity",
        "Infinity",
        "+infinity",
        "now",
        "today",
        "epoch",
        "31/05/2024",
        "05/31/2024",
        "20240531",
        "2024-5-31",
        "24-05-31",
        "May 31, 2024",
        "2024-05-31T",
        "2024-05-31T10",
        "2024-05-31 10:00 PM",
        "2024-05-31T10:00:00 Europe/Madrid",
        "2024-05-31T10:00:00 CET",
        "2024-W22-5",
        "2024.152",
        "allballs",
        "",
        " ",
        "2024-05-31T10:00:00+1",
        "2024-05-31T10:00:00+010203",
        "2024-05-31T10:00:00.",
        "2024-05-31T10:00:00,5",
        "J2451187",
        "2024-05-31Z",
        "2024-05-31+02:00",
        "2024-05-31T1000",
        "2024-05-31T10:00:00ZZ",
        "99999999-01-01",
        "2024-05-31  10:00",
    ];
    match random.u8(..20) {
        0 => Sample::string(pick(random, &odd).into()).may_be_stricter(),
        1 => Sample::number(number(random, 3)).may_be_stricter(),
        _ => iso_sample(random),
    }
}

/// What has the shape of ISO 8601, though not always a place in the calendar.
fn iso_sample(random: &mut Rng) -> Sample {
    let year = match random.u8(..12) {
        0 => format!("{:04}", random.u32(..20)),
        1 => random.u32(10_000..300_000).to_string(),
        2 => format!("{}", 294_270 + random.u32(..10)),
        3 => format!("{}", 5_874_890 + random.u32(..12)),
        4 => format!("{:04}", random.u32(1..10_000)),
        // The first one is 4714 BC.
        6 => format!("{:04}", random.u32(4711..4717)),
        5 => pick(random, &["1900", "2000", "2100", "1999", "0004", "0001"]).to_owned(),
        _ => format!("{}", random.u32(1950..2050)),
    };
    let month = if random.u8(..20) == 0 { random.u8(..15) } else { random.u8(1..13) };
    let day = if random.u8(..4) == 0 { random.u8(27..33) } else { random.u8(1..29) };
    let mut text = format!("{year}-{month:02}-{day:02}");
    let mut asks = true;
    if random.u8(..8) > 0 {
        text += pick(random, &["T", "T", " ", "t"]);
        text += &clock(random);
        if random.u8(..4) > 0 {
            text += &offset(random);
            asks = false;
        }
    }
    if random.u8(..8) == 0 {
        text += pick(random, &[" BC", " bc", "  BC"]);
    }
    let blank = |random: &mut Rng| if random.u8(..10) == 0 { " " } else { "" };
    let text = format!("{}{text}{}", blank(random), blank(random));
    // Without an offset an instant needs the declared zone.
    Sample { asks, ..Sample::string(text) }
}

fn clock(random: &mut Rng) -> String {
    let edges = [
        "24:00",
        "24:00:00",
        "23:59:60",
        "24:00:00.0000001",
        "24:00:01",
        "23:59:59.9999999",
        "23:59:60.0000004",
        "25:00",
    ];
    if random.u8(..12) == 0 {
        return pick(random, &edges).to_owned();
    }
    let mut text = format!("{:02}:{:02}", random.u8(..24), random.u8(..60));
    if random.u8(..5) == 0 {
        return text;
    }
    let second = if random.u8(..8) == 0 { random.u8(58..63) } else { random.u8(..60) };
    text += &format!(":{second:02}");
    match random.u8(..5) {
        0 => {}
        // Halves, of a microsecond and of a millisecond.
        1 => text += &format!(".{:06}5", random.u32(..1_000_000)),
        2 => text += &format!(".{:03}5", random.u32(..1000)),
        3 => {
            text += &format!(
                ".{}",
                pick(random, &["9999995", "999999499999", "5", "0000005", "0000015", "000000500000001"])
            )
        }
        _ => {
            let count = random.usize(1..16);
            text = text + "." + &digits(random, count);
        }
    }
    text
}

fn offset(random: &mut Rng) -> String {
    let (hour, minute, second) = (random.u8(..17), random.u8(..62), random.u8(..62));
    let blank = pick(random, &["", "", "", "", "", " "]);
    let sign = pick(random, &["+", "-"]);
    let spelled = match random.u8(..6) {
        0 => return format!("{blank}{}", pick(random, &["Z", "Z", "z"])),
        1 => format!("{hour:02}"),
        2 => format!("{hour:02}{minute:02}"),
        3 => format!("{hour:02}:{minute:02}:{second:02}"),
        4 => format!("{hour:02}:00"),
        _ => format!("{hour:02}:{minute:02}"),
    };
    format!("{blank}{sign}{spelled}")
}

fn uuid_sample(random: &mut Rng) -> Sample {
    let hex = format!("{:032x}", random.u128(..));
    let canonical = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    match random.u8(..8) {
        0 => Sample::string(canonical.to_uppercase()),
        1 => Sample::string(hex).may_ask(),
        2 => Sample::string(format!("{{{canonical}}}")).may_ask(),
        3 => {
            let at = random.usize(..canonical.len());
            let odd = pick(random, &["g", " ", "", "-", "é", "+", "0"]);
            Sample::string(format!("{}{odd}{}", &canonical[..at], &canonical[at + 1..])).may_ask()
        }
        4 => Sample::number(number(random, 3)).may_ask(),
        _ => Sample::string(canonical),
    }
}

const LABELS: [&str; 8] = ["open", "Open", "it's", "ñandú", " blank ", "1", "true", "q\"uote\\"];

fn enum_sample(random: &mut Rng) -> Sample {
    match random.u8(..6) {
        0 => Sample::string(words(random, 3)),
        1 => Sample::string(pick(random, &["OPEN", "open ", "", "its"]).into()),
        2 => Sample::number(pick(random, &["1", "1.0", "2"]).into()),
        3 => Sample::literal(pick(random, &["true", "false"]).into()),
        _ => Sample::string(pick(random, &LABELS).into()),
    }
}

/// A list of samples, and the same as PostgreSQL writes it, with every element in quotes.
fn list_sample(random: &mut Rng, element: fn(&mut Rng) -> Sample) -> Sample {
    let count = if random.u8(..8) == 0 { 0 } else { random.usize(1..5) };
    let samples: Vec<Sample> = (0..count).map(|_| in_list(random, element)).collect();
    let items: Vec<&str> = samples.iter().map(|sample| sample.json.as_str()).collect();
    let words: Vec<String> = samples.iter().map(Sample::quoted).collect();
    Sample {
        json: format!("[{}]", items.join(", ")),
        text: format!("{{{}}}", words.join(",")),
        number: false,
        stricter: samples.iter().any(|sample| sample.stricter),
        asks: true,
    }
}

fn in_list(random: &mut Rng, element: fn(&mut Rng) -> Sample) -> Sample {
    match random.u8(..10) {
        0 => Sample { text: NULL.into(), ..Sample::literal("null".into()) },
        // What numbers stand for in integers and texts is seen where they are alone.
        _ => loop {
            let sample = element(random);
            if !sample.number
                || sample.text.parse::<i64>().is_ok_and(|number| number.to_string() == sample.text)
            {
                break sample;
            }
        },
    }
}

/// Stands for null; no sample is so spelled.
const NULL: &str = "\u{1}null";

impl Sample {
    fn quoted(&self) -> String {
        match self.text.as_str() {
            NULL => "NULL".to_owned(),
            text => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }
}

fn interval_sample(random: &mut Rng) -> Sample {
    let spelled = [
        "1 day",
        "P1DT2H",
        "24:00:00",
        "1-2",
        "@ 3 months ago",
        "-00:00:01.5",
        "1 mon 2 days",
        "infinite",
        "P1Y2M3DT4H5M6S",
    ];
    Sample::string(pick(random, &spelled).into()).may_ask()
}

fn record_sample(random: &mut Rng) -> Sample {
    let fields = [integer_sample, text_sample, numeric_sample, interval_sample];
    let samples: Vec<Sample> = fields.into_iter().map(|field| in_list(random, field)).collect();
    let members = ["a", "b c", "d", "e"].iter().zip(&samples);
    let members: Vec<String> = members.map(|(name, sample)| format!("\"{name}\": {}", sample.json)).collect();
    let words =
        samples.iter().map(|sample| Some(sample.quoted()).filter(|word| word != "NULL").unwrap_or_default());
    Sample {
        json: format!("{{{}, \"more\": 1}}", members.join(", ")),
        text: format!("({})", words.collect::<Vec<_>>().join(",")),
        number: false,
        stricter: samples.iter().any(|sample| sample.stricter),
        asks: true,
    }
}

fn jsonb_sample(random: &mut Rng) -> Sample {
    let depth = random.u8(..5);
    let json = loop {
        let json = tree(random, depth);
        // A bare null is SQL's.
        if json.trim() != "null" {
            break json;
        }
    };
    Sample::literal(json)
}

fn tree(random: &mut Rng, depth: u8) -> String {
    let blank = pick(random, &["", "", " ", "\n\t"]);
    let count = random.usize(..6);
    let inner = match random.u8(..if depth == 0 { 4 } else { 8 }) {
        0 => pick(random, &["null", "true", "false", "\"\"", "{}", "[]", "[ ]", "-0", "-0.00", "0e-3"])
            .to_owned(),
        1 => {
            let exponent_max = if random.u8(..50) == 0 { 20_000 } else { 20 };
            number(random, exponent_max)
        }
        2 => {
            let (whole, zeros) = (random.u32(..2000), "0".repeat(random.usize(..3)));
            format!("{whole}.{}{zeros}", random.u8(..10))
        }
        3 => string(random),
        4 | 5 => {
            let items: Vec<_> = (0..count).map(|_| tree(random, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let member = |random: &mut Rng| format!("{}{blank}:{}", name(random), tree(random, depth - 1));
            let members: Vec<_> = (0..count).map(|_| member(random)).collect();
            format!("{{{}}}", members.join(","))
        }
    };
    format!("{blank}{inner}{blank}")
}

/// Short names, so that some are repeated.
fn name(random: &mut Rng) -> String {
    let names = [
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\"aa\"",
        "\"é\"",
        "\"\\u00e9\"",
        "\"\"",
        "\"B\"",
        "\"a.0\"",
        "\"€\"",
        "\"zz\"",
    ];
    if random.u8(..4) == 0 { string(random) } else { pick(random, &names).to_owned() }
}

/// A string of a document, some of its characters escaped without need.
fn string(random: &mut Rng) -> String {
    let plain = serde_json::to_string(&words(random, 6)).unwrap();
    match random.u8(..40) {
        0 => r#""a\u0000b""#.to_owned(),
        1 => r#""\ud83d\ude00\/\u002f\u001F""#.to_owned(),
        2 => r#""1.50 \" 2.0""#.to_owned(),
        3 => r#""\\\" 3.00""#.to_owned(),
        _ => plain,
    }
}

/// Before 15 a scale lies between 0 and the precision.
const NEW_SCALES: [&str; 2] = ["numeric(3,-2)", "numeric(2,5)"];

#[tokio::test]
async fn p06_every_encoder_makes_the_bytes_of_the_server() {
    let database = crate::support::db().await;
    let client = database.client().await;
    let cases = std::env::var("ROWDELTA_VALUE_CASES").map_or(2000, |cases| cases.parse().unwrap());
    let seed = std::env::var("ROWDELTA_VALUE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut differing = Vec::new();
    for subject in subjects() {
        if crate::support::cluster::cluster().major < 15 && NEW_SCALES.contains(&subject.sql) {
            println!("skipped: {} needs PostgreSQL 15", subject.sql);
            continue;
        }
        let counts = differential(&client, &subject, cases, seed).await;
        let Counts { equal, refused, asked, stricter, differences } = counts;
        println!("{:20} {equal} equal, {refused} refused, {asked} asked, {stricter} stricter", subject.sql);
        differing.extend(differences.into_iter().map(|what| format!("{}: {what}", subject.sql)));
    }
    assert!(differing.is_empty(), "{} differences\n{}", differing.len(), differing.join("\n"));
}
