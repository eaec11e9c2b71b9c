//! nginx as the service behind a tunnel, with its own configuration.

use super::certs::Certs;
use super::ports::free_port;
use super::process::Process;
use super::samples::random_file;
use super::scratch::Scratch;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

pub const INDEX: &str = "<h1>the page of nginx</h1>\n";

pub struct Nginx {
    pub http: SocketAddr,
    /// Answers only when started with certificates.
    pub https: SocketAddr,
    process: Process,
}

/// Starts nginx with `/` (a page), `/host` (returns the Host it got), `/zipped/` (chunked
/// responses), `/big` (100 MiB) and `/upload/NAME` (stores a PUT).
pub fn start(certs: Option<&Certs>) -> Nginx {
    let scratch = Scratch::new();
    let (http, https) = (free_port(), free_port());
    let tls = certs.map_or(String::new(), |certs| {
        format!(
            "listen 127.0.0.1:{https} ssl; ssl_certificate {}; ssl_certificate_key {};",
            certs.cert.display(),
            certs.key.display()
        )
    });
    let root = scratch.path().display();
    let site = scratch.dir("site");
    scratch.dir("stored");
    scratch.file("site/index.html", INDEX);
    scratch.file("site/lines", lines());
    symlink(random_file(100), site.join("big")).expect("link the big file");
    let config = format!(
        r#"
        client_max_body_size 0;
        keepalive_requests 100000;
        types {{ text/html html; }}
        ssl_protocols TLSv1.2 TLSv1.3;
        server {{
            listen 127.0.0.1:{http};
            {tls}
            root {root}/site;
            location /zipped/ {{
                alias {root}/site/;
                gzip on; gzip_types *; gzip_min_length 1;
            }}
            location /upload/ {{ alias {root}/stored/; dav_methods PUT; }}
            location /host {{ return 200 "$http_host"; }}
        }}
        "#
    );
    let (process, http) = with_http(scratch, http, &config);
    Nginx {
        http,
        https: SocketAddr::from(([127, 0, 0, 1], https)),
        process,
    }
}

/// Starts nginx with this text in its section `http`, and waits until it listens on `port`.
pub fn with_http(scratch: Scratch, port: u16, config: &str) -> (Process, SocketAddr) {
    let config = format!(
        "http {{
            access_log off;
            client_body_temp_path temp-body;
            proxy_temp_path temp-proxy;
            fastcgi_temp_path temp-fastcgi;
            uwsgi_temp_path temp-uwsgi;
            scgi_temp_path temp-scgi;
            {config}
        }}"
    );
    with(scratch, port, "", &config)
}

/// Starts nginx with this `stream` section, which listens on `port`.
pub fn with_stream(scratch: Scratch, port: u16, config: &str) -> (Process, SocketAddr) {
    let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
    with(scratch, port, module, &format!("stream {{ {config} }}"))
}

fn with(scratch: Scratch, port: u16, module: &str, config: &str) -> (Process, SocketAddr) {
    let config = format!(
        "{module}
        daemon off;
        master_process off;
        pid nginx.pid;
        error_log stderr;
        events {{ worker_connections 2000; }}
        {config}"
    );
    let path = scratch.file("nginx.conf", config);
    let mut command = Command::new("nginx");
    command.arg("-p").arg(scratch.path()).arg("-c").arg(path);
    command.args(["-e", "stderr"]);
    let mut process = Process::spawn("nginx", scratch, &mut command);
    let addr = process.wait_for_listener(port);
    (process, addr)
}

/// Returns the content of `/lines` and `/zipped/lines`.
pub fn lines() -> String {
    (0..20_000)
        .map(|n| format!("line {n} of a page that is long enough for many chunks\n"))
        .collect()
}

impl Nginx {
    /// Returns where `/upload/NAME` was stored.
    pub fn stored(&self, name: &str) -> PathBuf {
        self.process.scratch().join("stored").join(name)
    }
}
