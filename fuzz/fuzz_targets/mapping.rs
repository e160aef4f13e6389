//! No text makes the parser of mappings panic; a fault always has words; and a mapping that was accepted is
//! found again in its own definition, which is what the database keeps of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rowdelta::mapping::Mapping;

fuzz_target!(|text: &str| {
    match Mapping::from_toml(text) {
        Ok(mapping) => {
            let again = Mapping::from_json(&mapping.definition);
            assert_eq!(again.as_ref(), Ok(&mapping));
        }
        Err(error) => {
            assert!(!error.faults.is_empty());
            assert!(error.faults.iter().all(|fault| !fault.to_string().is_empty()));
        }
    }
});
