//! From the written mapping to the frozen one, with every fault at once.
//!
//! TOML and JSON become one neutral tree ([`tree`]) that knows where each value
//! stood; [`relations`] reads the tree and checks what can be checked without a
//! database. Reading never stops at a fault: a part that could not be read is
//! replaced by a stand-in that causes no further faults, and the mapping is only
//! handed out if there was none.

mod faults;
mod lookups;
mod relations;
mod rules;
mod tree;
mod types;
mod values;

pub use faults::{Fault, MappingError};

use super::Mapping;
use faults::Faults;
use tree::{At, Node};

impl Mapping {
    /// Parses a mapping written as TOML.
    ///
    /// ```
    /// use rowdelta::mapping::Mapping;
    ///
    /// let mapping = Mapping::from_toml(r#"
    ///     version = 1
    ///     name = "orders"
    ///     [root]
    ///     table = "customer_order"
    ///     key = "number"
    ///     columns = { number = "orderNumber", city = "customer.address.city" }
    /// "#)?;
    /// assert_eq!(mapping.root().columns[0].name, "city");
    ///
    /// let error = Mapping::from_toml("version = 1\nname = \"orders\"\nroot = { tabel = \"t\" }").unwrap_err();
    /// assert_eq!(error.faults[0].to_string(), r#"line 3: root.tabel: unknown key; did you mean "table"?"#);
    /// # Ok::<(), rowdelta::mapping::MappingError>(())
    /// ```
    ///
    /// # Errors
    /// All faults, in the order of the file.
    pub fn from_toml(text: &str) -> Result<Self, MappingError> {
        let tree = tree::from_toml(text)?;
        let definition = tree.to_json();
        build(&tree, definition)
    }

    /// Takes a mapping from JSON, of the same keys as the TOML. This is also how one is built in code.
    ///
    /// ```
    /// use rowdelta::mapping::Mapping;
    /// use serde_json::json;
    ///
    /// let mapping = Mapping::from_json(&json!({
    ///     "version": 1,
    ///     "name": "orders",
    ///     "root": {
    ///         "table": "customer_order",
    ///         "key": ["number"],
    ///         "id": "id",
    ///         "columns": { "number": "orderNumber", "placed": { "path": "placedAt", "zone": "Europe/Madrid" } },
    ///         "children": [{
    ///             "name": "lines",
    ///             "table": "order_line",
    ///             "parent": "order_id",
    ///             "key": ["line_no"],
    ///             "columns": { "line_no": "@index", "sku": "product.sku", "quantity": "qty" },
    ///         }],
    ///     },
    /// }))?;
    /// assert_eq!(mapping.relations[1].path.to_string(), "lines");
    /// # Ok::<(), rowdelta::mapping::MappingError>(())
    /// ```
    ///
    /// # Errors
    /// All faults; there are no line numbers.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, MappingError> {
        build(&tree::from_json(value), value.clone())
    }
}

fn build(tree: &Node, definition: serde_json::Value) -> Result<Mapping, MappingError> {
    let mut faults = Faults::default();
    let mapping = relations::mapping(&At::top(tree), definition, &mut faults);
    faults.into_result(mapping)
}

#[cfg(test)]
mod tests;
