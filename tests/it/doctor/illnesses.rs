//! One illness after another: what makes tables ill, what is found, and what mends it.

use serde_json::Value;

use super::Patient;
use crate::support::command::install;

/// What mends an illness.
enum Cure {
    /// The statements of the finding.
    Own,
    /// What its advice says, here in SQL.
    Advised(&'static str),
    /// `rowdelta install`.
    Install,
    /// Nothing has to be mended.
    None,
}
use Cure::{Advised, Install, None, Own};

/// What makes the tables ill; kind, severity and relation of the finding; what mends it.
type Illness = (&'static str, &'static str, &'static str, Option<&'static str>, Cure);

const ILLNESSES: &[Illness] = &[
    // The mapping against the catalog.
    ("ALTER TABLE file DROP CONSTRAINT file_official_key", "mapping", "error", Some("files"), Own),
    ("ALTER TABLE product DROP CONSTRAINT product_code_key", "mapping", "error", Some("product"), Own),
    ("ALTER TABLE orders ALTER seen TYPE text", "mapping", "error", Some("shop"),
        Advised("ALTER TABLE orders ALTER seen TYPE timestamptz USING NULL")),
    ("DROP TABLE order_product", "mapping", "error", Some("products"),
        Advised("CREATE TABLE order_product (order_id bigint, product_id int, PRIMARY KEY (order_id, product_id))")),
    ("CREATE RULE r AS ON INSERT TO line DO INSTEAD NOTHING", "mapping", "error", Some("lines"), Advised("DROP RULE r ON line")),
    // The schema `rowdelta`.
    ("DROP SCHEMA rowdelta CASCADE", "not_installed", "error", Option::None, Install),
    ("CREATE OR REPLACE FUNCTION rowdelta.version() RETURNS text LANGUAGE sql AS 'SELECT ''0.0.1'''", "other_version", "error",
        Option::None, Advised("CREATE OR REPLACE FUNCTION rowdelta.version() RETURNS text LANGUAGE sql AS 'SELECT ''0.3.0'''")),
    // Indexes.
    ("DROP INDEX file_order_id_idx", "missing_index", "warning", Some("files"), Own),
    ("DROP INDEX file_order_id_idx; CREATE INDEX ON file (order_id) WHERE id > 5; CREATE INDEX ON file (official, order_id)",
        "missing_index", "warning", Some("files"), Own),
    ("CREATE TABLE bill (order_id bigint REFERENCES orders)", "missing_index", "warning", Some("shop"), Own),
    ("CREATE TABLE \"Bill\" (\"Order\" bigint REFERENCES orders, at date) PARTITION BY LIST (at)", "missing_index", "warning",
        Some("shop"), Own),
    ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'file_order_id_idx'::regclass", "invalid_index", "warning",
        Some("files"), Own),
    ("CREATE INDEX file_ccnew ON file (order_id, id); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'file_ccnew'::regclass",
        "invalid_index", "warning", Some("files"), Own),
    ("CREATE INDEX ON line (order_id)", "redundant_index", "note", Some("lines"), Own),
    ("CREATE INDEX ON file (order_id)", "redundant_index", "note", Some("files"), Own),
    // Keys.
    ("ALTER TABLE line DROP CONSTRAINT line_order_id_no_key; CREATE INDEX ON line (order_id)", "no_unique", "note", Some("lines"), Own),
    ("ALTER TABLE order_product DROP CONSTRAINT order_product_pkey", "no_unique", "note", Some("products"), Own),
    ("DROP TABLE page; CREATE TABLE page (file_id bigint NOT NULL REFERENCES file, no int, body text) PARTITION BY LIST (body);
      CREATE TABLE page_rest PARTITION OF page DEFAULT; CREATE INDEX ON page (file_id)", "no_unique", "note", Some("pages"),
        Advised("DROP TABLE page; CREATE TABLE page (file_id bigint REFERENCES file, no int, body text, PRIMARY KEY (file_id, no))
                 PARTITION BY LIST (no); CREATE TABLE page_rest PARTITION OF page DEFAULT")),
    // Row-level security that does not apply.
    ("ALTER TABLE file ENABLE ROW LEVEL SECURITY", "row_security", "note", Some("files"),
        Advised("ALTER TABLE file DISABLE ROW LEVEL SECURITY")),
    // Triggers.
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.label := lower(NEW.label); RETURN NEW; END';
      CREATE TRIGGER f BEFORE INSERT ON line FOR EACH ROW EXECUTE FUNCTION f()", "rewriting_trigger", "warning", Some("lines"),
        Advised("DROP TRIGGER f ON line")),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER f BEFORE UPDATE ON line FOR EACH ROW EXECUTE FUNCTION f()", "rewriting_trigger", "warning", Some("lines"),
        Advised("DROP TRIGGER f ON line")),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.storage_path = current_date; RETURN NEW; END';
      CREATE TRIGGER f BEFORE UPDATE ON file FOR EACH ROW EXECUTE FUNCTION f()", "trigger", "note", Some("files"),
        Advised("DROP TRIGGER f ON file")),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER f BEFORE DELETE ON line FOR EACH ROW EXECUTE FUNCTION f()", "suppressing_trigger", "warning", Some("lines"),
        Advised("DROP TRIGGER f ON line")),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER f AFTER INSERT ON product EXECUTE FUNCTION f()", "trigger", "note", Some("product"),
        Advised("DROP TRIGGER f ON product")),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER f BEFORE INSERT ON line FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE line DISABLE TRIGGER f",
        "disabled_trigger", "note", Some("lines"), Advised("DROP TRIGGER f ON line")),
    ("ALTER TABLE file DISABLE TRIGGER ALL", "unchecked_key", "warning", Some("files"), Own),
    ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE line SET qty = 0 WHERE id = NEW.id; RETURN NULL; END';
      CREATE TRIGGER f AFTER INSERT ON line FOR EACH ROW EXECUTE FUNCTION f()", "rewriting_trigger", "warning", Some("lines"),
        Advised("DROP TRIGGER f ON line")),
    // Publications.
    ("CREATE PUBLICATION p FOR TABLE order_product; ALTER TABLE order_product REPLICA IDENTITY NOTHING", "mapping", "error",
        Some("products"), Own),
    ("ALTER TABLE file DROP CONSTRAINT file_pkey CASCADE; CREATE PUBLICATION p FOR ALL TABLES", "mapping", "error",
        Some("files"), Own),
    ("ALTER TABLE file DROP CONSTRAINT file_pkey CASCADE, ALTER official DROP NOT NULL; CREATE PUBLICATION p FOR TABLE file",
        "mapping", "error", Some("files"), Own),
    // What foreign keys do beside.
    ("CREATE TABLE bill (order_id bigint PRIMARY KEY REFERENCES orders ON DELETE CASCADE)", "cascade", "warning", Some("shop"),
        Advised("DROP TABLE bill")),
    ("CREATE TABLE bill (order_id bigint PRIMARY KEY REFERENCES orders ON DELETE CASCADE);
      CREATE TABLE item (bill bigint REFERENCES bill ON DELETE CASCADE)", "cascade", "warning", Option::None, Advised("DROP TABLE item")),
    ("CREATE TABLE bill (order_id bigint UNIQUE REFERENCES orders ON DELETE SET NULL)", "clears", "note", Some("shop"),
        Advised("DROP TABLE bill")),
    ("CREATE TABLE bill (number text UNIQUE REFERENCES orders (number) ON UPDATE CASCADE)", "update_cascade", "note", Some("shop"),
        Advised("DROP TABLE bill")),
    ("CREATE TABLE bill (order_id bigint UNIQUE REFERENCES orders)", "restricts", "note", Some("shop"), Advised("DROP TABLE bill")),
    ("ALTER TABLE file ADD line_id bigint REFERENCES line ON DELETE SET NULL; CREATE INDEX ON file (line_id)",
        "mapped_cascade", "warning", Some("lines"), Advised("ALTER TABLE file DROP line_id")),
    // Constraints that can be put off.
    ("ALTER TABLE file ALTER CONSTRAINT file_order_id_fkey DEFERRABLE", "deferrable", "note", Some("shop"),
        Advised("ALTER TABLE file ALTER CONSTRAINT file_order_id_fkey NOT DEFERRABLE")),
    // Tables.
    ("ALTER TABLE line ALTER qty TYPE int4range USING NULL", "converted", "note", Some("lines"),
        Advised("ALTER TABLE line ALTER qty TYPE int USING NULL")),
    ("CREATE INDEX ON orders (customer) WHERE seen IS NULL", "indexed_mark", "warning", Some("shop"),
        Advised("DROP INDEX orders_customer_idx")),
    ("ALTER TABLE orders RESET (fillfactor)", "fillfactor", "note", Some("shop"), Own),
    ("ALTER TABLE page SET UNLOGGED", "unlogged", "warning", Some("pages"), Own),
    // The state.
    ("SELECT rowdelta.register('shop', '{}', ''); INSERT INTO rowdelta.document (mapping, key, relations, settled) VALUES (1, '', '', false)",
        "unsettled", "note", Option::None, Advised("DELETE FROM rowdelta.document")),
    ("SELECT rowdelta.acquire(rowdelta.register('shop', '{}', ''), 'somebody', 60)", "busy", "note", Option::None,
        Advised("UPDATE rowdelta.mapping SET lease_holder = NULL")),
    ("SELECT rowdelta.acquire(rowdelta.register('shop', '{}', ''), 'somebody', -60)", "dead_lease", "note", Option::None,
        Advised("UPDATE rowdelta.mapping SET lease_holder = NULL")),
    ("INSERT INTO rowdelta.guard VALUES (NULL, 50, 5), ('other', 1, 1)", "guard", "note", Option::None, None),
    // Settings.
    ("ALTER DATABASE current SET statement_timeout = '5s'", "timeout", "warning", Option::None, Own),
    ("ALTER DATABASE current SET idle_session_timeout = '5s'", "timeout", "warning", Option::None, Own),
    ("ALTER DATABASE current SET default_transaction_read_only = on", "read_only", "error", Option::None, Own),
    ("ALTER DATABASE current SET session_replication_role = replica", "replication_role", "warning", Option::None, Own),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_each_illness_is_found_and_what_mends_it_does() {
    for (sql, kind, severity, relation, cure) in ILLNESSES {
        let patient = Patient::new("").await;
        let database = patient.db.value("SELECT current_database()").await;
        patient.db.execute(&sql.replace("DATABASE current", &format!("DATABASE {database}"))).await;
        let found = patient.findings();
        let is_it = |finding: &&Value| finding["kind"] == *kind && finding["relation"].as_str() == *relation;
        let finding = found.iter().find(is_it).unwrap_or_else(|| panic!("{kind} of {sql}\n{found:#?}"));
        assert_eq!(finding["severity"], *severity, "{sql}");
        assert!(
            finding["table"].is_string() == relation.is_some() || sql.starts_with("DROP TABLE"),
            "{finding:#}"
        );
        match cure {
            Own => {
                assert!(!super::statements(finding).is_empty(), "{finding:#}");
                patient.mend(finding).await;
            }
            Advised(statements) => patient.db.execute(statements).await,
            Install => install(patient.db.url()),
            None => continue,
        }
        let left = patient.findings();
        assert!(!left.iter().any(|finding| is_it(&finding)), "{sql}\n{left:#?}");
    }
}

/// For the whole text.
pub const SEVERAL: &str = "
    ALTER TABLE file DROP CONSTRAINT file_pkey CASCADE, DROP CONSTRAINT file_official_key;
    DROP INDEX file_order_id_idx;
    CREATE PUBLICATION everything FOR TABLE file;
    CREATE INDEX ON line (order_id);
    CREATE TABLE shipment (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE);
    CREATE FUNCTION lower_label() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.label := lower(NEW.label); RETURN NEW; END';
    CREATE TRIGGER lower_label BEFORE INSERT OR UPDATE ON line FOR EACH ROW EXECUTE FUNCTION lower_label();
    ALTER TABLE product DROP CONSTRAINT product_code_key;
    INSERT INTO rowdelta.guard VALUES ('shop', 5000, 12.5);";
