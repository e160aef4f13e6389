use super::*;

fn column(kind: Kind, sql: &str) -> ColumnType {
    ColumnType { kind, sql: sql.into(), oid: 0, array_oid: 0, input: String::new(), send: String::new() }
}

/// Encodes the JSON text `json`, checking that a failure leaves no bytes behind.
fn run(kind: &Kind, json: &str) -> Result<Result<Vec<u8>, Encoded>, String> {
    let document = format!("[{json}]");
    let Ok(Json::Array(items)) = Json::parse(document.as_bytes()) else { panic!("{json}") };
    let json = &items[0];
    let mut out = vec![7];
    let result = encode(json, &column(kind.clone(), "sometype"), None, &mut out);
    assert_eq!(out[0], 7);
    match result {
        Ok(Encoded::Value) => Ok(Ok(out.split_off(1))),
        other => {
            assert_eq!(out, [7], "bytes without a value");
            other.map(Err).map_err(|error| error.to_string())
        }
    }
}

fn bytes(kind: &Kind, json: &str) -> Vec<u8> {
    run(kind, json).unwrap().unwrap()
}

fn asked(kind: &Kind, json: &str) -> String {
    match run(kind, json).unwrap().unwrap_err() {
        Encoded::Ask(text) => text,
        other => panic!("{other:?}"),
    }
}

fn error(kind: &Kind, json: &str) -> String {
    run(kind, json).unwrap_err()
}

/// A number's wire fields: weight, sign, scale and digits.
fn numeric_fields(kind: &Kind, json: &str) -> (i16, u16, u16, Vec<u16>) {
    let bytes = bytes(kind, json);
    let field: Vec<_> = bytes.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
    assert_eq!(usize::from(field[0]), field.len() - 4);
    (field[1] as i16, field[2], field[3], field[4..].to_vec())
}

fn jsonb_text(json: &str) -> String {
    let bytes = bytes(&Kind::Jsonb, json);
    assert_eq!(bytes[0], 1);
    String::from_utf8(bytes[1..].to_vec()).unwrap()
}

fn compared(kind: &Kind, json: &str) -> Vec<u8> {
    comparison_form(kind, &bytes(kind, json)).into_owned()
}

const NUMERIC: Kind = Kind::Numeric(None);
const ALL: [Kind; 14] = [
    Kind::Bool,
    Kind::Int2,
    Kind::Int4,
    Kind::Int8,
    Kind::Float8,
    NUMERIC,
    Kind::Numeric(Some((10, 2))),
    Kind::Text,
    Kind::Varchar(Some(3)),
    Kind::Date,
    Kind::Timestamp(6),
    Kind::Timestamptz(6),
    Kind::Uuid,
    Kind::Server,
];

#[test]
fn p11_null_is_null_for_every_type() {
    for kind in ALL.iter().chain([&Kind::Jsonb]) {
        assert_eq!(run(kind, "null"), Ok(Err(Encoded::Null)), "{kind:?}");
    }
}

#[test]
fn lists_and_objects_fit_json_only() {
    for kind in &ALL {
        assert!(error(kind, "[1]").ends_with(", found a list"), "{kind:?}");
        assert!(error(kind, "{}").ends_with(", found an object"), "{kind:?}");
    }
    assert_eq!(error(&Kind::Int4, "{}"), "expected an integer, found an object");
}

#[test]
fn p06_integers_take_every_spelling_of_a_whole_number() {
    for spelling in ["5", "5.0", "5e0", "50e-1", "0.5e1", "500E-2", "\"5\"", "\" +05 \""] {
        assert_eq!(bytes(&Kind::Int2, spelling), [0, 5], "{spelling}");
    }
    assert_eq!(bytes(&Kind::Int4, "-1"), [0xff; 4]);
    assert_eq!(bytes(&Kind::Int4, "-0"), [0; 4]);
    assert_eq!(bytes(&Kind::Int4, "0e999999999999"), [0; 4]);
    assert_eq!(asked(&Kind::Int4, "\"0x1F\""), "0x1F");
    assert_eq!(asked(&Kind::Int4, "\"5.0\""), "5.0");
}

#[test]
fn p07_integers_are_exact_or_refused() {
    assert_eq!(bytes(&Kind::Int8, "9007199254740993"), 9_007_199_254_740_993i64.to_be_bytes());
    assert_eq!(bytes(&Kind::Int8, "9.223372036854775807e18"), i64::MAX.to_be_bytes());
    assert_eq!(bytes(&Kind::Int8, "-9223372036854775808.0"), i64::MIN.to_be_bytes());
    assert_eq!(error(&Kind::Int8, "9223372036854775808"), "9223372036854775808 is out of range for bigint");
    assert_eq!(error(&Kind::Int4, "2147483648"), "2147483648 is out of range for integer");
    assert_eq!(error(&Kind::Int2, "\"-32769\""), "\"-32769\" is out of range for smallint");
    assert_eq!(error(&Kind::Int2, "1e999999999999"), "1e999999999999 is out of range for smallint");
    assert_eq!(error(&Kind::Int4, "1.5"), "expected an integer, found 1.5");
    assert_eq!(error(&Kind::Int4, "1e-999999999999"), "expected an integer, found 1e-999999999999");
    assert_eq!(error(&Kind::Int4, "true"), "expected an integer, found true");
}

#[test]
fn booleans_take_plain_words_and_ask_about_others() {
    for (json, expected) in [("true", 1), ("false", 0), ("\"t\"", 1), ("\"false\"", 0)] {
        assert_eq!(bytes(&Kind::Bool, json), [expected]);
    }
    assert_eq!(asked(&Kind::Bool, "1"), "1");
    assert_eq!(asked(&Kind::Bool, "\" TRUE\""), " TRUE");
}

#[test]
fn p07_doubles_neither_overflow_nor_vanish() {
    assert_eq!(bytes(&Kind::Float8, "0.1"), 0.1f64.to_be_bytes());
    assert_eq!(bytes(&Kind::Float8, "-0"), (-0.0f64).to_be_bytes());
    assert_eq!(bytes(&Kind::Float8, "5e-324"), 5e-324f64.to_be_bytes());
    assert_eq!(error(&Kind::Float8, "1e309"), "1e309 is out of range for double precision");
    assert_eq!(error(&Kind::Float8, "1e-400"), "1e-400 is out of range for double precision");
    assert_eq!(asked(&Kind::Float8, "\"NaN\""), "NaN");
}

#[test]
fn p06_numeric_keeps_the_written_scale() {
    assert_eq!(numeric_fields(&NUMERIC, "1.50"), (0, 0, 2, vec![1, 5000]));
    assert_eq!(numeric_fields(&NUMERIC, "1e5"), (1, 0, 0, vec![10]));
    assert_eq!(numeric_fields(&NUMERIC, "1.5e-3"), (-1, 0, 4, vec![15]));
    assert_eq!(numeric_fields(&NUMERIC, "-0"), (0, 0, 0, vec![]));
    assert_eq!(numeric_fields(&NUMERIC, "-0.00"), (0, 0, 2, vec![]));
    assert_eq!(numeric_fields(&NUMERIC, "\"-12345678.9\""), (1, 0x4000, 1, vec![1234, 5678, 9000]));
    assert_eq!(asked(&NUMERIC, "\".5\""), ".5");
}

#[test]
fn p06_numeric_rounds_half_away_from_zero_at_its_scale() {
    let kind = Kind::Numeric(Some((10, 2)));
    assert_eq!(bytes(&kind, "1"), bytes(&kind, "1.00"));
    assert_eq!(numeric_fields(&kind, "1.005"), (0, 0, 2, vec![1, 100]));
    assert_eq!(numeric_fields(&kind, "-1.005"), (0, 0x4000, 2, vec![1, 100]));
    assert_eq!(numeric_fields(&kind, "1.00499999"), (0, 0, 2, vec![1]));
    assert_eq!(numeric_fields(&kind, "9999.995"), (1, 0, 2, vec![1]));
    assert_eq!(numeric_fields(&kind, "-0.004"), (0, 0, 2, vec![]));
    assert_eq!(numeric_fields(&kind, "1e-16383"), (0, 0, 2, vec![]));
    assert_eq!(numeric_fields(&Kind::Numeric(Some((3, -2))), "12350"), (1, 0, 0, vec![1, 2400]));
    assert_eq!(numeric_fields(&Kind::Numeric(Some((2, 4))), "0.00985"), (-1, 0, 4, vec![99]));
}

#[test]
fn p07_numeric_refuses_what_its_digits_cannot_hold() {
    let message = "numeric field overflow: 99999999.995 does not fit numeric(10,2)";
    assert_eq!(error(&Kind::Numeric(Some((10, 2))), "99999999.995"), message);
    assert!(run(&Kind::Numeric(Some((2, 4))), "0.00995").is_err());
    assert!(bytes(&NUMERIC, "1e131071").len() == 10);
    for beyond in ["1e131072", "1e-16384", "1e999999999", "1e-999999999", "0e-16384", "0e99999999999"] {
        assert_eq!(error(&NUMERIC, beyond), format!("{beyond} is out of range for numeric"));
    }
    assert!(run(&Kind::Numeric(Some((10, 2))), "1e999999999999999999999").is_err());
    assert!(run(&Kind::Numeric(Some((10, 2))), "1e-16384").is_err());
}

#[test]
fn p09_text_is_stored_as_given_or_not_at_all() {
    assert_eq!(bytes(&Kind::Text, r#""a\u0301 é""#), "a\u{301} é".as_bytes());
    assert_eq!(error(&Kind::Text, r#""a\u0000""#), "contains U+0000, which PostgreSQL cannot store");
    let kind = Kind::Varchar(Some(3));
    assert_eq!(bytes(&kind, "\"añ😀\""), "añ😀".as_bytes());
    assert_eq!(error(&kind, "\"abcd\""), "4 characters, longer than varchar(3)");
    assert_eq!(error(&kind, "\"abc  \""), "5 characters, longer than varchar(3)");
    assert_eq!(error(&kind, "12345.0"), "5 characters, longer than varchar(3)");
}

#[test]
fn p06_the_spelling_of_a_number_does_not_reach_text() {
    for (json, expected) in
        [("1.50", "1.5"), ("1e2", "100"), ("-0", "0"), ("-0.0", "0"), ("1.5e-3", "0.0015"), ("true", "true")]
    {
        assert_eq!(bytes(&Kind::Text, json), expected.as_bytes(), "{json}");
    }
    assert_eq!(error(&Kind::Text, "1e999999999"), "1e999999999 is out of range for numeric");
}

#[test]
fn p08_dates_are_iso_and_in_the_calendar() {
    for (text, days) in [
        ("2000-01-01", 0),
        ("1999-12-31T23:59:59.999Z", -1),
        ("2024-02-29 10:00+15:59", 8825),
        ("0001-01-01", -730_119),
        ("5874897-12-31", 2_145_031_948),
        ("infinity", i32::MAX),
        ("-Infinity", i32::MIN),
    ] {
        assert_eq!(bytes(&Kind::Date, &format!("{text:?}")), days.to_be_bytes(), "{text}");
    }
    for text in
        ["2023-02-29", "31/05/2024", "now", "24-05-31", "0000-01-01", "2024-05-31T25:00", "2024-5-31", ""]
    {
        let message = format!("expected a date such as 2024-05-31, found {text:?}");
        assert_eq!(error(&Kind::Date, &format!("{text:?}")), message);
    }
    assert_eq!(error(&Kind::Date, "\"5874898-01-01\""), "\"5874898-01-01\" is out of range for date");
}

#[test]
fn p08_timestamps_are_rounded_twice_as_the_server_does() {
    let micros = |precision, text: &str| {
        i64::from_be_bytes(bytes(&Kind::Timestamp(precision), &format!("{text:?}")).try_into().unwrap())
    };
    assert_eq!(micros(6, "2000-01-01T00:00:00.0000005"), 0);
    assert_eq!(micros(6, "2000-01-01T00:00:00.0000015"), 2);
    assert_eq!(micros(3, "2000-01-01 00:00:00.0005"), 1000);
    assert_eq!(micros(0, "1999-12-31 23:59:58.5"), -2_000_000);
    assert_eq!(micros(6, "2000-01-01"), 0);
    assert_eq!(micros(6, "1999-12-31T24:00"), 0);
    assert_eq!(micros(6, "1999-12-31T23:59:60Z"), 0);
    assert_eq!(micros(0, "infinity"), i64::MAX);
    assert!(run(&Kind::Timestamp(6), "\"1999-12-31T23:59:60.1\"").is_err());
    assert!(run(&Kind::Timestamp(6), "\"294277-01-01\"").is_err());
    assert_eq!(
        error(&Kind::Timestamp(6), "1717142400"),
        "expected a timestamp such as 2024-05-31T10:00:00, found 1717142400"
    );
}

#[test]
fn p08_one_instant_has_one_form_whatever_its_offset() {
    let kind = Kind::Timestamptz(6);
    let instant = bytes(&kind, "\"2024-05-31T10:00:00Z\"");
    for text in ["2024-05-31 12:00:00+02", "2024-05-31T05:30-0430", "2024-05-31T10:00:01.0 +00:00:01"] {
        assert_eq!(bytes(&kind, &format!("{text:?}")), instant, "{text}");
    }
    assert!(run(&kind, "\"2024-05-31T10:00+16:00\"").is_err());
}

#[test]
fn p08_a_clock_without_a_zone_needs_one_declared() {
    let message = "\"2024-05-31T10:00\" has no time zone; declare one with zone = \"…\"";
    assert_eq!(error(&Kind::Timestamptz(6), "\"2024-05-31T10:00\""), message);
    let json = Json::String("2024-05-31".into());
    let ty = column(Kind::Timestamptz(6), "timestamp with time zone");
    let encoded = encode(&json, &ty, Some("Europe/Madrid"), &mut Vec::new());
    assert_eq!(encoded, Ok(Encoded::Ask("2024-05-31".into())));
}

#[test]
fn uuids_are_read_in_either_case() {
    let canonical = bytes(&Kind::Uuid, "\"0123abcd-4567-89ef-0000-ffffffffffff\"");
    assert_eq!(canonical, bytes(&Kind::Uuid, "\"0123ABCD-4567-89EF-0000-FFFFFFFFFFFF\""));
    assert_eq!(canonical[..4], [0x01, 0x23, 0xab, 0xcd]);
    assert_eq!(asked(&Kind::Uuid, "\"{0123}\""), "{0123}");
    assert_eq!(
        asked(&Kind::Uuid, "\"0123abcd-4567-89ef-0000+fffffffffff\""),
        "0123abcd-4567-89ef-0000+fffffffffff"
    );
}

#[test]
fn enums_take_their_labels_only() {
    let kind = Kind::Enum(["open".to_owned(), "1".to_owned()].into());
    assert_eq!(bytes(&kind, "\"open\""), b"open");
    assert_eq!(bytes(&kind, "1"), b"1");
    assert_eq!(error(&kind, "\"Open\""), "\"Open\" is not a label of the enum");
}

#[test]
fn p10_jsonb_has_one_normal_form() {
    assert_eq!(
        jsonb_text(r#"{"bb":1,"a":[1.50e1,-0,1e3],"b":null,"a":{"x":"\u001F\/\t\u00e9"}}"#),
        r#"{"a": {"x": "\u001f/\té"}, "b": null, "bb": 1}"#
    );
    assert_eq!(jsonb_text("[1.50e1,-0,-0.0,1e3,0.10]"), "[15.0, 0, 0.0, 1000, 0.10]");
    assert_eq!(jsonb_text("[[],{}]"), "[[], {}]");
    // By length in bytes: é has two.
    assert_eq!(jsonb_text(r#"{"é":1,"z":2,"aa":3}"#), r#"{"z": 2, "aa": 3, "é": 1}"#);
    assert!(error(&Kind::Jsonb, r#"{"\u0000":1}"#).contains("U+0000"));
    assert!(error(&Kind::Jsonb, r#"{"a":"\u0000","a":1}"#).contains("U+0000"));
    assert!(error(&Kind::Jsonb, "[1e131072]").contains("out of range for numeric"));
}

#[test]
fn short_spellings_of_long_numbers_cannot_fill_the_memory() {
    let text = format!("[{}1]", "1e131071,".repeat(100));
    let json = Json::parse(text.as_bytes()).unwrap();
    let mut out = Vec::new();
    let error = jsonb::encode_within(1 << 20, &json, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "larger than jsonb can hold");
    assert!(out.len() < 2 << 20, "{} bytes", out.len());
}

#[test]
fn p10_the_spelling_of_numbers_does_not_count_in_jsonb() {
    let form = |json| String::from_utf8(compared(&Kind::Jsonb, json)[1..].to_vec()).unwrap();
    assert_eq!(
        form(r#"{"a":1.50,"b.0":[2.0,3.000,"4.0 \" 5.0"],"c":100,"d":0.0}"#),
        r#"{"a": 1.5, "c": 100, "d": 0, "b.0": [2, 3, "4.0 \" 5.0"]}"#
    );
    assert_eq!(compared(&Kind::Jsonb, "[10e-1]"), compared(&Kind::Jsonb, "[1]"));
    assert_eq!(compared(&Kind::Jsonb, "1.0"), compared(&Kind::Jsonb, "1"));
    let untouched = bytes(&Kind::Jsonb, r#"["1.0", 2.5]"#);
    assert!(matches!(comparison_form(&Kind::Jsonb, &untouched), Cow::Borrowed(_)));
}

#[test]
fn p06_the_scale_of_a_free_numeric_does_not_count() {
    for same in
        [["1", "1.00"], ["0", "0.000"], ["100", "1e2"], ["0.0015", "1.500e-3"], ["-12.3", "-12.30000"]]
    {
        assert_eq!(compared(&NUMERIC, same[0]), compared(&NUMERIC, same[1]), "{same:?}");
    }
    assert_ne!(compared(&NUMERIC, "1.01"), compared(&NUMERIC, "1.1"));
    let nan = [0, 0, 0, 0, 0xc0, 0, 0, 3];
    assert_eq!(comparison_form(&NUMERIC, &nan), nan.as_slice());
    assert_eq!(comparison_sql(&NUMERIC, "t.a"), "pg_catalog.trim_scale(t.a)");
    assert_eq!(comparison_sql(&Kind::Numeric(Some((5, 2))), "t.a"), "t.a");
}

#[test]
fn other_types_are_left_to_the_server() {
    assert_eq!(asked(&Kind::Server, "1.50"), "1.50");
    assert_eq!(asked(&Kind::Server, "true"), "true");
    assert!(error(&Kind::Server, r#""\u0000""#).contains("U+0000"));
    assert_eq!(error(&Kind::Server, "[]"), "expected sometype, found a list");
    let json = Json::parse(br#" {"b" : 1.50, "a" : ["x\ny"]} "#).unwrap();
    let encoded = encode(&json, &column(Kind::Json, "json"), None, &mut Vec::new());
    assert_eq!(encoded, Ok(Encoded::Ask(r#"{"b":1.50,"a":["x\ny"]}"#.into())));
}

fn array_of(kind: Kind) -> Kind {
    Kind::Array(Arc::new(Element { ty: column(kind, "sometype"), delimiter: ',' }))
}

fn composite(attributes: [(&str, Kind); 2]) -> Kind {
    let attribute =
        |(name, kind): (&str, Kind)| Attribute { name: name.into(), ty: column(kind, "sometype") };
    Kind::Composite(attributes.map(attribute).into())
}

#[test]
fn p06_what_holds_one_value_that_the_server_converts_goes_as_text() {
    let (integers, flags) = (array_of(Kind::Int4), array_of(Kind::Bool));
    assert_eq!(asked(&integers, r#"[5.0, " 7", null, "0x1f"]"#), r#"{"5","7",NULL,"0x1f"}"#);
    assert_eq!(asked(&flags, r#"[[true, 1], [null, "f"]]"#), r#"{{"true","1"},{NULL,"f"}}"#);
    let both = composite([("a", integers.clone()), ("b", Kind::Server)]);
    assert_eq!(asked(&both, r#"{"b": "x\"", "a": [[1], [2]]}"#), r#"("{{\"1\"},{\"2\"}}","x\"")"#);
    assert_eq!(asked(&both, r#"{"b": 1, "a": [[], []]}"#), r#"("{}","1")"#);
    assert_eq!(asked(&array_of(both), r#"[{"b": ""}, null]"#), r#"{"(,\"\")",NULL}"#);
    let domain = Kind::Domain(Arc::new(column(integers, "sometype")));
    assert_eq!(asked(&domain, "[1, null]"), r#"{"1",NULL}"#);
}

#[test]
fn p25_an_error_inside_a_value_says_where() {
    let both = composite([("a", array_of(Kind::Int2)), ("b", Kind::Bool)]);
    let message = error(&array_of(both), r#"[{"a": [[1, 2], [3, 70000]]}]"#);
    assert_eq!(message, "[0]: a: [1]: [1]: 70000 is out of range for smallint");
    let ragged = error(&array_of(Kind::Int2), "[[1], [2, 3]]");
    assert_eq!(ragged, "lists of different lengths do not fit sometype[]");
}

#[test]
fn long_values_stay_out_of_messages() {
    let long = format!("\"{}\"", "9".repeat(41));
    assert_eq!(error(&Kind::Int8, &long), "a string is out of range for bigint");
    assert_eq!(error(&Kind::Date, &long), "expected a date such as 2024-05-31, found a string");
}

/// `digits × 10^exponent`, spelled with the point moved and zeros added.
fn spelled(random: &mut fastrand::Rng, digits: i64, exponent: i32) -> String {
    let zeros = random.usize(..6);
    let shift = random.i32(..4);
    let (sign, digits) = (if digits < 0 { "-" } else { "" }, digits.unsigned_abs().to_string());
    // Too short to split: all digits go behind the point.
    let (whole, fraction) = digits
        .len()
        .checked_sub(shift as usize + 1)
        .map_or(("0", digits.as_str()), |at| digits.split_at(at + 1));
    let zeros = "0".repeat(zeros);
    match fraction.len() {
        0 if exponent >= 0 => format!("{sign}{whole}{}.0{zeros}", "0".repeat(exponent as usize)),
        0 => format!("{sign}{whole}.0{zeros}e{exponent}"),
        moved => format!("{sign}{whole}.{fraction}{zeros}E{}", exponent + moved as i32),
    }
}

#[test]
fn p10_numbers_compare_equal_exactly_if_they_are_equal() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..5000 {
        let (digits, exponent) = (random.i64(..) >> random.u32(..63), random.i32(-12..12));
        let [one, other] = [0, 1].map(|_| spelled(&mut random, digits, exponent));
        let next = spelled(&mut random, digits ^ 1, exponent);
        for kind in [NUMERIC, Kind::Jsonb, Kind::Text] {
            assert_eq!(compared(&kind, &one), compared(&kind, &other), "{one} {other} {kind:?}");
            assert_ne!(compared(&kind, &one), compared(&kind, &next), "{one} {next} {kind:?}");
        }
        let inside = |text: &str| compared(&Kind::Jsonb, &format!(r#"{{"a":[{text},"1.0"],"b":{text}}}"#));
        assert_eq!(inside(&one), inside(&other), "{one} {other}");
    }
}
