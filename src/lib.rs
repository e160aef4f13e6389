//! Keeps PostgreSQL tables in step with nested documents, writing only the rows that changed.
//!
//! ```text
//! bytes → Document → RowSet → Fingerprints → (stored?) → ChangeSet → Plan → rows in the database → Report
//! ```
//!
//! Give it a [`Mapping`], a pool of connections and a feed:
//!
//! ```
//! use bb8_postgres::PostgresConnectionManager;
//! use rowdelta::engine::documents;
//! use rowdelta::postgres::{install, local};
//! use rowdelta::{Engine, Mapping};
//! use tokio_postgres::NoTls;
//!
//! const MAPPING: &str = r#"
//!     version = 1
//!     name = "orders"
//!     [root]
//!     table = "orders"
//!     key = ["number"]
//!     id = "id"
//!     columns = { number = "number", customer = "customer.name" }
//!     [[root.children]]
//!     name = "lines"
//!     table = "order_lines"
//!     parent = "order_id"
//!     key = ["sku"]
//!     columns = { sku = "sku", quantity = "qty" }
//! "#;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = local::LocalServer::start(local::Options::fast())?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let url = server.url("postgres");
//! let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls)?;
//! let pool = bb8::Pool::builder().build(manager).await?;
//! # {
//! # let mut client = pool.get().await?;
//! # client.batch_execute(
//! #     "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text UNIQUE, customer text);
//! #      CREATE TABLE order_lines (order_id bigint REFERENCES orders, sku text, quantity int, note text)",
//! # ).await?;
//! # install::install(&mut client).await?;
//! # }
//! let engine = Engine::builder(Mapping::from_toml(MAPPING)?).build(pool).await?;
//!
//! let first = r#"{"number": "7", "customer": {"name": "Ana"}, "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}]}"#;
//! assert_eq!(engine.sync(documents::of([first])).await?.rows_written(), 3);
//!
//! // Another order, other white space: nothing to write. Another quantity: one UPDATE of one column.
//! let same = r#"{"lines": [{"qty": 2, "sku": "b"}, {"qty": 1, "sku": "a"}], "customer": {"name": "Ana"}, "number": "7"}"#;
//! assert_eq!(engine.sync(documents::of([same])).await?.rows_written(), 0);
//! let changed = r#"{"number": "7", "customer": {"name": "Ana"}, "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 3}]}"#;
//! assert_eq!(engine.sync(documents::of([changed])).await?.relations[1].updated, 1);
//! # Ok(()) })
//! # }
//! ```
//!
//! A run with failed documents is an `Err` that carries the report ([`SyncError::Failed`]): what succeeded is in, and is
//! skipped when the run is tried again. [`engine::documents`] makes feeds of what a program has: bytes, JSON values, its own
//! types. [`Engine::sync_in`] syncs inside a transaction of the caller's; [`Engine::progress`] shows how far a run is. What
//! is recorded by `tracing` and [`metrics`](engine::metrics) is in `docs/observability.md`, whole programs in `examples/`.
//!
//! The modules from [`json`] to [`plan`] are the core: plain data and functions, no I/O. [`postgres`] talks to the
//! database, [`engine`] drives it. How a mapping is written is in `docs/mapping.md`, which values count as the same in
//! `docs/types.md`.

pub mod ddl;
pub mod diff;
pub mod document;
pub mod engine;
pub mod error;
pub mod fingerprint;
pub mod json;
pub mod mapping;
pub mod plan;
pub mod postgres;
pub mod propose;
pub mod row;
pub mod sample;
pub mod schema;
pub mod shred;
pub mod value;

pub use document::Document;
pub use engine::Engine;
pub use engine::report::{Report, SyncError};
pub use error::{Error, ErrorKind};
pub use mapping::Mapping;
