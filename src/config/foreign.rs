//! Recognition of configuration files in other formats or of frp. The error shows an example of
//! gt's yaml, and names `gt import`, which converts files.

use super::RoleName;

/// The purpose of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A server's or a client's configuration.
    Configuration,
    /// A server's users.
    Users,
}

/// Top-level keys of frp's files. No file of gt has them.
const OF_FRP: [&str; 10] = [
    "serverAddr",
    "serverPort",
    "server_addr",
    "server_port",
    "bindAddr",
    "bindPort",
    "bind_addr",
    "bind_port",
    "proxies",
    "visitors",
];

/// What the errors say of `gt import`.
const IMPORT: &str = if cfg!(feature = "import") {
    " (gt import FILE prints it)"
} else {
    ""
};

/// Returns the error about an INI or TOML file, or `None` if the text does not look like one.
pub fn not_yaml(text: &str, content: Content) -> Option<String> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', ';']))?;
    let section = first.starts_with('[') && first.ends_with(']');
    if !section && setting(first).is_none() {
        return None;
    }
    // A yaml list may begin like a section, but it has no settings.
    let mut settings = text.lines().filter_map(setting);
    let of_frp = settings.clone().any(|(key, _)| OF_FRP.contains(&key));
    settings.next()?;
    let program = if of_frp { " of frp" } else { "" };
    let import = match content {
        Content::Configuration => IMPORT,
        Content::Users => "",
    };
    Some(format!(
        "this is an INI or TOML file{program}, but gt reads yaml{import}, like this:\n{}",
        example(text, content)
    ))
}

/// Returns the error about a yaml file of frp, or `None` if no key is frp's. `keys` are its
/// top-level keys.
pub fn frp(keys: &[&str], text: &str) -> Option<String> {
    if !keys.iter().any(|key| OF_FRP.contains(key)) {
        return None;
    }
    let example = example(text, Content::Configuration);
    Some(format!(
        "this is a file of frp, but gt has other keys{IMPORT}, like this:\n{example}"
    ))
}

/// Splits `key = value`, without quotes around the value.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let usual = |c: char| c.is_ascii_alphanumeric() || "-_.\"".contains(c);
    let is_key = !key.is_empty() && key.chars().all(usual);
    is_key.then(|| (key, value.trim().trim_matches('"')))
}

/// Returns an example of gt's yaml, with the addresses in the text if there are any.
fn example(text: &str, content: Content) -> String {
    let value = |names: [&str; 2]| {
        let of_line = |line| {
            setting(line).or_else(|| {
                let (key, value) = line.split_once(": ")?;
                Some((key, value.trim().trim_matches('"')))
            })
        };
        let mut all = text.lines().filter_map(of_line);
        all.find_map(|(key, value)| names.contains(&key).then_some(value))
            .filter(|value| !value.is_empty() && value.len() < 100)
    };
    if content == Content::Users {
        return "id1: {secret: secret1}\nid2: {secret: secret2}".to_owned();
    }
    let bound = value(["bindPort", "bind_port"]);
    let role = match bound.is_some() || text.lines().any(|line| line.trim() == "[server]") {
        true => RoleName::Server,
        false => RoleName::Client,
    };
    match role {
        RoleName::Server => {
            let port = bound.unwrap_or("80");
            format!("type: server\nusers:\n  id1: {{secret: secret1}}\noptions:\n  addr: {port}")
        }
        RoleName::Client => {
            let host = value(["serverAddr", "server_addr"]).unwrap_or("example.com");
            let port = value(["serverPort", "server_port"]);
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!(
                "type: client\nservices:\n  - local: http://127.0.0.1:8080\noptions:\n  \
                 remote: tcp://{host}{port}\n  id: id1\n  secret: secret1"
            )
        }
    }
}

/// Returns the error for a line with the local service `socks5:` or `httpproxy:` without quotes, which yaml
/// takes for a key. `error` is what the parser of yaml says, with the number of the line.
pub fn unquoted_proxy(text: &str, error: &str) -> Option<String> {
    let number = error.strip_prefix("line ")?.split(':').next()?;
    let line = text
        .lines()
        .nth(number.parse::<usize>().ok()?.checked_sub(1)?)?;
    let is_value = |before: &str| before.trim_end().ends_with([':', '-', '[']);
    let is_unquoted = |word: &&str| {
        let mut parts = line.match_indices(*word);
        parts.any(|(at, _)| {
            let before = line.get(..at).unwrap_or_default();
            let behind = line.get(at.saturating_add(word.len())..);
            is_value(before) && !behind.unwrap_or_default().starts_with(['/', '"', '\''])
        })
    };
    let word = ["socks5:", "httpproxy:"].into_iter().find(is_unquoted)?;
    Some(format!(
        "line {number}: yaml takes {word} for a key, because of its colon: write it in quotes, local: \"{word}\"."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INI: &str =
        "# frpc\n[common]\nserver_addr = 192.0.2.1\nserver_port = 7000\n\n[ssh]\ntype = tcp\n";
    const TOML: &str =
        "serverAddr = \"192.0.2.1\"\nserverPort = 7000\n\n[[proxies]]\nname = \"ssh\"\n";
    const YAML: &str = "serverAddr: \"192.0.2.1\"\nserverPort: 7000\nproxies:\n  - name: ssh\n";
    const CLIENT: &str = "like this:\ntype: client\nservices:\n  - local: http://127.0.0.1:8080\n\
                          options:\n  remote: tcp://192.0.2.1:7000\n  id: id1\n  secret: secret1";

    #[test]
    fn a_proxy_without_quotes_is_named_with_its_line() {
        for (text, is) in [
            ("services:\n- local: socks5:\n  remoteTCPPort: 1080\n", true),
            (
                "services:\n- remoteTCPPort: 1080\n  local: httpproxy:\n  x: 1\n",
                true,
            ),
            ("services: [{local: socks5:, remoteTCPPort: 1080}]\n", true),
            ("services:\n- local: \"socks5:\"\n  x: a: b\n", false),
            ("options: [socks5:\n", false),
        ] {
            let document = super::super::file::Document::parse(
                std::path::Path::new("gt.yaml"),
                text.to_owned(),
                Content::Configuration,
            );
            let error = document.map(drop).expect_err(text).to_string();
            assert_eq!(
                error.contains("write it in quotes, local: \""),
                is,
                "{error}"
            );
        }
    }

    #[test]
    fn an_error_about_a_file_of_frp_shows_the_yaml_to_write() {
        for text in [INI, TOML] {
            let why = not_yaml(text, Content::Configuration).unwrap();
            assert!(
                why.starts_with("this is an INI or TOML file of frp, "),
                "{why}"
            );
            assert!(why.ends_with(CLIENT), "{why}");
        }
        let why = frp(&["serverAddr", "serverPort", "proxies"], YAML).unwrap();
        assert!(why.starts_with("this is a file of frp, "), "{why}");
        assert!(why.ends_with(CLIENT), "{why}");
        let server = not_yaml("[common]\nbind_port = 7000\n", Content::Configuration).unwrap();
        assert!(server.ends_with("options:\n  addr: 7000"), "{server}");
        let users = not_yaml("[users]\nid1 = secret1\n", Content::Users).unwrap();
        assert!(
            users.starts_with("this is an INI or TOML file, "),
            "{users}"
        );
        assert!(users.ends_with("id2: {secret: secret2}"), "{users}");
    }

    #[test]
    fn yaml_with_a_mistake_is_not_taken_for_something_else() {
        for text in [
            "",
            "options: [\n",
            "[a, b]\n",
            "- a = b\n",
            "options:\n  addr = 80\n",
            "a, b = c\n",
        ] {
            assert_eq!(not_yaml(text, Content::Configuration), None, "{text}");
        }
        assert_eq!(frp(&["options", "services"], ""), None);
    }
}
