//! STUB
/// One fault of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {}
/// All faults of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {}
