//! STUB
/// One fault of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {}
/// All faults of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {}
impl std::fmt::Display for MappingError { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
