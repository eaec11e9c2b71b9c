//! Which certificates and keys gt accepts, and its errors for the others. The files are created
//! with openssl.

use crate::common::gt::{client, gt, server, Gt};
use crate::common::process::run_ok;
use crate::common::scratch::Scratch;
use crate::common::words;
use std::path::Path;
use std::process::Command;

/// A folder in which openssl runs.
struct Shop(Scratch);

impl Shop {
    fn new() -> Shop {
        Shop(Scratch::new())
    }

    fn openssl(&self, line: &str) {
        let mut command = Command::new("openssl");
        run_ok(command.args(words(line)).current_dir(self.0.path()));
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Creates a key and a self-signed certificate: `NAME.key` and `NAME.crt`.
    fn self_signed(&self, name: &str, key: &str, host: &str) {
        self.openssl(&format!(
            "req -x509 -newkey {key} -nodes -days 30 -subj /CN={name} \
             -addext subjectAltName={host} -keyout {name}.key -out {name}.crt"
        ));
    }

    /// Starts a server with this certificate and key.
    fn server(&self, cert: &str, key: &str) -> Gt {
        server(&format!(
            "-addr \"\" -tlsAddr 127.0.0.1:0 -id id1 -secret secret1 -certFile {} -keyFile {}",
            self.path(cert),
            self.path(key)
        ))
    }

    /// Runs `gt check` for a server with these files; returns whether it accepts them, and all
    /// lines.
    fn check(&self, cert: &str, key: &str) -> (bool, String) {
        let output = gt(&format!(
            "check server -addr \"\" -tlsAddr 127.0.0.1:0 -id id1 -secret secret1 -certFile {} \
             -keyFile {}",
            self.path(cert),
            self.path(key)
        ));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    fn assert_usable(&self, cert: &str, key: &str) {
        let (usable, said) = self.check(cert, key);
        assert!(usable, "{cert}, {key}: {said}");
    }

    /// Fails unless the error names `file` and contains all of `words`.
    fn assert_refused(&self, cert: &str, key: &str, file: &str, words: &[&str]) {
        let (usable, said) = self.check(cert, key);
        assert!(!usable, "{cert}, {key} should not be usable");
        for word in words.iter().copied().chain([self.path(file).as_str()]) {
            assert!(said.contains(word), "{said:?} should say {word:?}");
        }
    }
}

const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const HERE: &str = "IP:127.0.0.1";

fn client_of(server: &mut Gt, more: &str) -> Gt {
    client(&client_line(server, more))
}

fn client_line(server: &mut Gt, more: &str) -> String {
    format!(
        "-local http://127.0.0.1:80 -remote tls://{} -reconnectDelay 100ms -id id1 \
         -secret secret1 {more}",
        server.tls_addr()
    )
}

/// Exact matches apply only to certificates that the user has named.
#[test]
fn a_system_certificate_is_not_accepted_for_any_name() {
    let shop = Shop::new();
    shop.self_signed("elsewhere", EC, "DNS:elsewhere.example.com");
    let mut server = shop.server("elsewhere.crt", "elsewhere.key");
    let store = shop.0.join("elsewhere.crt");
    let line = format!("client {}", client_line(&mut server, ""));
    let mut client = Gt::trusting(&store, &line);
    client.assert_keeps_failing(&["cannot speak TLS with the server", "certificate"]);
    // As remoteCert it is accepted, whatever its name.
    let named = format!("-remoteCert {}", store.display());
    client_of(&mut server, &named).wait_for_tunnel();
}

#[test]
fn a_self_signed_server_gets_an_error_with_advice() {
    let shop = Shop::new();
    shop.self_signed("self", EC, HERE);
    shop.self_signed("other", EC, HERE);
    let mut server = shop.server("self.crt", "self.key");
    let other = format!("-remoteCert {}", shop.path("other.crt"));
    let mut client = client_of(&mut server, &other);
    client.assert_keeps_failing(&["set remoteCert to the server's certificate"]);
}

#[test]
fn a_version_1_certificate_works_as_remote_cert() {
    let shop = Shop::new();
    shop.self_signed("ca", EC, HERE);
    shop.openssl(&format!(
        "req -newkey {EC} -nodes -subj /CN=localhost -keyout old.key -out old.csr"
    ));
    shop.openssl("x509 -req -in old.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out old.crt");
    let text = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in", &shop.path("old.crt")])
        .output()
        .expect("run openssl");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("Version: 1"), "{text}");

    let mut server = shop.server("old.crt", "old.key");
    for trust in ["-remoteCertInsecure", &named(&shop.path("old.crt"))] {
        client_of(&mut server, trust).wait_for_tunnel();
    }
    // It has no names and no uses, so its authority vouches for nothing.
    let mut client = client_of(&mut server, &named(&shop.path("ca.crt")));
    client.assert_keeps_failing(&["set remoteCert to the server's certificate"]);
    shop.assert_refused("old.crt", "ca.key", "old.crt", &["ca.key"]);
}

fn named(file: &str) -> String {
    format!("-remoteCert {file}")
}

#[test]
fn keys_and_certificates_are_accepted_in_every_usable_format() {
    let shop = Shop::new();
    shop.self_signed("ec", EC, HERE);
    shop.self_signed("rsa", "rsa:2048", HERE);
    shop.self_signed("ed", "ed25519", HERE);
    for name in ["ec", "rsa", "ed"] {
        shop.assert_usable(&format!("{name}.crt"), &format!("{name}.key"));
    }
    // "Traditional" is openssl's word for its formats from before PKCS #8.
    shop.openssl("pkey -in rsa.key -traditional -out rsa-old.key");
    shop.openssl("pkey -in ec.key -traditional -out ec-old.key");
    for name in ["rsa-old.key", "ec-old.key"] {
        let text = std::fs::read_to_string(shop.path(name)).expect("read a key");
        assert!(!text.contains("BEGIN PRIVATE KEY"), "{text}");
    }
    shop.assert_usable("rsa.crt", "rsa-old.key");
    shop.assert_usable("ec.crt", "ec-old.key");
    // As Windows editors write them.
    for name in ["ec.crt", "ec.key"] {
        let text = std::fs::read(shop.path(name)).expect("read a file");
        let text = text.iter().flat_map(|byte| match byte {
            b'\n' => b"\r\n".to_vec(),
            byte => vec![*byte],
        });
        let marked: Vec<u8> = b"\xEF\xBB\xBF".iter().copied().chain(text).collect();
        shop.0.file(&format!("marked-{name}"), marked);
    }
    shop.assert_usable("marked-ec.crt", "marked-ec.key");
    let trusting = named(&shop.path("marked-ec.crt"));
    let mut server = shop.server("marked-ec.crt", "marked-ec.key");
    client_of(&mut server, &trusting).wait_for_tunnel();
}

/// Runs the commands that the errors name, and checks that their output is accepted.
#[test]
fn the_error_for_an_unusable_file_names_the_command_that_converts_it() {
    let shop = Shop::new();
    shop.self_signed("ec", EC, HERE);
    shop.openssl("pkey -in ec.key -aes256 -passout pass:word -out encrypted.key");
    shop.openssl("pkey -in ec.key -traditional -aes256 -passout pass:word -out old.key");
    for key in ["encrypted.key", "old.key"] {
        shop.assert_refused("ec.crt", key, key, &["openssl pkey -in", "password"]);
    }
    shop.openssl("pkey -in ec.key -outform der -out der.key");
    shop.openssl("x509 -in ec.crt -outform der -out der.crt");
    let (key, cert) = ("openssl pkey -inform der", "openssl x509 -inform der");
    shop.assert_refused("ec.crt", "der.key", "der.key", &[key]);
    shop.assert_refused("der.crt", "ec.key", "der.crt", &[cert]);
    shop.openssl("pkcs12 -export -in ec.crt -inkey ec.key -passout pass: -out both.p12");
    shop.assert_refused("both.p12", "ec.key", "both.p12", &["openssl pkcs12 -in"]);
    shop.assert_refused(
        "ec.key",
        "ec.key",
        "ec.key",
        &["the certificate is another file"],
    );
    shop.assert_refused("ec.crt", "ec.crt", "ec.crt", &["the key is another file"]);
    shop.0.file("empty", "");
    shop.assert_refused("empty", "ec.key", "empty", &["it is empty"]);
    shop.assert_refused("none", "ec.key", "none", &["No such file"]);

    shop.self_signed("p521", "ec -pkeyopt ec_paramgen_curve:P-521", HERE);
    let words = ["curve", "ec_paramgen_curve:P-256"];
    shop.assert_refused("p521.crt", "p521.key", "p521.key", &words);

    let converted = |line: &str, made: &str| {
        shop.openssl(line);
        assert!(Path::new(&shop.path(made)).exists());
    };
    converted(
        "pkey -in encrypted.key -passin pass:word -out plain.pem",
        "plain.pem",
    );
    shop.assert_usable("ec.crt", "plain.pem");
    converted("x509 -inform der -in der.crt -out cert.pem", "cert.pem");
    converted("pkey -inform der -in der.key -out key.pem", "key.pem");
    shop.assert_usable("cert.pem", "key.pem");
    let twelve = "pkcs12 -in both.p12 -nodes -passin pass: -out converted.pem";
    converted(twelve, "converted.pem");
    shop.assert_usable("converted.pem", "converted.pem");
}
