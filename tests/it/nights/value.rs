//! Values of many types, each with several spellings that PostgreSQL stores as one.

use fastrand::Rng;

/// Types of columns that are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Bool,
    Int4,
    Int8,
    Numeric2,
    Numeric,
    Text,
    Varchar,
    Date,
    Timestamptz,
    Jsonb,
    Float8,
    Enum,
    Uuid,
    /// Converted by the server.
    Inet,
    /// Converted by the server.
    IntArray,
}

use Ty::*;

pub const ALL: [Ty; 15] = [
    Bool,
    Int4,
    Int8,
    Numeric2,
    Numeric,
    Text,
    Varchar,
    Date,
    Timestamptz,
    Jsonb,
    Float8,
    Enum,
    Uuid,
    Inet,
    IntArray,
];

/// Types of key columns that are drawn.
pub const KEYS: [Ty; 4] = [Int4, Int8, Text, Numeric];

/// Values that are the same in every row, as TOML, and their types.
pub const CONSTANTS: [(&str, Ty); 8] = [
    ("\"fijo é\"", Text),
    ("42", Int4),
    ("\"-7\"", Int8),
    ("2.50", Numeric),
    ("true", Bool),
    ("\"2024-02-29\"", Date),
    ("\"hïgh\"", Enum),
    ("\"{1,2}\"", IntArray),
];

/// One value: JSON texts that all stand for it.
pub type Spellings = Vec<String>;

/// Texts that went wrong somewhere once.
const ODD: [&str; 13] = [
    "",
    "línea\nnueva",
    "lost \u{fffd} letter",
    " ",
    "a\u{a0}b",
    "tab\there",
    "say \"hi\"",
    "back\\slash \\N",
    "e\u{301} é",
    "🦀 日本",
    "null",
    "{1,2}",
    "a,b;c'd",
];

impl Ty {
    pub fn sql(self) -> &'static str {
        match self {
            Bool => "boolean",
            Int4 => "integer",
            Int8 => "bigint",
            Numeric2 => "numeric(10,2)",
            Numeric => "numeric",
            Text => "text",
            Varchar => "varchar(20)",
            Date => "date",
            Timestamptz => "timestamptz",
            Jsonb => "jsonb",
            Float8 => "double precision",
            Enum => "mood",
            Uuid => "uuid",
            Inet => "inet",
            IntArray => "integer[]",
        }
    }

    /// SQL of a default.
    pub fn default(self) -> &'static str {
        match self {
            Bool => "true",
            Int4 | Int8 | Numeric2 | Numeric | Float8 => "7",
            Text | Varchar => "'by default'",
            Date => "'2000-01-01'",
            Timestamptz => "'2000-01-01 00:00+00'",
            Jsonb => "'{\"d\": 1.0}'",
            Enum => "'low'",
            Uuid => "'00000000-0000-0000-0000-000000000001'",
            Inet => "'127.0.0.1'",
            IntArray => "'{7}'",
        }
    }

    /// Whether there is text in its values.
    pub fn has_text(self) -> bool {
        matches!(self, Text | Varchar | Jsonb)
    }

    /// Whether it may be that of a key's column.
    pub fn is_key(self) -> bool {
        KEYS.contains(&self) || matches!(self, Bool | Date | Enum)
    }

    pub fn is_server_converted(self) -> bool {
        matches!(self, Inet | IntArray)
    }

    /// A value out of `pool` different ones.
    pub fn draw(self, rng: &mut Rng, pool: u64) -> Spellings {
        self.value(&mut Rng::with_seed(rng.u64(0..pool)))
    }

    fn value(self, rng: &mut Rng) -> Spellings {
        match self {
            Bool if rng.bool() => spell(&["true", "\"t\"", "\"yes\"", "1"]),
            Bool => spell(&["false", "\"f\"", "\"no\"", "0"]),
            Int4 => integer(rng.i32(..).into()),
            Int8 => integer(rng.i64(..)),
            Numeric2 => {
                let cents = rng.i64(-1_000_000..1_000_000);
                let sign = if cents < 0 { "-" } else { "" };
                let plain = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
                vec![
                    format!("{plain}000"),
                    format!("{plain}4"),
                    format!("{cents}e-2"),
                    format!("\"{plain}\""),
                    plain,
                ]
            }
            Numeric => numeric(rng.i64(-10_000..10_000), rng.usize(0..4)),
            Text if rng.u8(..) < 10 => text(&"long ".repeat(rng.usize(400..3000))),
            Text if rng.u8(..) < 20 => {
                let number = rng.i32(1..1000);
                vec![format!("{number}.5"), format!("{number}.50"), format!("\"{number}.5\"")]
            }
            Text | Varchar => text(&format!("{}{}", ODD[rng.usize(..ODD.len())], rng.u8(..))),
            Date => {
                let (year, month, day) = day(rng);
                vec![
                    format!("\"{year:04}-{month:02}-{day:02}\""),
                    format!("\"{year:04}-{month:02}-{day:02}T23:59:00+14:00\""),
                    format!("\" {year:04}-{month:02}-{day:02} \""),
                ]
            }
            Timestamptz => {
                let (year, month, day) = day(rng);
                let (hour, rest) = (rng.u8(4..20), format!("{:02}:{:02}.{}", rng.u8(..60), rng.u8(..60), 25));
                let at = |shift: i8, zone: &str| {
                    let hour = hour as i8 + shift;
                    format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{rest}{zone}\"")
                };
                vec![at(0, "Z"), at(2, "+02:00"), at(-3, "-03"), at(0, "0+00:00")]
            }
            Jsonb => {
                let (n, word) = (rng.u16(..), quoted(ODD[rng.usize(..ODD.len())], false));
                vec![
                    format!("{{\"a\":{n},\"b\":[1.5,{word},null,{{}}]}}"),
                    format!("{{\"b\" : [ 1.50, {word} ,null, {{}} ], \"a\": {n}.0}}"),
                    format!("{{\"a\":0,\"b\":[15e-1,{word},null,{{}}],\"a\":{n}}}"),
                ]
            }
            Float8 => {
                let quarters = rng.i32(-4000..4000);
                let plain = format!("{:?}", f64::from(quarters) / 4.0);
                let hundredths = format!("{}e-2", quarters * 25);
                if quarters == 0 { vec![plain] } else { vec![format!("{plain}0"), hundredths, plain] }
            }
            Enum => text(super::shape::LABELS[rng.usize(..super::shape::LABELS.len())]),
            Uuid => {
                let hex = format!("{:032x}", rng.u128(..));
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
                vec![format!("\"{parts}\""), format!("\"{}\"", parts.to_uppercase()), format!("\"{hex}\"")]
            }
            Inet => {
                let address = format!("10.{}.{}.7", rng.u8(..), rng.u8(..));
                vec![format!("\"{address}\""), format!("\"{address}/32\"")]
            }
            IntArray => {
                let (a, b) = (rng.u8(..), rng.u8(..));
                vec![format!("\"{{{a},{b}}}\""), format!("\"{{ {a} , {b} }}\"")]
            }
        }
    }

    /// The `n`-th key.
    pub fn key(self, n: u64) -> Spellings {
        match self {
            Int4 | Int8 => integer(n as i64 * 7 - 20),
            Numeric => numeric(n as i64 * 5 - 15, 1),
            _ => text(&format!("{}#{n}", ODD[n as usize % ODD.len()])),
        }
    }
}

fn spell(texts: &[&str]) -> Spellings {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn integer(n: i64) -> Spellings {
    vec![n.to_string(), format!("{n}.0"), format!("\"{n}\"")]
}

/// `mantissa` · 10^−`scale`.
fn numeric(mantissa: i64, scale: usize) -> Spellings {
    let sign = if mantissa < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", mantissa.abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = if scale == 0 { "0" } else { fraction };
    vec![
        format!("{sign}{whole}.{fraction}"),
        format!("{sign}{whole}.{fraction}00"),
        format!("{mantissa}e-{scale}"),
        format!("\"{sign}{whole}.{fraction}\""),
    ]
}

fn day(rng: &mut Rng) -> (u16, u8, u8) {
    (rng.u16(1950..2080), rng.u8(1..13), rng.u8(1..29))
}

fn text(text: &str) -> Spellings {
    vec![quoted(text, false), quoted(text, true)]
}

/// A JSON string; `escaped`: all that can be is.
pub fn quoted(text: &str, escaped: bool) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' if !escaped => out.push_str("\\n"),
            '\t' if !escaped => out.push_str("\\t"),
            c if c.is_ascii_graphic() || c == ' ' || (!escaped && !c.is_control()) => out.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
    out
}
