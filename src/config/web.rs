//! The settings of the web page by which gt is run. Not the page. Builds without it have `no_web`.

use super::options::CommonOptions;
use super::value::Scalar;
use super::ListenAddr;
use crate::passwords::PasswordHash;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The name of the person that runs gt, unless `admin` says another.
const ADMIN: &str = "admin";
/// Maximum length in bytes of that name.
const MAX_ADMIN: usize = 64;
/// The value of `webCertFile` for a certificate that gt makes itself.
const AUTO: &str = "auto";

/// The web page of a role.
#[derive(Clone, Debug, PartialEq)]
pub struct WebConfig {
    addr: ListenAddr,
    /// The certificate; `None` for plain HTTP.
    pub tls: Option<WebTls>,
    /// Host names that requests may have, besides IP addresses and localhost.
    pub hosts: Vec<String>,
    /// The name to sign in with.
    pub admin: String,
    /// The password to sign in with; `None` for a link in the log that signs in once.
    pub password: Option<PasswordHash>,
}

/// The certificate of the page.
#[derive(Clone, Debug, PartialEq)]
pub enum WebTls {
    /// PEM files with the certificate and the key.
    Files(PathBuf, PathBuf),
    /// The certificate that gt makes, and keeps in this directory; `None` for one that lasts as long as the
    /// process.
    Own(Option<PathBuf>),
}

/// The keys of a file about the page, which are no options: flags can be seen by every user of a machine, and
/// `password` is an option of a client's services.
pub struct WebFile {
    pub admin: Option<String>,
    pub password: Option<WebPassword>,
}

/// The hash of the page's password.
pub struct WebPassword(PasswordHash);

impl Scalar for WebPassword {
    fn read(text: &str) -> Result<Self, String> {
        // The text may be a password: it is not shown.
        let hash = text.parse().map_err(|why| {
            let why = match text.contains(':') {
                true => "it begins with a name and a colon, for which there is admin",
                false => match why {
                    "what follows the colon is not a hash" => "it is something else",
                    why => why,
                },
            };
            format!("It is not the hash of a password: {why}. Write what \"gt hash\" prints.")
        });
        hash.map(Self)
    }
}

impl WebConfig {
    /// Checks the options and keys of the page; `None` without `webAddr`.
    pub(super) fn new(
        options: &CommonOptions,
        file: WebFile,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, String> {
        let password = file.password.map(|password| password.0);
        let Some(mut addr) = options.web_addr.clone() else {
            if password.is_some() || file.admin.is_some() {
                warnings.push(
                    "admin and password are those of the web page, which is off: set webAddr"
                        .to_owned(),
                );
            }
            return Ok(None);
        };
        let admin = file.admin.unwrap_or_else(|| ADMIN.to_owned());
        let is_name = admin.len() <= MAX_ADMIN
            && !admin.contains(':')
            && !admin.chars().any(char::is_control);
        if !is_name {
            return Err(format!(
                "admin is the name of a person, without a colon, of at most {MAX_ADMIN} bytes."
            ));
        }
        let tls = match (&options.web_cert_file, &options.web_key_file) {
            (None, None) => None,
            (Some(cert), None) if cert.as_os_str() == AUTO => {
                Some(WebTls::Own(options.state_dir.clone()))
            }
            (Some(cert), Some(key)) if cert.as_os_str() != AUTO => {
                Some(WebTls::Files(cert.clone(), key.clone()))
            }
            _ => {
                let why = "webCertFile needs webKeyFile: the certificate and its key, in PEM; or \
                           webCertFile: auto, without webKeyFile, for a certificate that gt makes.";
                return Err(why.to_owned());
            }
        };
        if addr.host.is_none() && password.is_none() {
            addr.host = Some("127.0.0.1".to_owned());
        }
        let is_here = is_loopback(&addr);
        if !is_here && password.is_none() {
            return Err(format!(
                "webAddr {addr} can be reached from other machines, so that the page needs a \
                 password: write \"password:\" and what \"gt hash\" prints into the file, beside \
                 options; or listen on 127.0.0.1."
            ));
        }
        if !is_here && tls.is_none() {
            warnings.push(format!(
                "webAddr {addr} has no TLS: others on the way can read the page's password; set \
                 webCertFile: auto"
            ));
        }
        let hosts = options.web_hosts.iter().map(|host| host.0.clone());
        Ok(Some(Self {
            addr,
            tls,
            hosts: hosts.collect(),
            admin,
            password,
        }))
    }

    /// Returns the address to listen on.
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// Returns the file of the key.
    pub fn key_file(&self) -> Option<PathBuf> {
        match &self.tls {
            Some(WebTls::Files(_, key)) => Some(key.clone()),
            _ => None,
        }
    }

    /// Returns the directory with the certificate that gt makes.
    pub fn state_dir(&self) -> Option<&Path> {
        match &self.tls {
            Some(WebTls::Own(directory)) => directory.as_deref(),
            _ => None,
        }
    }
}

/// Whether only programs of this machine can connect to an address.
fn is_loopback(addr: &ListenAddr) -> bool {
    let host = addr.host.as_deref().unwrap_or_default();
    let ip = host.parse::<IpAddr>();
    ip.map_or(host == "localhost", |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::config::file::Document;
    use crate::config::foreign::Content;
    use crate::config::{RoleConfig, RoleName, WebTls};
    use std::path::{Path, PathBuf};

    const HASH: &str =
        "$pbkdf2-sha256$i=310000$c29tZXNhbHRzb21l$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    /// Reads the file of each role with these options and keys.
    fn read(options: &str, keys: &str) -> Vec<Result<RoleConfig, String>> {
        let server = format!("options: {{addr: 80, {options}}}\n{keys}");
        let client =
            format!("options: {{id: a, remote: h, local: http://127.0.0.1:80, {options}}}\n{keys}");
        let roles = [
            #[cfg(feature = "server")]
            (RoleName::Server, server),
            #[cfg(feature = "client")]
            (RoleName::Client, client),
        ];
        let read = |(role, text): (RoleName, String)| {
            let path = Path::new("gt.yaml");
            let document = Document::parse(path, text, Content::Configuration).unwrap();
            crate::cli::load(role, &[], Some(&document)).map_err(|e| e.to_string())
        };
        roles.into_iter().map(read).collect()
    }

    fn warns(loaded: &RoleConfig, word: &str) -> bool {
        loaded.warnings.iter().any(|warning| warning.contains(word))
    }

    #[test]
    fn a_page_without_a_password_is_for_this_machine_alone() {
        for (addr, bound) in [
            ("8086", "127.0.0.1:8086"),
            (":8086", "127.0.0.1:8086"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:1", "[::1]:1"),
            ("localhost:1", "localhost:1"),
        ] {
            for loaded in read(&format!("webAddr: '{addr}'"), "") {
                let loaded = loaded.unwrap();
                let web = loaded.web().unwrap();
                assert_eq!(web.addr().to_string(), bound);
                assert_eq!((web.admin.as_str(), &web.password), ("admin", &None));
                assert!(!warns(&loaded, "no TLS"));
            }
        }
        for addr in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "router.lan:1"] {
            for loaded in read(&format!("webAddr: '{addr}'"), "") {
                let why = loaded.unwrap_err();
                assert!(why.contains("gt hash"), "{addr}: {why}");
            }
            for loaded in read(
                &format!("webAddr: '{addr}'"),
                &format!("password: {HASH}\nadmin: root"),
            ) {
                let loaded = loaded.unwrap();
                let web = loaded.web().unwrap();
                assert_eq!(web.admin, "root");
                assert!(web.password.is_some() && warns(&loaded, "no TLS"));
                assert!(!loaded.shown.contains("pbkdf2"), "{}", loaded.shown);
            }
        }
    }

    #[test]
    fn a_certificate_is_two_files_or_auto() {
        let (cert, key) = ("webCertFile: c.pem", "webKeyFile: k.pem");
        let tls = |options: &str| {
            let read = read(&format!("webAddr: 1, stateDir: s, {options}"), "");
            let of = |it: Result<RoleConfig, String>| it.map(|it| it.web().unwrap().tls.clone());
            read.into_iter().map(of).collect::<Vec<_>>()
        };
        for it in tls(&format!("{cert}, {key}")) {
            let files = WebTls::Files(PathBuf::from("c.pem"), PathBuf::from("k.pem"));
            assert_eq!(it, Ok(Some(files)));
        }
        for it in tls("webCertFile: auto") {
            assert_eq!(it, Ok(Some(WebTls::Own(Some(PathBuf::from("s"))))));
        }
        for options in [cert, key, &format!("webCertFile: auto, {key}")] {
            assert!(tls(options).iter().all(Result::is_err), "{options}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_shown() {
        for password in ["hunter2", "admin:hunter2", &format!("admin:{HASH}")] {
            for loaded in read("webAddr: 1", &format!("password: '{password}'")) {
                let why = loaded.unwrap_err();
                assert!(why.contains("line 2: password: "), "{why}");
                assert!(!why.contains("hunter2") && !why.contains("pbkdf2"), "{why}");
            }
        }
        for loaded in read("", "admin: me") {
            assert!(warns(&loaded.unwrap(), "set webAddr"));
        }
    }
}
