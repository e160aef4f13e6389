//! Any JSON value into a column of any type: never a panic, nothing half written, and what was written decodes to the
//! value of the document.
//!
//! The decoders here share nothing with the encoders: `number` does long-hand arithmetic, `binary` reads what
//! `array_send` and `record_send` write, `literal` what `array_in` and `record_in` read.
#![no_main]

mod binary;
mod check;
mod draw;
mod literal;
mod number;

use draw::Input;
use libfuzzer_sys::fuzz_target;
use rowdelta::json::Json;
use rowdelta::value::{Encoded, encode};

fuzz_target!(|input: Input| {
    let Input { ty, json, zone } = &input;
    let Ok(json) = Json::parse(json) else { return };
    let mut out = b"before".to_vec();
    let encoded = encode(&json, ty, zone.as_deref(), &mut out);
    let stored = out.strip_prefix(b"before").expect("what was there stays");
    if encoded != Ok(Encoded::Value) {
        assert!(stored.is_empty(), "half written");
    }
    match &encoded {
        Ok(Encoded::Value) => check::value(&json, ty, stored),
        Ok(Encoded::Null) => assert_eq!(json, Json::Null),
        Ok(Encoded::Ask(text)) => check::text(&json, ty, text),
        Err(error) => {
            assert!(!error.0.is_empty());
            check::refusal(&json, ty);
        }
    }
});
