//! Which database: the option, DATABASE_URL, or libpq's variables. Never a default: a cron job that lost its
//! URL must fail.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::args;
use bb8_postgres::PostgresConnectionManager;
use rowdelta::postgres::local::{LocalError, LocalServer, Options};
use tokio_postgres::{Config, NoTls};

/// What makes connections, without TLS.
pub type Manager = PostgresConnectionManager<NoTls>;

/// A pool of connections without TLS.
pub type Pool = bb8::Pool<Manager>;

/// The database that a command works on.
pub struct Target {
    /// How to connect.
    pub config: Config,
    /// With `--local`: what has to live as long as the command uses it.
    _server: Option<LocalServer>,
}

impl Target {
    /// The database that the arguments name; with `--local` its server is started.
    ///
    /// # Errors
    /// None is named, or its server does not start; in words.
    pub async fn open(args: &args::Database) -> Result<Self, String> {
        if !args.local {
            return Ok(Self { config: config(args.database.as_deref())?, _server: None });
        }
        let server = tokio::task::spawn_blocking(start_local).await.map_err(|error| error.to_string())??;
        Ok(Self { config: server.config("postgres"), _server: Some(server) })
    }
}

/// Starts the local server that is kept, after any other command that uses it just now.
fn start_local() -> Result<LocalServer, String> {
    let mut waited = false;
    loop {
        match LocalServer::start(Options::kept()) {
            Err(error @ LocalError::InUse(_)) => {
                if !std::mem::replace(&mut waited, true) {
                    eprintln!("rowdelta: {error}; waiting for it");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(words(&error)),
            Ok(server) => {
                eprintln!("rowdelta: {}, data in {}", server.description(), server.data_dir().display());
                return Ok(server);
            }
        }
    }
}

/// Finds out which database is meant.
///
/// # Errors
/// None is named, or what is named is malformed; in words.
pub fn config(option: Option<&str>) -> Result<Config, String> {
    let from_environment = || std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let mut config = match option.map(str::to_owned).or_else(from_environment) {
        Some(url) => {
            Config::from_str(&url).map_err(|error| format!("the connection string is malformed: {error}"))?
        }
        None => from_libpq(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?,
    };
    if config.get_application_name().is_none() {
        config.application_name("rowdelta");
    }
    if config.get_user().is_none() {
        config
            .user(whoami().ok_or("the connection names no user, and the system does not say who runs this")?);
    }
    Ok(config)
}

fn whoami() -> Option<String> {
    ["PGUSER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
}

/// libpq's environment variables and its service file.
fn from_libpq(variable: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let service = variable("PGSERVICE");
    let mut settings = match &service {
        Some(service) => service_settings(service, &variable)?,
        None => Vec::new(),
    };
    let names = [
        ("PGHOST", "host"),
        ("PGHOSTADDR", "hostaddr"),
        ("PGPORT", "port"),
        ("PGUSER", "user"),
        ("PGPASSWORD", "password"),
        ("PGDATABASE", "dbname"),
        ("PGSSLMODE", "sslmode"),
        ("PGOPTIONS", "options"),
        ("PGAPPNAME", "application_name"),
        ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ];
    settings.extend(names.iter().filter_map(|(name, key)| Some(((*key).to_owned(), variable(name)?))));
    let named = settings.iter().any(|(key, _)| ["host", "hostaddr", "dbname"].contains(&key.as_str()));
    if !named {
        return Err("no database is named: give -d URL, or set DATABASE_URL or PGHOST".into());
    }
    let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let text: Vec<String> = settings.iter().map(|(key, value)| format!("{key}='{}'", quote(value))).collect();
    Config::from_str(&text.join(" ")).map_err(|error| format!("libpq's variables are malformed: {error}"))
}

/// The settings of a service: `[name]` and `key=value` lines of the service file.
fn service_settings(
    service: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, String> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".pg_service.conf"));
    let system = || Some(PathBuf::from(variable("PGSYSCONFDIR")?).join("pg_service.conf"));
    let file = variable("PGSERVICEFILE").map(PathBuf::from);
    let files = file.into_iter().chain(home()).chain(system());
    for text in files.filter_map(|file| std::fs::read_to_string(file).ok()) {
        if let Some(settings) = section(&text, service) {
            return Ok(settings);
        }
    }
    Err(format!("the service {service:?} is in no service file"))
}

fn section(text: &str, service: &str) -> Option<Vec<(String, String)>> {
    let header = format!("[{service}]");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != header);
    lines.next()?;
    let body = lines.take_while(|line| !line.starts_with('['));
    let pairs = body.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Some(pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect())
}

/// A pool for so many workers and one connection for the lease.
///
/// # Errors
/// The database cannot be reached; in words.
pub async fn pool(config: Config, workers: usize) -> Result<Pool, String> {
    // The pool would go on trying until its time is up, and then not say why.
    let unreachable =
        |error: &tokio_postgres::Error| format!("the database cannot be reached: {}", words(error));
    drop(config.connect(NoTls).await.map_err(|error| unreachable(&error))?);
    let manager = PostgresConnectionManager::new(config, NoTls);
    let pool = bb8::Pool::builder().max_size(workers as u32 + 2).build(manager).await;
    pool.map_err(|error| unreachable(&error))
}

/// An error's text with its cause, which its own text leaves out.
pub fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_there_is_no_database() {
        assert!(from_libpq(|_| None).unwrap_err().contains("no database is named"));
    }

    #[test]
    fn libpqs_variables_are_understood() {
        let variable = |name: &str| match name {
            "PGHOST" => Some("/run/it's here".to_owned()),
            "PGDATABASE" => Some("d".to_owned()),
            _ => None,
        };
        let config = from_libpq(variable).unwrap();
        assert_eq!(config.get_dbname(), Some("d"));
        assert_eq!(config.get_hosts().len(), 1);
    }

    #[test]
    fn a_service_is_a_section_of_its_file() {
        let text = "[a]\nhost=x\n# no\n\n[b]\nhost = y\ndbname=z\n[c]\nhost=w\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(section(text, "b"), Some(vec![pair("host", "y"), pair("dbname", "z")]));
        assert_eq!(section(text, "d"), None);
    }
}
