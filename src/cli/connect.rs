//! Which database: the option, DATABASE_URL, or libpq's variables. Never a default: a cron job that lost its
//! URL must fail.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::args;
use crate::cli::tls::Settings;
use bb8_postgres::PostgresConnectionManager;
use percent_encoding::percent_decode_str;
use rowdelta::postgres::local::{LocalError, LocalServer, Options};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a connection string means that says nothing.
const SYSTEMS_KEEPALIVE: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a connection may be silent before the other end is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What makes connections, by TLS where it is asked for.
pub type Manager = PostgresConnectionManager<MakeRustlsConnect>;

/// A pool of connections.
pub type Pool = bb8::Pool<Manager>;

/// How to connect to a database.
#[derive(Clone)]
pub struct Access {
    config: Config,
    tls: MakeRustlsConnect,
    /// What said so: `-d`, say.
    from: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Access {
    /// A local server's, which listens on a Unix socket.
    ///
    /// # Errors
    /// In words; none is known.
    pub fn local(config: Config) -> Result<Self, String> {
        Self::new(config, Settings::default(), None, "--local".into())
    }

    fn new(
        mut config: Config,
        settings: Settings,
        home: Option<PathBuf>,
        from: String,
    ) -> Result<Self, String> {
        let (mode, tls) = settings.connector(home)?;
        // As with libpq: a Unix socket is never wrapped.
        let is_tcp = |host: &Host| matches!(host, Host::Tcp(_));
        let plain = !config.get_hosts().iter().any(is_tcp) && config.get_hostaddrs().is_empty();
        config.ssl_mode(if plain { SslMode::Disable } else { mode });
        // Of a server that vanished without a word the system would speak after two hours only.
        if config.get_keepalives_idle() == SYSTEMS_KEEPALIVE && config.get_keepalives_interval().is_none() {
            config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(2 * KEEPALIVE);
        }
        Ok(Self { config, tls, from })
    }

    /// What is connected to, in words, and what said so. The password is left out.
    fn place(&self) -> String {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let named = hosts.iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(dir) => dir.display().to_string(),
        });
        let addresses = self.config.get_hostaddrs().iter().skip(hosts.len()).map(ToString::to_string);
        let port = |at: usize| ports.get(at).or(ports.last()).unwrap_or(&5432);
        let hosts: Vec<String> =
            named.chain(addresses).enumerate().map(|(at, host)| format!("{host}:{}", port(at))).collect();
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        format!("{}/{database} as {user} (from {})", hosts.join(","), self.from)
    }
}

/// The database that a command works on.
pub struct Target {
    /// How to connect.
    pub access: Access,
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
            return Ok(Self { access: access(args.database.as_deref())?, _server: None });
        }
        let server = tokio::task::spawn_blocking(start_local).await.map_err(|error| error.to_string())??;
        Ok(Self { access: Access::local(server.config("postgres"))?, _server: Some(server) })
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

/// Finds out which database is meant, and how to connect to it.
///
/// # Errors
/// None is named, what is named is malformed, or a certificate cannot be read; in words.
pub fn access(option: Option<&str>) -> Result<Access, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut tls = Settings::default();
    tls.set_from(&variable);
    let url = variable("DATABASE_URL").map(|url| ("DATABASE_URL", url));
    let (mut config, from) = match option.map(|url| ("-d", url.to_owned())).or(url) {
        Some((from, url)) => {
            let malformed = |why| format!("the connection string of {from} is malformed: {why}");
            (config(&url, &mut tls).map_err(malformed)?, from.to_owned())
        }
        None => (from_libpq(variable, &mut tls)?, libpqs(variable)),
    };
    if config.get_application_name().is_none() {
        config.application_name("rowdelta");
    }
    if config.get_user().is_none() {
        config
            .user(whoami().ok_or("the connection names no user, and the system does not say who runs this")?);
    }
    Access::new(config, tls, variable("HOME").map(PathBuf::from), from)
}

/// Reads a connection string. What it says about TLS is noted apart.
fn config(text: &str, tls: &mut Settings) -> Result<Config, String> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    let rest = match text.split_once('?').filter(|_| is_url) {
        Some((place, query)) => {
            let is_other = |pair: &&str| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                !tls.set(name, &percent_decode_str(value).decode_utf8_lossy())
            };
            let others: Vec<&str> = query.split('&').filter(is_other).collect();
            format!("{place}?{}", others.join("&"))
        }
        None if is_url => text.to_owned(),
        None => {
            let pairs = pairs(text).ok_or("a value is missing, or a quote open")?;
            listed(pairs.into_iter().filter(|(name, value)| !tls.set(name, value)))
        }
    };
    parsed(&rest)
}

fn parsed(text: &str) -> Result<Config, String> {
    Config::from_str(text).map_err(|error| without(&words(&error), "invalid connection string: "))
}

/// A text without what it begins with where the driver speaks.
fn without(text: &str, jargon: &str) -> String {
    text.strip_prefix(jargon).unwrap_or(text).to_owned()
}

/// `name=value` pairs as libpq reads them: values with white space stand in single quotes, `\` quotes one character.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (quoted, mut value) = (after.starts_with('\''), String::new());
        let mut chars = after.char_indices().skip(usize::from(quoted));
        rest = loop {
            match chars.next() {
                Some((_, '\\')) => value.push(chars.next()?.1),
                Some((at, '\'')) if quoted => break &after[at + 1..],
                Some((at, c)) if !quoted && c.is_whitespace() => break &after[at..],
                Some((_, c)) => value.push(c),
                None if quoted => return None,
                None => break "",
            }
        };
        pairs.push((name.trim().to_owned(), value));
        rest = rest.trim_start();
    }
    Some(pairs)
}

/// A connection string of pairs.
fn listed(pairs: impl Iterator<Item = (String, String)>) -> String {
    let quote = |value: String| value.replace('\\', "\\\\").replace('\'', "\\'");
    pairs.map(|(name, value)| format!("{name}='{}'", quote(value))).collect::<Vec<_>>().join(" ")
}

fn whoami() -> Option<String> {
    ["PGUSER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
}

/// libpq's variables, and the service that one of them may name, in words.
fn libpqs(variable: impl Fn(&str) -> Option<String>) -> String {
    let service = variable("PGSERVICE").map(|service| format!(" and the service {service}"));
    format!("PG… variables{}", service.unwrap_or_default())
}

/// libpq's environment variables and its service file.
fn from_libpq(variable: impl Fn(&str) -> Option<String>, tls: &mut Settings) -> Result<Config, String> {
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
        ("PGCHANNELBINDING", "channel_binding"),
        ("PGSSLNEGOTIATION", "sslnegotiation"),
        ("PGOPTIONS", "options"),
        ("PGAPPNAME", "application_name"),
        ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ];
    settings.extend(names.iter().filter_map(|(name, key)| Some(((*key).to_owned(), variable(name)?))));
    let named = settings.iter().any(|(key, _)| ["host", "hostaddr", "dbname"].contains(&key.as_str()));
    if !named {
        return Err("no database is named: give -d URL, or set DATABASE_URL or PGHOST".into());
    }
    settings.retain(|(name, value)| !tls.set(name, value));
    // A variable counts for more than the service file.
    tls.set_from(&variable);
    let text = listed(settings.into_iter());
    // The driver names the setting; the user knows its variable.
    parsed(&text).map_err(|why| {
        let its = names.iter().find(|(_, key)| why.contains(&format!("`{key}`"))).map(|(name, _)| *name);
        let other = service.map(|service| format!(", or the service {service}")).unwrap_or_default();
        format!("{}{other}: {why}", its.unwrap_or("a PG… variable"))
    })
}

/// The settings of a service: `[name]` and `key=value` lines of the service file.
fn service_settings(
    service: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, String> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".pg_service.conf"));
    let system = || Some(PathBuf::from(variable("PGSYSCONFDIR")?).join("pg_service.conf"));
    let file = variable("PGSERVICEFILE").map(PathBuf::from);
    let files: Vec<PathBuf> = file.into_iter().chain(home()).chain(system()).collect();
    for text in files.iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        if let Some(settings) = section(&text, service) {
            return Ok(settings);
        }
    }
    let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(format!(
        "PGSERVICE={service}, but no [{service}] is in {}; PGSERVICEFILE names another file",
        looked.join(" or ")
    ))
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
pub async fn pool(access: Access, workers: usize) -> Result<Pool, String> {
    let place = access.place();
    let Access { config, tls, .. } = access;
    // The pool would go on trying until its time is up, and then not say why.
    let none = |error: &tokio_postgres::Error| format!("no connection to {place}: {}", refusal(error));
    drop(config.connect(tls.clone()).await.map_err(|error| none(&error))?);
    let manager = PostgresConnectionManager::new(config, tls);
    let pool = bb8::Pool::builder().max_size(workers as u32 + 2).build(manager).await;
    pool.map_err(|error| none(&error))
}

/// A connection of a pool.
///
/// # Errors
/// None came in time; in words.
pub async fn get(pool: &Pool) -> Result<bb8::PooledConnection<'static, Manager>, String> {
    rowdelta::postgres::connection(pool).await.map_err(|error| error.to_string())
}

/// Why a server cannot be reached, or what it says where it was.
fn refusal(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => without(&words(error), "error connecting to server: "),
    }
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
        assert!(from_libpq(|_| None, &mut Settings::default()).unwrap_err().contains("no database is named"));
    }

    #[test]
    fn what_is_connected_to_is_named_without_the_password() {
        for (text, place) in [
            ("postgresql://u:secret@h:7,i/d", "h:7,i:5432/d as u (from -d)"),
            ("host=/run/pg user=u password=secret", "/run/pg:5432/u as u (from -d)"),
            ("hostaddr=127.0.0.1 user=u dbname=d", "127.0.0.1:5432/d as u (from -d)"),
        ] {
            assert_eq!(access(Some(text)).unwrap().place(), place);
        }
    }

    #[test]
    fn what_is_malformed_is_named_by_what_says_it() {
        let said = |text| access(Some(text)).err().unwrap();
        let open = "the connection string of -d is malformed: a value is missing, or a quote open";
        assert_eq!(said("host='secret"), open);
        let variable = |name: &str| match name {
            "PGHOST" => Some("h".to_owned()),
            "PGPORT" => Some("secret".to_owned()),
            _ => None,
        };
        let why = from_libpq(variable, &mut Settings::default()).unwrap_err();
        assert_eq!(why, "PGPORT: invalid value for option `port`");
        let variable = |name: &str| match name {
            "PGSERVICE" => Some("x".to_owned()),
            "HOME" => Some("/nowhere".to_owned()),
            _ => None,
        };
        let why = from_libpq(variable, &mut Settings::default()).unwrap_err();
        assert!(why.contains("no [x] is in /nowhere/.pg_service.conf;"), "{why}");
    }

    #[test]
    fn libpqs_variables_are_understood() {
        let variable = |name: &str| match name {
            "PGHOST" => Some("/run/it's here".to_owned()),
            "PGDATABASE" => Some("d".to_owned()),
            _ => None,
        };
        let config = from_libpq(variable, &mut Settings::default()).unwrap();
        assert_eq!(config.get_dbname(), Some("d"));
        assert_eq!(config.get_hosts().len(), 1);
    }

    #[test]
    fn what_is_said_about_tls_is_taken_out_of_a_connection_string() {
        for text in [
            "postgresql://u@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fa%20b",
            "sslmode=verify-full host = h user=u dbname='d' connect_timeout=3 sslrootcert='/a b'",
            "host=h user=u dbname=d connect_timeout=3 sslmode='verify-full' sslrootcert=/a\\ b",
        ] {
            let (mut found, mut expected) = (Settings::default(), Settings::default());
            let config = config(text, &mut found).unwrap();
            assert!(expected.set("sslmode", "verify-full") && expected.set("sslrootcert", "/a b"));
            assert_eq!(found, expected);
            assert_eq!((config.get_dbname(), config.get_user()), (Some("d"), Some("u")));
            assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        }
        assert!(config("host='h", &mut Settings::default()).is_err());
        assert!(config("host", &mut Settings::default()).is_err());
    }

    #[test]
    fn a_service_is_a_section_of_its_file() {
        let text = "[a]\nhost=x\n# no\n\n[b]\nhost = y\ndbname=z\n[c]\nhost=w\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(section(text, "b"), Some(vec![pair("host", "y"), pair("dbname", "z")]));
        assert_eq!(section(text, "d"), None);
    }
}
