//! No text makes the parser of mappings panic; a fault always has words; and a mapping that was accepted is
//! found again in its own definition, which is what the database keeps of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rowdelta::mapping::Mapping;

fuzz_target!(|text: &str| {
    match Mapping::from_toml(text) {
        Ok(mapping) => {
            let again = Mapping::from_json(&mapping.definition).expect("its own definition is accepted");
            assert_eq!(sorted(again), sorted(mapping));
        }
        Err(error) => {
            assert!(!error.faults.is_empty());
            assert!(error.faults.iter().all(|fault| !fault.to_string().is_empty()));
        }
    }
});

/// Members of a JSON object come in another order than the keys of the TOML did.
fn sorted(mut mapping: Mapping) -> (Vec<String>, Vec<String>) {
    for relation in &mut mapping.relations {
        relation.columns.sort_by(|a, b| a.name.cmp(&b.name));
    }
    for lookup in &mut mapping.lookups {
        lookup.columns.sort_by(|a, b| a.0.cmp(&b.0));
    }
    // As text, in which a reference does not name its catalogue by its place among the others.
    let mut lookups: Vec<String> = mapping.lookups.iter().map(|lookup| text(lookup)).collect();
    lookups.sort();
    (mapping.relations.iter().map(|relation| text(relation)).collect(), lookups)
}

fn text(part: &impl serde::Serialize) -> String {
    serde_json::to_string(part).expect("a mapping is plain data")
}
