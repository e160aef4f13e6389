//! Connections by TLS: the command against a server with certificates made for the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rowdelta::postgres::local::Options;

use crate::support::command::{Scratch, binary};
use crate::support::database::{Database, db_on};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, as PEM.
fn signed(issuer: &Issuer, name: &str, serial: u64, until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// A server that listens on a loopback port and asks some roles for TLS or for a certificate.
struct Server {
    database: Database,
    port: u16,
    home: Scratch,
}

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options =
            Options::fast().setting("listen_addresses", "127.0.0.1").setting("port", &port.to_string());
        let database = db_on(options).await;
        for role in ["plain", "wrapped", "certified"] {
            database.execute(&format!("CREATE ROLE {role} SUPERUSER LOGIN")).await;
        }
        let server = Server { database, port, home: Scratch::new() };
        let access = "local all all trust\n\
                      hostnossl all plain 127.0.0.1/32 trust\n\
                      hostssl all wrapped 127.0.0.1/32 trust\n\
                      hostssl all certified 127.0.0.1/32 cert";
        server.write("pg_hba.conf", access).await;
        server
    }

    /// Writes a file into the data directory, as the server's user.
    async fn write(&self, name: &str, content: &str) {
        let dir = self.database.value("SHOW data_directory").await;
        let lines = format!("SELECT unnest(string_to_array($lines${}$lines$, E'\\n'))", content.trim_end());
        self.database.execute(&format!("COPY ({lines}) TO '{dir}/{name}'")).await;
        self.database.execute(&format!("COPY (SELECT) TO PROGRAM 'chmod 600 {dir}/{name}'")).await;
    }

    async fn present(&self, (certificate, key): &(String, String), clients: &Issuer) {
        for (name, content) in
            [("server.crt", certificate), ("server.key", key), ("root.crt", &clients.pem())]
        {
            self.write(name, content).await;
        }
        for setting in ["ssl_ca_file = 'root.crt'", "ssl = on"] {
            self.database.execute(&format!("ALTER SYSTEM SET {setting}")).await;
        }
        self.database.execute("SELECT pg_reload_conf()").await;
        // The postmaster reloads when it comes to it; a new connection sees the certificate that is there then.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }

    /// What `rowdelta install` says on standard error; `Ok` if it worked.
    fn connect(&self, host: &str, role: &str, more: &[(&str, &str)]) -> Result<(), String> {
        let mut url = format!("host={host} port={} user={role} dbname=postgres", self.port);
        more.iter().for_each(|(name, value)| url += &format!(" {name}='{value}'"));
        let mut command = binary();
        for variable in ["PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"] {
            command.env_remove(variable);
        }
        let output = command.env("HOME", self.home.path("")).args(["install", "-d", &url]).output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    fn refuses(&self, host: &str, role: &str, more: &[(&str, &str)], why: &str) {
        let said = self.connect(host, role, more).expect_err("a connection that is refused");
        assert!(said.contains(why), "{said}");
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        text(&self.home.write(name, content))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[cfg(unix)]
fn allow(path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(PathBuf::from(path), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_as_strict_as_sslmode_says() {
    let (issuer, stranger) = (issuer("rowdelta tests"), issuer("somebody else"));
    let server = Server::start().await;
    server.refuses("127.0.0.1", "wrapped", &[("sslmode", "require")], "does not support TLS");
    server.connect("127.0.0.1", "plain", &[]).expect("prefer does without TLS");

    server.present(&signed(&issuer, "localhost", 7, 2100), &issuer).await;
    let (root, other) = (server.file("ours.crt", issuer.pem()), server.file("other.crt", stranger.pem()));
    let (root, other) = (("sslrootcert", root.as_str()), ("sslrootcert", other.as_str()));
    let [disable, require, chain, full] =
        ["disable", "require", "verify-ca", "verify-full"].map(|mode| ("sslmode", mode));
    server.connect("127.0.0.1", "plain", &[disable]).expect("disable");
    server.refuses("127.0.0.1", "wrapped", &[disable], "no encryption");
    server.connect("127.0.0.1", "wrapped", &[]).expect("prefer takes TLS where it is offered");
    server.connect("127.0.0.1", "wrapped", &[require]).expect("require checks nothing without a root");
    server.refuses("127.0.0.1", "wrapped", &[require, other], "UnknownIssuer");
    server.connect("127.0.0.1", "wrapped", &[chain, root]).expect("verify-ca does not look at the name");
    server.refuses("127.0.0.1", "wrapped", &[chain, other], "UnknownIssuer");
    server.connect("localhost", "wrapped", &[full, root]).expect("verify-full and the right name");
    server.refuses("127.0.0.1", "wrapped", &[full, root], "not valid for name");
    server.refuses("localhost", "wrapped", &[full], "a root certificate is needed");
    server.refuses("localhost", "wrapped", &[chain, ("sslrootcert", "system")], "too weak");
    server.refuses("localhost", "wrapped", &[("sslmode", "verify")], "is unknown; it is disable, allow");

    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = server.file("revoked.crl", list.signed_by(&issuer).unwrap().pem().unwrap());
    server.refuses("localhost", "wrapped", &[full, root, ("sslcrl", &list)], "Revoked");

    server.present(&signed(&issuer, "localhost", 8, 2021), &issuer).await;
    server.connect("localhost", "wrapped", &[require]).expect("nobody looks at the date");
    server.refuses("localhost", "wrapped", &[chain, root], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_sent_and_its_key_is_kept_secret() {
    let issuer = issuer("rowdelta tests");
    let server = Server::start().await;
    server.present(&signed(&issuer, "localhost", 1, 2100), &issuer).await;
    let (certificate, key) = signed(&issuer, "certified", 2, 2100);
    let (certificate, key) = (server.file("client.crt", certificate), server.file("client.key", key));
    let given = [("sslmode", "require"), ("sslcert", &*certificate), ("sslkey", &*key)];
    allow(&key, 0o644);
    server.refuses("localhost", "certified", &given, "must not be accessible to others");
    allow(&key, 0o600);
    server.connect("localhost", "certified", &given).expect("the certificate's role");
    server.refuses("localhost", "certified", &given[..1], "certificate");

    // What stands in ~/.postgresql is taken without being named.
    std::fs::create_dir(server.home.path(".postgresql")).unwrap();
    for (from, to) in [(&certificate, "postgresql.crt"), (&key, "postgresql.key")] {
        std::fs::rename(from, server.home.path(&format!(".postgresql/{to}"))).unwrap();
    }
    server.connect("localhost", "certified", &given[..1]).expect("the certificate in the home");
    server.file(".postgresql/root.crt", self::issuer("somebody else").pem());
    server.refuses("localhost", "certified", &given[..1], "UnknownIssuer");
}
