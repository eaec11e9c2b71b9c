//! Documentation that is generated from the flags: the tables of docs/configuration.md, and the man
//! page. Tests compare it with the files; `GT_WRITE_DOCS=1 cargo test --lib pages::` writes them.

use super::{names, RoleName};
use std::fmt::Write;

/// Returns the flags of a role as a table in Markdown.
fn table(role: RoleName) -> String {
    let mut table = "| flag | value | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for name in names(Some(role)) {
        let default = match name.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let (flag, kind, help) = (name.camel, name.kind, name.help());
        table.push_str(&format!("| `-{flag}` | {kind} | {default} | {help} |\n"));
    }
    table
}

/// Escapes text for roff (man(7)): a dash stays a dash, and no line begins with a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Returns the flags of a role as paragraphs of a man page.
fn paragraphs(role: RoleName) -> String {
    let mut page = String::new();
    for name in names(Some(role)) {
        let kind = match name.kind {
            "bool" => String::new(),
            kind => format!(" \\fI{kind}\\fR"),
        };
        let default = match name.default {
            "" => String::new(),
            default => format!(" (default {default})"),
        };
        let (flag, help) = (roff(name.camel), roff(&format!("{}{default}", name.help())));
        let _ = write!(page, ".TP\n\\fB\\-{flag}\\fR{kind}\n{help}\n");
    }
    page
}

const BEGIN: &str = r#".TH GT 1
.SH NAME
gt \- a reverse\-proxy tunnel
.SH SYNOPSIS
\fBgt server\fR [\fIflags\fR]
.br
\fBgt client\fR [\fIflags\fR]
.br
\fBgt\fR [\fBcheck\fR] \fB\-config\fR \fIfile\fR|\fIdirectory\fR
.br
\fBgt\fR [\fBserver\fR|\fBclient\fR] \fB\-s\fR \fBreload\fR|\fBwake\fR|\fBrestart\fR|\fBstop\fR|\fBkill\fR [\fB\-config\fR \fIfile\fR]
.SH DESCRIPTION
gt publishes services behind NAT through a server with a public address. The server routes visitors by
HTTP host name, TLS server name or TCP port through a tunnel to a client, which connects them to a local
service.
.PP
Every flag is also a key under \fBoptions:\fR of a yaml file, by the same name; a flag overrides the file.
\fBgt bans\fR lists the addresses that running clients have banned, and lifts bans.
\fBgt status\fR [\fB\-json\fR] shows what running processes of gt do: those with \fBwebAddr\fR, and the ways of forwarders.
\fBgt hash\fR [\fIuser\fR] asks for a password, or reads a line of standard input, and prints its hash.
\fBgt keygen\fR [\fIfile\fR] makes a key for a client and prints the line of it that the server needs.
\fBgt keygen \-shared\fR prints a key for a private service and the clients that may reach it.
\fBgt import\fR \fIfile\fR prints a configuration of frp, of rathole or of the original GT as gt's.
\fBgt fingerprint \-config\fR \fIfile\fR prints the fingerprint of a server's key, for \fBremoteKey\fR.
\fBgt check\fR tests a configuration without running it.
"#;

const END: &str = r#".SH SIGNALS
.TP
SIGHUP
reads the configuration again (\fB\-s reload\fR)
.TP
SIGUSR1
makes clients that wait before their next attempt connect at once (\fB\-s wake\fR)
.TP
SIGQUIT
starts the installed program, which takes over without losing connections (\fB\-s restart\fR)
.TP
SIGTERM, SIGINT
ends after at most 5 seconds for running connections; a second signal ends at once (\fB\-s stop\fR)
.SH EXIT STATUS
0: stopped on request. 1: failed at run time. 2: a mistake in the flags or the configuration.
.SH FILES
.TP
/etc/gt.yaml
the configuration, by convention of the packages
"#;

fn man_page() -> String {
    let (client, server) = (paragraphs(RoleName::Client), paragraphs(RoleName::Server));
    format!("{BEGIN}.SH FLAGS OF THE CLIENT\n{client}.SH FLAGS OF THE SERVER\n{server}{END}")
}

/// Checks that a file of the repository has the generated content, or writes it.
fn assert_generated(path: &str, wanted: impl FnOnce(&str) -> String) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = wanted(&page);
    if std::env::var_os("GT_WRITE_DOCS").is_some() {
        std::fs::write(path, &wanted).expect("write the page");
    } else {
        assert!(page == wanted, "GT_WRITE_DOCS=1 cargo test --lib pages::");
    }
}

#[test]
fn the_documentation_has_the_tables_of_the_flags() {
    assert_generated("docs/configuration.md", |page| {
        let head = page.split("## Flags of the client\n").next();
        format!(
            "{}## Flags of the client\n\n{}\n## Flags of the server\n\n{}",
            head.expect("a page"),
            table(RoleName::Client),
            table(RoleName::Server)
        )
    });
}

#[test]
fn the_man_page_has_the_flags() {
    assert_generated("etc/gt.1", |_| man_page());
}
