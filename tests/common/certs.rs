//! Keys and certificates, created with openssl for one test.

use super::process::run_ok;
use super::scratch::Scratch;
use super::words;
use std::path::PathBuf;
use std::process::Command;

pub struct Certs {
    /// The authority that signed `cert`.
    pub ca: PathBuf,
    /// For id1.example.com, *.example.com, localhost and 127.0.0.1.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// For the same names, self-signed, as `openssl req -x509` creates it.
    pub self_signed: PathBuf,
    pub self_signed_key: PathBuf,
    /// An authority that has signed nothing.
    pub other_ca: PathBuf,
    _scratch: Scratch,
}

pub fn make() -> Certs {
    const NAMES: &str =
        "subjectAltName=DNS:id1.example.com,DNS:*.example.com,DNS:localhost,IP:127.0.0.1";
    let scratch = Scratch::new();
    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        run_ok(command.args(words(line)).current_dir(scratch.path()));
    };
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    scratch.file("names", format!("{NAMES}\nbasicConstraints=CA:FALSE\n"));
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {ec} -days 30 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ));
    }
    openssl(&format!(
        "req {ec} -subj /CN=id1.example.com -keyout tls.key -out tls.csr"
    ));
    openssl(
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
         -extfile names -out tls.crt",
    );
    openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=id1.example.com -addext {NAMES} \
         -keyout self.key -out self.crt"
    ));
    Certs {
        ca: scratch.join("ca.crt"),
        cert: scratch.join("tls.crt"),
        key: scratch.join("tls.key"),
        self_signed: scratch.join("self.crt"),
        self_signed_key: scratch.join("self.key"),
        other_ca: scratch.join("other.crt"),
        _scratch: scratch,
    }
}

impl Certs {
    /// The server's flags for the certificate signed by the authority.
    pub fn flags(&self) -> String {
        format!(
            "-certFile {} -keyFile {}",
            self.cert.display(),
            self.key.display()
        )
    }

    /// The server's flags for the self-signed certificate.
    pub fn self_signed_flags(&self) -> String {
        format!(
            "-certFile {} -keyFile {}",
            self.self_signed.display(),
            self.self_signed_key.display()
        )
    }
}
