//! Every fault of a mapping against the catalog, by its words: `catalog_check/` holds a mapping and tables that are full
//! of them, and what is said. Messages must not depend on the server's version.

use rowdelta::mapping::Mapping;
use rowdelta::postgres::catalog;

use crate::support::db;

#[tokio::test]
async fn p22_every_fault_against_the_catalog_says_where_it_is_what_it_is_and_what_mends_it() {
    let db = db().await;
    db.execute(include_str!("catalog_check/schema.sql")).await;
    let database = db.value("SELECT current_database()").await;
    let role = format!("checker_of_{database}");
    db.execute(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         GRANT USAGE ON SEQUENCE call_id_seq TO {role};
         REVOKE INSERT, DELETE ON closed FROM {role}; REVOKE INSERT ON tag FROM {role};
         REVOKE INSERT, UPDATE ON spelled FROM {role}; GRANT INSERT (call_id, word), UPDATE (call_id, word) ON spelled TO {role}"
    ))
    .await;
    let mapping = Mapping::from_toml(include_str!("catalog_check/mapping.toml")).unwrap();
    let client = db.client().await;
    client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
    let said = catalog::read(&client, &mapping).await.unwrap_err().to_string();
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    let said = said.replace(&role, "checker").replace(&database, "tests");
    if std::env::var_os("ROWDELTA_FAULTS_RENEW").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/catalog_check/faults.txt");
        std::fs::write(file, format!("{said}\n")).unwrap();
    }
    assert_eq!(
        said,
        include_str!("catalog_check/faults.txt").trim_end(),
        "ROWDELTA_FAULTS_RENEW=1 writes it anew"
    );
    assert!(said.lines().count() > 40, "{said}");
}
