//! A disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use rowdelta::postgres::local::Options;
use serde_json::{Value, json};

use super::site::{POOL, Way};
use crate::shop::{MAPPING, SCHEMA, Shop};
use crate::support::db_on;
use crate::support::pooler::Pooler;

/// A small disk in memory, for the server's user. It goes with the test.
struct Disk(PathBuf);

impl Disk {
    /// `None`, said once, where this process may not mount one.
    fn mount(dir: PathBuf, megabytes: u32, owner: &str) -> Option<Self> {
        std::fs::create_dir_all(&dir).expect("make the mount point");
        let options = format!("size={megabytes}m,mode=700,uid={owner}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk(dir));
        }
        println!("skipped: no disk may be mounted");
        None
    }

    fn resize(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn owner(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("the server's directory").uid().to_string()
}

/// Bodies that do not compress.
fn orders(count: usize) -> Vec<Value> {
    let mut rng = fastrand::Rng::with_seed(51);
    let mut body = || (0..200_000).map(|_| rng.alphanumeric()).collect::<String>();
    let order = |n: usize| {
        let pages: Vec<Value> = (0..4).map(|no| json!({ "no": no, "body": body() })).collect();
        json!({ "number": format!("N{n:03}"), "files": [{ "id": n, "name": "f", "pages": pages }] })
    };
    (0..count).map(order).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_p27_a_full_disk_fails_what_needs_room_at_once_and_until_there_is_some() {
    fills_up(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p26_p27_p30_a_full_disk_behind_a_pooler_does_the_same() {
    fills_up(Way::Pooled).await;
}

async fn fills_up(way: Way) {
    let mut shop = Shop::in_database(db_on(Options::fast()).await, SCHEMA, MAPPING).await;
    let pooler = if way == Way::Pooled { Pooler::start(&shop.db, POOL) } else { None };
    match &pooler {
        Some(pooler) => shop.url = pooler.url().to_owned(),
        None if way == Way::Pooled => return,
        None => {}
    }
    // The server's user must be able to reach it.
    let dir = std::env::temp_dir().join(format!("rowdelta-disk-{:08x}", fastrand::u32(..)));
    let Some(disk) = Disk::mount(dir.clone(), 8, &owner(&shop.db.address().0)) else { return };
    shop.db.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", dir.display())).await;
    shop.db.execute("ALTER TABLE page SET TABLESPACE small").await;
    let docs = orders(24);
    shop.expect(&docs).await;
    let ran = shop.run_with(&docs, &["--batch", "3", "--allow-deletes", "100000"]).await;
    let failures = ran.report["failures"].as_array().unwrap_or_else(|| panic!("no report\n{}", ran.stderr));
    println!("{} of {} documents failed", failures.len(), docs.len());
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(
        failures.iter().all(|failure| failure["sqlstate"] == "53100" && failure["retryable"] == true),
        "{failures:#?}"
    );
    assert!(ran.documents("new") > 0);
    assert_eq!(ran.report["retries"], 0, "nobody made room meanwhile");
    disk.resize(64);
    shop.run(&docs).await.succeeded();
    shop.state.check().await.unwrap();
    shop.written().await;
    assert_eq!(shop.run(&docs).await.succeeded().rows_written(), 0);
    drop(shop);
    drop(disk);
    let _ = std::fs::remove_dir(dir);
}
